"""Changes of tasks by people: run now, retry, delete, purge orphans. Each is audited."""

from __future__ import annotations

from collections.abc import Sequence

from hub.store.audit import record, record_batch
from hub.store.database import Database

_RETRY = """
UPDATE tasks SET state = CASE WHEN ordering_key IS NULL OR holds_key THEN 'pending' ELSE 'blocked' END,
    next_run_at = now(), handed_at = NULL, bulk = false,
    attempts = CASE WHEN %(restart)s THEN 0 ELSE attempts END,
    expires_at = greatest(expires_at, now() + interval '1 hour')
WHERE id = ANY(%(ids)s) AND state <> 'running' RETURNING id
"""
_CANCEL = """
WITH gone AS (
    DELETE FROM tasks WHERE id = ANY(%(ids)s) AND state <> 'running' RETURNING id, event_id, rule_id, service_id
), noted AS (
    INSERT INTO cancellations (task_id, event_id, rule_id, service_id, event, reason, who)
    SELECT g.id, g.event_id, g.rule_id, g.service_id, e.name, %(reason)s, %(who)s
    FROM gone g LEFT JOIN events e ON e.id = g.event_id
)
SELECT g.id, coalesce(s.name, '?') FROM gone g LEFT JOIN services s ON s.id = g.service_id
"""
_ORPHANS = """
SELECT t.id FROM tasks t LEFT JOIN rules r ON r.id = t.rule_id LEFT JOIN services s ON s.id = t.service_id
WHERE t.rule_id IN (SELECT c.rule_id FROM task_counts c LEFT JOIN rules x ON x.id = c.rule_id
                    LEFT JOIN services y ON y.id = c.service_id
                    WHERE x.id IS NULL OR y.id IS NULL OR x.deleted_at IS NOT NULL OR y.deleted_at IS NOT NULL)
  AND (r.id IS NULL OR s.id IS NULL OR r.deleted_at IS NOT NULL OR s.deleted_at IS NOT NULL) AND t.state <> 'running'
ORDER BY t.id LIMIT %s
"""
_EXISTS = "SELECT 1 AS x FROM tasks WHERE id = %s"
_WAITS = "SELECT 1 AS x FROM tasks WHERE id = %s AND state <> 'running'"
_DUE = """
SELECT t.id, t.service_id FROM tasks t
JOIN rules r ON r.id = t.rule_id AND r.enabled AND r.deleted_at IS NULL
JOIN services s ON s.id = t.service_id AND s.enabled AND s.deleted_at IS NULL
WHERE t.state IN ('pending', 'queued', 'delayed') AND (t.state <> 'delayed' OR t.next_run_at <= now() OR %(failed)s)
  AND (NOT %(failed)s OR t.attempts > 0) AND t.id > %(after)s
ORDER BY t.id LIMIT %(limit)s
"""


class TaskAdmin:
    """Changes tasks."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def retry(self, ids: Sequence[int], *, restart: bool = False) -> list[int]:
        """Make tasks due now; `restart` resets their attempts. Running tasks are not changed.

        Returns:
            The ids that are due now.
        """
        with self._db.transaction() as conn:
            due = [row[0] for row in conn.execute(_RETRY, {"ids": list(ids), "restart": restart}).fetchall()]
            record_batch(conn, "task.retry", "task", due, attempts_restarted=restart)
        return due

    def cancel(self, ids: Sequence[int], *, who: str, reason: str = "deleted") -> list[tuple[int, str]]:
        """Delete tasks and record the cancellation. Running tasks are not changed. Returns (id, service) of each."""
        with self._db.transaction() as conn:
            rows = conn.execute(_CANCEL, {"ids": list(ids), "who": who, "reason": reason}).fetchall()
            record_batch(conn, "task.cancel", "task", [row[0] for row in rows], reason=reason)
        return [(row[0], row[1]) for row in rows]

    def note_run(self, ids: Sequence[int] | None, *, failed: bool) -> None:
        """Record in the audit trail that a command runs these tasks; None: all that are due, or that failed."""
        with self._db.transaction() as conn:
            if ids is None:
                record(conn, "task.run", "task", after={"which": "failed" if failed else "due"})
            else:
                record_batch(conn, "task.run", "task", ids)

    def orphans(self, limit: int = 1000) -> list[int]:
        """Tasks whose rule or service was deleted."""
        return [row["id"] for row in self._db.all(_ORPHANS, [limit])]

    def exists(self, task_id: int) -> bool:
        """Whether the task is in the ledger."""
        return self._db.one(_EXISTS, [task_id]) is not None

    def waits(self, task_id: int) -> bool:
        """Whether the task is in the ledger and no worker runs it."""
        return self._db.one(_WAITS, [task_id]) is not None

    def due(self, *, failed: bool = False, after: int = 0, limit: int = 1000) -> list[tuple[int, int]]:
        """(task id, service id) of tasks to run now; `failed`: those that failed before, due or not."""
        rows = self._db.all(_DUE, {"failed": failed, "after": after, "limit": limit})
        return [(row["id"], row["service_id"]) for row in rows]
