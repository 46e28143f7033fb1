"""What people look at: tasks, dead letters, deliveries, breakers, schedules, one look at all of it.

Every listing is newest first and pages by id (`before`), so page 1,000 costs what page 1 costs and nothing
counts a million rows. Rows are plain dictionaries with the fields that the CLI and the API print.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, LiteralString

from hub.store.database import Row
from hub.store.filters import bounded, found, like, service_ids, window
from hub.store.view_deliveries import DeliveryViews

_DEAD_SHOWN = 10_000  # counted exactly up to here

# Counts by rule and state, with what the rule and its service are now. Small: one row per rule and state.
_COUNTS = """
SELECT c.rule_id, c.service_id, c.state, c.n, r.name AS rule, s.name AS service, r.event AS pattern,
       coalesce(r.enabled AND s.enabled AND r.deleted_at IS NULL AND s.deleted_at IS NULL, false) AS live,
       r.id IS NULL OR s.id IS NULL OR r.deleted_at IS NOT NULL OR s.deleted_at IS NOT NULL AS orphan
FROM (SELECT service_id, rule_id, state, sum(n)::bigint AS n FROM task_counts GROUP BY 1, 2, 3 HAVING sum(n) > 0) c
LEFT JOIN rules r ON r.id = c.rule_id LEFT JOIN services s ON s.id = c.service_id
"""
_TASK: LiteralString = """
SELECT t.id, e.name AS event, r.name AS rule, s.name AS service,
       CASE WHEN t.state <> 'running' AND NOT coalesce(
                     r.enabled AND s.enabled AND r.deleted_at IS NULL AND s.deleted_at IS NULL, false) THEN 'held'
            WHEN t.state = 'queued' THEN 'pending' ELSE t.state END AS state,
       t.attempts, t.next_run_at, t.last_error, t.created_at,
       r.id IS NULL OR s.id IS NULL OR r.deleted_at IS NOT NULL OR s.deleted_at IS NOT NULL AS orphan,
       t.state IN ('pending', 'queued') AND t.next_run_at < now() - interval '1 minute' AND coalesce(
           r.enabled AND s.enabled AND r.deleted_at IS NULL AND s.deleted_at IS NULL, false) AS overdue,
       e.uid AS event_id
"""
_TASK_FROM: LiteralString = """
FROM tasks t LEFT JOIN events e ON e.id = t.event_id LEFT JOIN rules r ON r.id = t.rule_id
LEFT JOIN services s ON s.id = t.service_id
"""
_DEAD_LETTER: LiteralString = """
SELECT d.id, d.task_id, d.event, r.name AS rule, s.name AS service, d.attempts, d.reason, d.error, d.payload,
       d.created_at, d.status, d.event_uid AS event_id, d.accepted_at,
       r.id IS NULL OR s.id IS NULL OR r.deleted_at IS NOT NULL OR s.deleted_at IS NOT NULL AS orphan
"""
_DEAD_LETTER_MORE: LiteralString = ", d.event_data, d.response_body"
_DEAD_LETTER_FROM: LiteralString = """
FROM dead_letters d LEFT JOIN rules r ON r.id = d.rule_id LEFT JOIN services s ON s.id = d.service_id
"""
_BREAKERS = """
SELECT s.name AS service, coalesce(b.state, 'closed') AS state, coalesce(b.failures, 0) AS failures,
       CASE WHEN b.state = 'open' THEN b.retry_at END AS retry_at, b.changed_at
FROM services s LEFT JOIN breakers b ON b.service_id = s.id WHERE s.deleted_at IS NULL ORDER BY s.name
"""
_SCHEDULES = """
SELECT name, cron, enabled, last_run_at, last_result, next_run_at, default_cron, last_duration_ms,
       run_requested_at IS NOT NULL AS run_requested
FROM scheduled_tasks ORDER BY name
"""
_RUNS = """
SELECT id, name, service, started_at, ended_at, result, host, pid, summary, error FROM task_runs
WHERE (%(name)s::text IS NULL OR name = %(name)s) AND (%(before)s::bigint IS NULL OR id < %(before)s)
  AND (NOT %(failed)s OR result = 'error')
ORDER BY id DESC LIMIT %(limit)s
"""
_BEATS = """
SELECT component, max(at) AS at, count(*) FILTER (WHERE at > now() - interval '1 minute') AS alive
FROM heartbeats GROUP BY component ORDER BY component
"""
_OLDEST_DUE = """
SELECT min(at) AS at FROM (
    (SELECT next_run_at AS at FROM tasks WHERE state = 'queued' ORDER BY handed_at LIMIT 1)
    UNION ALL
    SELECT first.at FROM rules r JOIN services s ON s.id = r.service_id AND s.enabled AND s.deleted_at IS NULL
    CROSS JOIN LATERAL (
        SELECT t.next_run_at AS at FROM tasks t WHERE t.state = 'pending' AND t.rule_id = r.id
        ORDER BY t.next_run_at LIMIT 1
    ) first
    WHERE r.enabled AND r.deleted_at IS NULL
) due
"""
# A callback may come before its task is settled, after it was delivered, or after it died.
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


class Views(DeliveryViews):
    """Reads for people; writes nothing."""

    # Tasks

    def list_tasks(
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
        """Tasks, newest first.

        Args:
            state: pending, running, delayed or held, as shown.
            event: the whole name, or a beginning of it that ends in `*`.
            failed: only those that failed at least once.
            orphan: only those whose rule or service was deleted.
            overdue: only those due for more than a minute.
            before: only ids below this one: the last id of the page before.
        """
        counts = [row for row in self.task_counts() if _fits(row, state, service, rule, event, orphan)]
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
            where.append("t.state IN ('pending', 'queued') AND t.next_run_at < now() - interval '1 minute'")
        like(where, params, "e.name", event)
        if before is not None:
            where.append("t.id < %(before)s")
            params["before"] = before
        return self._db.all(
            _TASK + _TASK_FROM + "WHERE " + " AND ".join(where) + " ORDER BY t.id DESC LIMIT %(limit)s", params
        )

    def task(self, task_id: int) -> Row:
        """One task with its event's data as `event_data` (JSON text); raises `NotFoundError`."""
        sql = _TASK + ", e.data AS event_data, t.worker, t.lease_until, t.expires_at" + _TASK_FROM + "WHERE t.id = %s"
        return found(self._db.one(sql, [task_id]), "task", task_id)

    def task_counts(self) -> list[Row]:
        """`rule_id service_id state n rule service pattern live orphan` of all tasks, exact."""
        return self._db.all(_COUNTS)

    # Dead letters

    def list_dead_letters(
        self,
        *,
        service: str | None = None,
        rule: str | None = None,
        event: str | None = None,
        reason: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        before: int | None = None,
        limit: int = 50,
        full: bool = False,
    ) -> list[Row]:
        """Dead letters, newest first; `payload` is the last request body as text, None if none was made.

        Args:
            full: with `event_data` and `response_body`, as exports have them.
        """
        where: list[LiteralString] = ["true"]
        params: dict[str, Any] = {"limit": bounded(limit)}
        if service is not None:
            where.append("d.service_id = ANY(%(services)s)")
            params["services"] = service_ids(self._db, service)
        if rule is not None:
            where.append("r.name = %(rule)s")
            params["rule"] = rule
        if reason is not None:
            where.append("d.reason = %(reason)s")
            params["reason"] = reason
        like(where, params, "d.event", event)
        window(where, params, since, until, before)
        columns = _DEAD_LETTER + (_DEAD_LETTER_MORE if full else "")
        return self._db.all(
            columns + _DEAD_LETTER_FROM + "WHERE " + " AND ".join(where) + " ORDER BY d.id DESC LIMIT %(limit)s",
            params,
        )

    def dead_letter(self, dead_letter_id: int) -> Row:
        """One dead letter with `event_data` and `response_body`; raises `NotFoundError`."""
        sql = _DEAD_LETTER + _DEAD_LETTER_MORE + _DEAD_LETTER_FROM + "WHERE d.id = %s"
        return found(self._db.one(sql, [dead_letter_id]), "dead letter", dead_letter_id)

    def missing_dead_letters(self, ids: list[int]) -> list[int]:
        """Those of `ids` that are no dead letters (any more)."""
        rows = self._db.all("SELECT id FROM dead_letters WHERE id = ANY(%s)", [ids])
        return sorted(set(ids) - {row["id"] for row in rows})

    def ended(self, task_id: int) -> Row | None:
        """How a task ended that is no longer live: `how` (delivered, dead, cancelled) and `at`; None: unknown.

        A dead letter has its `dead_letter_id`, a cancelled task who did it.
        """
        return self._db.one(_ENDED, {"id": task_id})

    def depth_of(self, task_id: int, service_id: int) -> int | None:
        """How deep in a chain of events a task of that service is; None: it never was one of its tasks."""
        row = self._db.one(_DEPTH, {"task": task_id, "service": service_id})
        return row["depth"] if row else None

    # The rest

    def breakers(self) -> list[Row]:
        """`service state failures retry_at` of every service."""
        return self._db.all(_BREAKERS)

    def breaker(self, service: str) -> Row:
        """One circuit; raises `NotFoundError`."""
        return found(next((b for b in self.breakers() if b["service"] == service), None), "service", service)

    def schedules(self) -> list[Row]:
        """`name cron enabled last_run_at last_result next_run_at` of every scheduled task."""
        return self._db.all(_SCHEDULES)

    def schedule(self, name: str) -> Row:
        """One scheduled task; raises `NotFoundError`."""
        return found(next((s for s in self.schedules() if s["name"] == name), None), "scheduled task", name)

    def list_runs(
        self, *, name: str | None = None, failed: bool = False, before: int | None = None, limit: int = 50
    ) -> list[Row]:
        """The run log of scheduled tasks, newest first."""
        return self._db.all(_RUNS, {"name": name, "failed": failed, "before": before, "limit": bounded(limit)})

    def event_names(self, *, limit: int = 500) -> list[Row]:
        """`name last_seen` of events that were really seen, the latest first."""
        sql: LiteralString = "SELECT name, last_seen FROM event_names ORDER BY last_seen DESC LIMIT %s"
        return self._db.all(sql, [bounded(limit)])

    def event(self, uid: str) -> Row:
        """`name data` (JSON text) of a stored event, by the id it was given; raises `NotFoundError`."""
        return found(self._db.one("SELECT name, data FROM events WHERE uid = %s LIMIT 1", [uid]), "stored event", uid)

    def sample(self, event: str) -> str | None:
        """The latest data (JSON text) of an event of that name, None when none was seen."""
        row = self._db.one("SELECT sample FROM event_names WHERE name = %s", [event])
        return row["sample"] if row else None

    def dead_letter_count(self) -> int:
        """How many dead letters there are; more than 10,000 count as 10,000."""
        row = self._db.one("SELECT count(*) AS n FROM (SELECT 1 FROM dead_letters LIMIT %s) d", [_DEAD_SHOWN])
        return int(row["n"]) if row else 0

    def heartbeats(self) -> list[Row]:
        """`component at alive`: when each kind of process last reported, and how many did within a minute."""
        return self._db.all(_BEATS)

    def stats(self) -> Row:
        """One look: `tasks` by state, `dead_letters`, `breakers` not closed, `schedules`, `heartbeats`."""
        tasks = dict.fromkeys(("pending", "running", "delayed", "held"), 0)
        services: dict[str, dict[str, int]] = {}
        for row in self.task_counts():
            state = _shown(row)
            tasks[state] += row["n"]
            mine = services.setdefault(row["service"] or "(deleted)", dict.fromkeys(tasks, 0))
            mine[state] += row["n"]
        due = self._db.one(_OLDEST_DUE)
        return {
            "queue_depth": tasks["pending"],
            "tasks": tasks,
            "services": services,
            "dead_letters": self.dead_letter_count(),
            "breakers": self.breakers(),
            "schedules": self.schedules(),
            "heartbeats": self.heartbeats(),
            "oldest_due_at": due["at"] if due else None,
        }


_STATES: dict[str, LiteralString] = {
    "pending": "t.state IN ('pending', 'queued')",
    "running": "t.state = 'running'",
    "delayed": "t.state = 'delayed'",
}


def _shown(count: Row) -> str:
    """The state people see of a row of `_COUNTS`."""
    if count["state"] != "running" and not count["live"]:
        return "held"
    return "pending" if count["state"] == "queued" else str(count["state"])


def _fits(
    count: Row, state: str | None, service: str | None, rule: str | None, event: str | None, orphan: bool
) -> bool:
    pattern = count["pattern"] or "*"
    return (
        (state is None or _shown(count) == state)
        and (service is None or count["service"] == service)
        and (rule is None or count["rule"] == rule)
        and (not event or "*" in event + pattern or pattern.strip("\\") == event.strip("\\"))
        and (not orphan or count["orphan"])
    )
