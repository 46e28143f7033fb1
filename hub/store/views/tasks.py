"""Live tasks, and what is known of a task that has ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, LiteralString

from hub.store.database import Database, Row
from hub.store.views.filters import bounded, found, like
from hub.store.views.masks import COLUMNS, RowMasks
from hub.store.views.waits import COLUMNS as WAITS
from hub.store.views.waits import Waits

# Counts by rule and state, with the present state of the rule and its service: one row per rule and state.
_COUNTS = """
SELECT c.rule_id, c.service_id, c.state, c.n, r.name AS rule, s.name AS service, r.event AS pattern,
       coalesce(r.enabled AND s.enabled AND r.deleted_at IS NULL AND s.deleted_at IS NULL, false) AS live,
       r.id IS NULL OR s.id IS NULL OR r.deleted_at IS NOT NULL OR s.deleted_at IS NOT NULL AS orphan
FROM (SELECT service_id, rule_id, state, sum(n)::bigint AS n FROM task_counts GROUP BY 1, 2, 3 HAVING sum(n) > 0) c
LEFT JOIN rules r ON r.id = c.rule_id LEFT JOIN services s ON s.id = c.service_id
"""
_TASK: LiteralString = (
    """
SELECT t.id, e.name AS event, r.name AS rule, s.name AS service,
       CASE WHEN t.state <> 'running' AND NOT coalesce(
                     r.enabled AND s.enabled AND r.deleted_at IS NULL AND s.deleted_at IS NULL, false) THEN 'held'
            WHEN t.state = 'queued' THEN 'pending' ELSE t.state END AS state,
       t.attempts, t.next_run_at, t.last_error, t.created_at,
       r.id IS NULL OR s.id IS NULL OR r.deleted_at IS NOT NULL OR s.deleted_at IS NOT NULL AS orphan,
       t.state IN ('pending', 'queued') AND NOT t.bulk AND t.next_run_at < now() - interval '1 minute' AND coalesce(
           r.enabled AND s.enabled AND r.deleted_at IS NULL AND s.deleted_at IS NULL, false) AS overdue,
       e.uid AS event_id,
       CASE WHEN t.state = 'blocked' THEN (
           SELECT h.id FROM tasks h WHERE h.rule_id = t.rule_id AND h.ordering_key = t.ordering_key AND h.holds_key
       ) END AS waits_behind
"""  # noqa: S608 - constants
    + WAITS
)
_TASK_FROM: LiteralString = """
FROM tasks t LEFT JOIN events e ON e.id = t.event_id LEFT JOIN rules r ON r.id = t.rule_id
LEFT JOIN services s ON s.id = t.service_id
"""
_GET = (
    _TASK + COLUMNS + ", e.data AS event_data, t.worker, t.lease_until, t.expires_at" + _TASK_FROM + "WHERE t.id = %s"
)
_OF_IDS = _TASK + _TASK_FROM + "WHERE t.id = ANY(%s) ORDER BY t.id"
_OF_EVENT = _TASK + _TASK_FROM + "WHERE t.event_id = %s ORDER BY t.id LIMIT 1000"
# A callback may arrive before the outcome of its task is recorded, after the task was delivered, or after it died.
_DEPTH = """
SELECT max(depth) AS depth FROM (
    SELECT e.depth FROM tasks t JOIN events e ON e.id = t.event_id
    WHERE t.id = %(task)s AND t.service_id = %(service)s
    UNION ALL
    SELECT coalesce(e.depth, 0) FROM deliveries d LEFT JOIN events e ON e.id = d.event_id
    WHERE d.task_id = %(task)s AND d.service_id = %(service)s AND d.direction = 'outbound'
    UNION ALL
    SELECT event_depth FROM dead_letters WHERE task_id = %(task)s AND service_id = %(service)s
) d
"""
_ENDED = """
SELECT 'dead' AS how, created_at AS at, id AS dead_letter_id, NULL AS who FROM dead_letters WHERE task_id = %(id)s
UNION ALL
SELECT 'cancelled', created_at, NULL, who FROM cancellations WHERE task_id = %(id)s
UNION ALL
SELECT 'delivered', created_at, NULL, NULL FROM deliveries
WHERE task_id = %(id)s AND success AND direction = 'outbound'
ORDER BY at DESC LIMIT 1
"""
_STATES: dict[str, LiteralString] = {
    "pending": "t.state IN ('pending', 'queued')",
    "running": "t.state = 'running'",
    "delayed": "t.state = 'delayed'",
    "blocked": "t.state = 'blocked'",
}


class TaskViews:
    """Reads tasks."""

    def __init__(self, db: Database, masks: RowMasks, waits: Waits) -> None:
        self._db = db
        self._masks = masks
        self._waits = waits

    def get(self, task_id: int) -> Row:
        """One task with its event's data as `event_data` (JSON text); raises `NotFoundError`."""
        row = self._masks.hide_row(found(self._db.one(_GET, [task_id]), "task", task_id))
        self._waits.add([row])
        return row

    def of_ids(self, ids: Sequence[int]) -> list[Row]:
        """Those of these tasks that are live, oldest first."""
        rows = self._db.all(_OF_IDS, [[*ids]])
        self._waits.add(rows)
        return rows

    def of_event(self, number: int) -> list[Row]:
        """The live tasks of an event, by its number in the ledger; oldest first."""
        rows = self._db.all(_OF_EVENT, [number])
        self._waits.add(rows)
        return rows

    def counts(self) -> list[Row]:
        """`rule_id service_id state n rule service pattern live orphan` of all tasks, exact."""
        return self._db.all(_COUNTS)

    def ended(self, task_id: int) -> Row | None:
        """How and when a task ended: `how` (delivered, dead, cancelled) and `at`; None: unknown.

        A dead task has `dead_letter_id`, a cancelled one `who`.
        """
        return self._db.one(_ENDED, {"id": task_id})

    def depth_of(self, task_id: int, service_id: int) -> int | None:
        """The depth of a task in its chain of events; None: the service never had that task."""
        row = self._db.one(_DEPTH, {"task": task_id, "service": service_id})
        return row["depth"] if row else None

    def list(
        self,
        *,
        state: str | None = None,
        service: str | None = None,
        rule: str | None = None,
        event: str | None = None,
        failed: bool = False,
        orphan: bool = False,
        overdue: bool = False,
        before: int | None = None,
        limit: int = 50,
    ) -> list[Row]:
        """Tasks, newest first, with what each waits for (`Waits.add`).

        Args:
            state: pending, running, delayed or held, as shown.
            event: the whole name, or a beginning of it that ends in `*`.
            failed: only those that failed at least once.
            orphan: only those whose rule or service was deleted.
            overdue: only those due for more than a minute.
            before: only ids below this one: the last id of the page before.
        """
        counts = [row for row in self.counts() if _fits(row, state, service, rule, event, orphan)]
        if overdue:
            counts = [row for row in counts if row["live"]]
        if not counts:
            return []
        where: list[LiteralString] = ["t.rule_id = ANY(%(rules)s)"]
        params: dict[str, Any] = {"rules": sorted({row["rule_id"] for row in counts}), "limit": bounded(limit)}
        if service is not None or orphan:
            where.append("t.service_id = ANY(%(services)s)")
            params["services"] = sorted({row["service_id"] for row in counts})
        if state is not None:
            where.append(_STATES.get(state, "t.state <> 'running'"))
        if failed:
            where.append("t.attempts > 0 AND t.last_error IS NOT NULL")
        if overdue:
            where.append("t.state IN ('pending', 'queued') AND NOT t.bulk")
            where.append("t.next_run_at < now() - interval '1 minute'")
        like(where, params, "e.name", event)
        if before is not None:
            where.append("t.id < %(before)s")
            params["before"] = before
        rows = self._db.all(
            _TASK + _TASK_FROM + "WHERE " + " AND ".join(where) + " ORDER BY t.id DESC LIMIT %(limit)s", params
        )
        self._waits.add(rows)
        return rows


def shown(count: Row) -> str:
    """The state that is shown for a row of `counts`."""
    if count["state"] != "running" and not count["live"]:
        return "held"
    return "pending" if count["state"] in ("queued", "bulk") else str(count["state"])


def _fits(
    count: Row, state: str | None, service: str | None, rule: str | None, event: str | None, orphan: bool
) -> bool:
    pattern = count["pattern"] or "*"
    return (
        (state is None or shown(count) == state)
        and (service is None or count["service"] == service)
        and (rule is None or count["rule"] == rule)
        and (not event or "*" in event + pattern or pattern.strip("\\") == event.strip("\\"))
        and (not orphan or count["orphan"])
    )
