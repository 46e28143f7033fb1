"""The run log of the scheduled tasks: one row per run, begun before the work and ended after it."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.rows import class_row

from hub.store.database import Database
from hub.store.delivery_log import clean

_START = """
INSERT INTO task_runs (name, service, host, pid, summary) VALUES (%s, %s, %s, %s, %s) RETURNING id
"""
_FINISH = """
UPDATE task_runs SET ended_at = clock_timestamp(), result = %(result)s, summary = coalesce(%(summary)s, summary),
    error = %(error)s
WHERE id = %(id)s
"""
# Who holds the lock of a task knows that earlier runs without an end are dead.
_LOST = """
UPDATE task_runs SET ended_at = clock_timestamp(), result = 'lost', error = 'the process ended before the run did'
WHERE id IN (
    SELECT id FROM task_runs WHERE name = %(name)s ORDER BY id DESC LIMIT 1000
) AND id < %(id)s AND ended_at IS NULL AND service IS NOT DISTINCT FROM %(service)s
"""
_LIST = """
SELECT id, name, service, started_at, ended_at, result, host, pid, summary, error FROM task_runs
WHERE (%(name)s::text IS NULL OR name = %(name)s)
  AND (%(service)s::text IS NULL OR service = %(service)s)
  AND (NOT %(failed)s OR result IN ('error', 'lost'))
  AND (%(before)s::bigint IS NULL OR id < %(before)s)
ORDER BY id DESC LIMIT %(limit)s
"""


@dataclass(frozen=True, slots=True)
class TaskRun:
    """One run. `result` is ok, error, skipped, lost, or None while it runs."""

    id: int
    name: str
    service: str | None
    started_at: datetime
    ended_at: datetime | None
    result: str | None
    host: str
    pid: int
    summary: str | None
    error: str | None

    @property
    def seconds(self) -> float | None:
        """How long it took."""
        return None if self.ended_at is None else (self.ended_at - self.started_at).total_seconds()


class RunLog:
    """Writes and reads runs."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._host = socket.gethostname()

    def start(self, name: str, service: str | None = None, *, summary: str | None = None, alone: bool = False) -> int:
        """Begin a run; returns its id. `alone`: no other run of it can be alive, so unfinished ones are lost."""
        row = self._db.one(_START, [name, service, self._host, os.getpid(), summary])
        assert row is not None
        if alone:
            self._db.run(_LOST, {"name": name, "service": service, "id": row["id"]})
        return int(row["id"])

    def finish(self, run_id: int, result: str, *, summary: str | None = None, error: str | None = None) -> None:
        """End a run: ok, error or skipped."""
        self._db.run(_FINISH, {"id": run_id, "result": result, "summary": clean(summary), "error": clean(error)})

    def list(
        self,
        *,
        name: str | None = None,
        service: str | None = None,
        failed_only: bool = False,
        limit: int = 50,
        before: int | None = None,
    ) -> list[TaskRun]:
        """Runs, newest first; those with an id below `before`, for the next page."""
        params: dict[str, Any] = {
            "name": name, "service": service, "failed": failed_only, "before": before, "limit": limit,
        }  # fmt: skip
        with self._db.autocommit() as conn, conn.cursor(row_factory=class_row(TaskRun)) as cur:
            return cur.execute(_LIST, params).fetchall()
