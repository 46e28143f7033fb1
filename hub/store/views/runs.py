"""Runs of scheduled tasks and of `dispatch_event_task`."""

from __future__ import annotations

from datetime import timedelta

from hub.store.database import Database, Row
from hub.store.views.deliveries import DeliveryViews
from hub.store.views.filters import bounded

DISPATCH = "dispatch_event_task"
_LIST = """
SELECT id, name, service, started_at, ended_at, result, host, pid, summary, error FROM task_runs
WHERE (%(name)s::text IS NULL OR name = %(name)s)
  AND (%(service)s::text IS NULL OR service = %(service)s)
  AND (NOT %(failed)s OR result IN ('error', 'lost'))
  AND (%(before)s::bigint IS NULL OR id < %(before)s)
ORDER BY id DESC LIMIT %(limit)s
"""


class RunViews:
    """Reads the run log."""

    def __init__(self, db: Database, deliveries: DeliveryViews) -> None:
        self._db = db
        self._deliveries = deliveries

    def scheduled(
        self,
        *,
        name: str | None = None,
        service: str | None = None,
        failed: bool = False,
        before: int | None = None,
        limit: int = 50,
    ) -> list[Row]:
        """Runs of scheduled tasks, newest first.

        `result` is ok, error, skipped, lost, or None while it runs.

        Args:
            failed: only runs with the result `error` or `lost`.
            before: only ids below this one.
        """
        params = {"name": name, "service": service, "failed": failed, "before": before, "limit": bounded(limit)}
        return self._db.all(_LIST, params)

    def dispatches(
        self, *, service: str | None = None, failed: bool = False, before: int | None = None, limit: int = 50
    ) -> list[Row]:
        """Runs of `dispatch_event_task`, newest first, with the fields of `scheduled` and `task_id`."""
        rows = self._deliveries.list(
            service=service, direction="outbound", failed=failed or None, of_tasks=True, before=before, limit=limit
        )
        return [_as_run(row) for row in rows]

    def all(
        self,
        *,
        task: str | None = None,
        service: str | None = None,
        failed: bool = False,
        before: int | None = None,
        limit: int = 50,
    ) -> list[Row]:
        """Runs of both task classes, newest first.

        Args:
            task: `dispatch_event_task` or the name of a scheduled task; None: all.
            before: only ids below this one; needs `task`, as each class has ids of its own.
        """
        if task == DISPATCH:
            return self.dispatches(service=service, failed=failed, before=before, limit=limit)
        runs = self.scheduled(name=task, service=service, failed=failed, before=before, limit=limit)
        runs = [run | {"task_id": None} for run in runs]
        if task is not None:
            return runs
        both = runs + self.dispatches(service=service, failed=failed, limit=limit)
        return sorted(both, key=lambda run: run["started_at"], reverse=True)[: bounded(limit)]


def _as_run(delivery: Row) -> Row:
    return {
        "id": delivery["id"],
        "name": DISPATCH,
        "service": delivery["service"],
        "started_at": delivery["created_at"] - timedelta(milliseconds=delivery["latency_ms"] or 0),
        "ended_at": delivery["created_at"],
        "result": "ok" if delivery["success"] else "error",
        "host": delivery["host"],
        "pid": delivery["pid"],
        "summary": f"task {delivery['task_id']}, attempt {delivery['attempt']}",
        "error": delivery["error"],
        "task_id": delivery["task_id"],
    }
