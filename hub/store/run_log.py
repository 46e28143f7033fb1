"""The run log of the scheduled tasks: one row per run, begun before the work and ended after it."""

from __future__ import annotations

import os
import socket

from hub.domain.text import storable
from hub.store.database import Database

_START = """
INSERT INTO task_runs (name, service, host, pid, summary) VALUES (%s, %s, %s, %s, %s) RETURNING id
"""
_FINISH = """
UPDATE task_runs SET ended_at = clock_timestamp(), result = %(result)s, summary = coalesce(%(summary)s, summary),
    error = %(error)s
WHERE id = %(id)s
"""
# The holder of the lock of a task knows that earlier runs without an end are lost.
_LOST = """
UPDATE task_runs SET ended_at = clock_timestamp(), result = 'lost', error = 'the process ended before the run did'
WHERE id IN (
    SELECT id FROM task_runs WHERE name = %(name)s ORDER BY id DESC LIMIT 1000
) AND id < %(id)s AND ended_at IS NULL AND service IS NOT DISTINCT FROM %(service)s
"""


class RunLog:
    """Writes runs; `hub.store.views.runs` reads them."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._host = socket.gethostname()

    def start(self, name: str, service: str | None = None, *, summary: str | None = None, alone: bool = False) -> int:
        """Begin a run and return its id.

        Args:
            alone: no other run of the task can be alive, so unfinished ones are recorded as lost.
        """
        row = self._db.one(_START, [name, service, self._host, os.getpid(), summary])
        assert row is not None
        if alone:
            self._db.run(_LOST, {"name": name, "service": service, "id": row["id"]})
        return int(row["id"])

    def finish(self, run_id: int, result: str, *, summary: str | None = None, error: str | None = None) -> None:
        """End a run: ok, error or skipped."""
        self._db.run(_FINISH, {"id": run_id, "result": result, "summary": storable(summary), "error": storable(error)})
