"""The table of backfills: started, paused, resumed, cancelled by people; `hub.store.backfill_steps` makes the tasks."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import class_row

from hub.errors import ConflictError, NotFoundError
from hub.store.audit import actor, record
from hub.store.backfill_steps import CANCELLED, SET_STATE, Scope
from hub.store.database import Connection, Database

_LAST_ID = "SELECT last_value AS id FROM events_id_seq"
# A second statement: every transaction that took an id up to `last_id` has a lower transaction id than this one.
_START = """
INSERT INTO backfills (rule_id, rule, state, since, until, rate, first_id, last_id, position, settled_at, expected,
    actor, actor_kind)
VALUES (%(rule_id)s, %(rule)s, 'running', %(since)s, %(until)s, %(rate)s, %(first_id)s, %(last_id)s,
    %(first_id)s - 1, pg_current_xact_id(), %(expected)s, %(actor)s, %(actor_kind)s)
RETURNING id
"""
_COLUMNS = """
SELECT id, rule_id, rule, state, since, until, rate, first_id, last_id, position, expected, matched, skipped, tasks,
       waits_for, actor, actor_kind, created_at, updated_at, ended_at
FROM backfills
"""
_GET = _COLUMNS + "WHERE id = %s"
_LIST = (
    _COLUMNS
    + """
WHERE (%(rule)s::text IS NULL OR rule = %(rule)s) AND (%(before)s::bigint IS NULL OR id < %(before)s)
ORDER BY id DESC LIMIT %(limit)s
"""
)
_FOR_UPDATE = _GET + " FOR UPDATE"
# Tasks that wait in the lane: those that a worker has, or that failed before, go on.
_DROP = """
WITH gone AS (
    DELETE FROM tasks t USING task_origins o
    WHERE o.backfill_id = %(id)s AND o.task_id = t.id AND t.state = 'pending' AND t.bulk AND t.attempts = 0
    RETURNING t.id, t.event_id, t.rule_id, t.service_id
), forgotten AS (
    DELETE FROM task_origins WHERE task_id IN (SELECT id FROM gone)
), noted AS (
    INSERT INTO cancellations (task_id, event_id, rule_id, service_id, event, reason, who)
    SELECT g.id, g.event_id, g.rule_id, g.service_id, e.name, %(cancelled)s, %(who)s
    FROM gone g LEFT JOIN events e ON e.id = g.event_id
)
SELECT count(*) FROM gone
"""


@dataclass(frozen=True, slots=True)
class Backfill:
    """One backfill.

    Attributes:
        state: running, paused, cancelled or done.
        since, until: events accepted in this time; `until` is exclusive.
        rate: most tasks made in a second.
        position: last event id that was looked at, of `first_id` to `last_id`.
        expected: tasks that were counted before it began; None: not counted.
        matched: events that matched so far; `skipped` of them had a task of the rule, of the others `tasks` were made.
        waits_for: why nothing moves at the moment; None: it moves, or has ended.
    """

    id: int
    rule_id: int
    rule: str
    state: str
    since: datetime
    until: datetime
    rate: float
    first_id: int
    last_id: int
    position: int
    expected: int | None
    matched: int
    skipped: int
    tasks: int
    waits_for: str | None
    actor: str
    actor_kind: str
    created_at: datetime
    updated_at: datetime
    ended_at: datetime | None

    @property
    def progress(self) -> float:
        """Which part of the events was looked at, from 0 to 1."""
        if self.state == "done" or self.last_id < self.first_id:
            return 1.0
        return (self.position - self.first_id + 1) / (self.last_id - self.first_id + 1)


class BackfillStore:
    """Starts, reads and changes backfills."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def last_id(self) -> int:
        """The highest event id given out so far, whether its transaction has ended or not."""
        row = self._db.one(_LAST_ID)
        return int(row["id"]) if row else 0

    def start(self, scope: Scope, rule: str, *, rate: float, first_id: int, last_id: int, expected: int | None) -> int:
        """Start a backfill; its id. The audit trail says who did it.

        Raises:
            ConflictError: one of this rule is running or paused.
        """
        who = actor()
        params = {
            "rule_id": scope.rule_id,
            "rule": rule,
            "since": scope.since,
            "until": scope.until,
            "rate": rate,
            "first_id": first_id,
            "last_id": last_id,
            "expected": expected,
            "actor": who.name,
            "actor_kind": who.kind,
        }
        try:
            with self._db.transaction() as conn:
                row = conn.execute(_START, params).fetchone()
                assert row is not None
                after = {"since": scope.since, "until": scope.until, "rate": rate, "expected": expected}
                record(conn, "backfill.start", "backfill", id=row[0], name=rule, after=after)
        except ConflictError:
            raise ConflictError(
                f"a backfill of rule {rule!r} is running or paused: wait for it, or cancel it"
            ) from None
        return int(row[0])

    def get(self, backfill_id: int) -> Backfill:
        """One backfill; raises `NotFoundError`."""
        with self._db.autocommit() as conn:
            return _get(conn, backfill_id)

    def list(self, *, rule: str | None = None, before: int | None = None, limit: int = 50) -> list[Backfill]:
        """Backfills, newest first."""
        params = {"rule": rule, "before": before, "limit": max(1, min(limit, 1000))}
        with self._db.autocommit() as conn, conn.cursor(row_factory=class_row(Backfill)) as cur:
            return cur.execute(_LIST, params).fetchall()

    def pause(self, backfill_id: int) -> Backfill:
        """Make no more tasks until `resume`; those that were made go on. Raises as `resume`."""
        return self._change(backfill_id, "running", "paused", "backfill.pause")

    def resume(self, backfill_id: int) -> Backfill:
        """Continue a paused backfill.

        Raises:
            NotFoundError: no such backfill.
            ConflictError: it is not in the state for it.
        """
        return self._change(backfill_id, "paused", "running", "backfill.resume")

    def _change(self, backfill_id: int, before: str, after: str, action: str) -> Backfill:
        with self._db.transaction() as conn:
            found = _get(conn, backfill_id, lock=True)
            if found.state != before:
                raise ConflictError(f"backfill {backfill_id} is {found.state}, not {before}")
            conn.execute(SET_STATE, {"id": backfill_id, "state": after})
            values = {"state": before}, {"state": after}
            record(conn, action, "backfill", id=backfill_id, name=found.rule, before=values[0], after=values[1])
            return _get(conn, backfill_id)

    def cancel(self, backfill_id: int, *, who: str) -> tuple[Backfill, int]:
        """End a backfill for good and delete its tasks that still wait: (the backfill, how many tasks were deleted).

        Raises as `resume`.
        """
        with self._db.transaction() as conn:
            found = _get(conn, backfill_id, lock=True)
            if found.state not in ("running", "paused"):
                raise ConflictError(f"backfill {backfill_id} is {found.state}; there is nothing to cancel")
            conn.execute(SET_STATE, {"id": backfill_id, "state": "cancelled"})
            row = conn.execute(_DROP, {"id": backfill_id, "cancelled": CANCELLED, "who": who}).fetchone()
            dropped = int(row[0]) if row else 0
            before, after = {"state": found.state}, {"state": "cancelled", "tasks_deleted": dropped}
            record(conn, "backfill.cancel", "backfill", id=backfill_id, name=found.rule, before=before, after=after)
            return _get(conn, backfill_id), dropped


def _get(conn: Connection, backfill_id: int, *, lock: bool = False) -> Backfill:
    with conn.cursor(row_factory=class_row(Backfill)) as cur:
        found = cur.execute(_FOR_UPDATE if lock else _GET, [backfill_id]).fetchone()
    if found is None:
        raise NotFoundError(f"no backfill {backfill_id}")
    return found
