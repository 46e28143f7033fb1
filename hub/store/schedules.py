"""Scheduled tasks, and the claim of a minute by one scheduler."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime

from psycopg.rows import class_row

from hub.errors import NotFoundError
from hub.store.audit import record
from hub.store.database import Connection, Database

CONSUME = "consume_responses_task"
HOUSEKEEPING = "housekeeping_task"

_COLUMNS = (
    "name, cron, default_cron, enabled, last_run_at, last_result, last_duration_ms, next_run_at, run_requested_at"
)
_LIST = f"SELECT {_COLUMNS} FROM scheduled_tasks ORDER BY name"  # noqa: S608 - constants
_LOCKED = f"SELECT {_COLUMNS} FROM scheduled_tasks ORDER BY name FOR UPDATE"  # noqa: S608
_GET = f"SELECT {_COLUMNS} FROM scheduled_tasks WHERE name = %s"  # noqa: S608
# Another scheduler that claims the same minute waits here for the commit, and then inserts nothing.
_CLAIM = """
INSERT INTO ticks (minute, claimed_by) VALUES (%s, %s) ON CONFLICT DO NOTHING
"""
_LAUNCHED = """
UPDATE scheduled_tasks
SET last_run_at = now(), last_result = 'running', last_duration_ms = NULL, next_run_at = %s, run_requested_at = NULL
WHERE name = %s
"""
# One launch may have many runs, one for each service. The worst result stays until the next launch. The duration ends
# with the last run.
_FINISHED = """
UPDATE scheduled_tasks
SET last_result = CASE
        WHEN %(result)s = 'error' THEN 'error'
        WHEN last_result IS NULL OR last_result IN ('running', 'skipped') THEN %(result)s
        ELSE last_result END,
    last_duration_ms = greatest(last_duration_ms, extract(epoch FROM clock_timestamp() - last_run_at) * 1000)
WHERE name = %(name)s
"""
_NO_RUN = "UPDATE scheduled_tasks SET last_result = 'ok', last_duration_ms = 0 WHERE name = %s"
_PLAN = "UPDATE scheduled_tasks SET next_run_at = %s WHERE name = %s"
_STARTED = """
UPDATE scheduled_tasks SET last_run_at = now(), last_result = 'running', last_duration_ms = NULL WHERE name = %s
"""
_SET_CRON = "UPDATE scheduled_tasks SET cron = %s, next_run_at = %s WHERE name = %s"
_ENABLE = "UPDATE scheduled_tasks SET enabled = %s, next_run_at = %s WHERE name = %s"
_REQUEST = "UPDATE scheduled_tasks SET run_requested_at = now() WHERE name = %s"
_SEED = "SELECT value FROM meta WHERE key = 'deployment'"


@dataclass(frozen=True, slots=True)
class ScheduledTask:
    """One scheduled task. `last_result` is running, ok, error or skipped; `next_run_at` None: never."""

    name: str
    cron: str
    default_cron: str
    enabled: bool
    last_run_at: datetime | None
    last_result: str | None
    last_duration_ms: float | None
    next_run_at: datetime | None
    run_requested_at: datetime | None

    def planned(self, at: datetime | None) -> ScheduledTask:
        """Return the task with another next run."""
        return replace(self, next_run_at=at)


class ClaimedMinute:
    """A minute that this process has claimed, with all scheduled tasks locked until its transaction ends."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn
        with conn.cursor(row_factory=class_row(ScheduledTask)) as cur:
            self.tasks = cur.execute(_LOCKED).fetchall()

    def launched(self, name: str, next_run_at: datetime | None) -> None:
        """Record that the task is being launched and when it is due next."""
        self._conn.execute(_LAUNCHED, [next_run_at, name])

    def nothing_to_do(self, name: str) -> None:
        """Record that the launch made no run."""
        self._conn.execute(_NO_RUN, [name])

    def plan(self, name: str, next_run_at: datetime | None) -> None:
        """Record when the task is due next."""
        self._conn.execute(_PLAN, [next_run_at, name])


class Schedules:
    """Reads and writes `scheduled_tasks`.

    Args:
        claimed_by: the name of this process, stored with the minutes that it claims.
    """

    def __init__(self, db: Database, *, claimed_by: str) -> None:
        self._db = db
        self._claimed_by = claimed_by

    def list(self) -> list[ScheduledTask]:
        """All of them, by name."""
        with self._db.autocommit() as conn, conn.cursor(row_factory=class_row(ScheduledTask)) as cur:
            return cur.execute(_LIST).fetchall()

    def get(self, name: str) -> ScheduledTask:
        """One; raises `NotFoundError`."""
        with self._db.autocommit() as conn, conn.cursor(row_factory=class_row(ScheduledTask)) as cur:
            task = cur.execute(_GET, [name]).fetchone()
        if task is None:
            known = ", ".join(t.name for t in self.list())
            raise NotFoundError(f"no scheduled task named {name!r}; there are: {known}")
        return task

    def seed(self, name: str) -> str:
        """The seed of the random minutes of a cron expression, different in each deployment."""
        row = self._db.one(_SEED)
        return f"{row['value'] if row else ''}/{name}"

    def update(self, name: str, *, cron: str, next_run_at: datetime | None) -> None:
        """Set the cron expression."""
        with self._db.transaction() as conn:
            before = self.get(name)
            conn.execute(_SET_CRON, [cron, next_run_at, name])
            record(conn, "schedule.change", "schedule", name=name, before={"cron": before.cron}, after={"cron": cron})

    def enable(self, name: str, enabled: bool, next_run_at: datetime | None) -> None:
        """Enable or disable."""
        with self._db.transaction() as conn:
            before = self.get(name).enabled
            conn.execute(_ENABLE, [enabled, next_run_at, name])
            after = {"enabled": enabled}
            record(conn, "schedule.change", "schedule", name=name, before={"enabled": before}, after=after)

    def request(self, name: str) -> None:
        """Request a run at the next tick."""
        with self._db.transaction() as conn:
            conn.execute(_REQUEST, [name])
            record(conn, "schedule.run", "schedule", name=name)

    @contextmanager
    def claim(self, minute: datetime) -> Iterator[ClaimedMinute | None]:
        """Claim a minute; None: another scheduler has it. The claim is rolled back when the block raises."""
        with self._db.transaction() as conn:
            if conn.execute(_CLAIM, [minute, self._claimed_by]).rowcount == 0:
                yield None
            else:
                yield ClaimedMinute(conn)

    def started(self, name: str) -> None:
        """Record that a command started the task outside the schedule."""
        self._db.run(_STARTED, [name])

    def finished(self, name: str, result: str) -> None:
        """Record the end of one run: ok, error or skipped."""
        self._db.run(_FINISHED, {"name": name, "result": result})
