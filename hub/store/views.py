"""What people look at: all of it behind one name, and the small things: breakers, schedules, runs, one look at all.

Every listing is newest first and pages by id (`before`), so page 1,000 costs what page 1 costs and nothing
counts a million rows. Rows are plain dictionaries with the fields that the CLI and the API print.
"""

from __future__ import annotations

from typing import LiteralString

from hub.store.database import Row
from hub.store.filters import bounded, found
from hub.store.view_dead_letters import DeadLetterViews
from hub.store.view_deliveries import DeliveryViews
from hub.store.view_tasks import TaskViews, shown

_BREAKERS = """
SELECT s.name AS service, coalesce(b.state, 'closed') AS state, coalesce(b.failures, 0) AS failures,
       CASE WHEN b.state = 'open' THEN b.retry_at END AS retry_at, b.changed_at,
       CASE WHEN s.response_queue IS NOT NULL THEN coalesce(r.state, 'closed') END AS responses,
       CASE WHEN r.state = 'open' THEN r.retry_at END AS responses_retry_at
FROM services s LEFT JOIN breakers b ON b.service_id = s.id LEFT JOIN response_breakers r ON r.service_id = s.id
WHERE s.deleted_at IS NULL ORDER BY s.name
"""
_SCHEDULES = """
SELECT name, cron, enabled, last_run_at, last_result, next_run_at, default_cron, last_duration_ms,
       run_requested_at IS NOT NULL AS run_requested
FROM scheduled_tasks ORDER BY name
"""
_RUNS = """
SELECT id, name, service, started_at, ended_at, result, host, pid, summary, error FROM task_runs
WHERE (%(name)s::text IS NULL OR name = %(name)s) AND (%(before)s::bigint IS NULL OR id < %(before)s)
  AND (NOT %(failed)s OR result IN ('error', 'lost'))
  AND (%(service)s::text IS NULL OR service = %(service)s)
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


class Views(TaskViews, DeadLetterViews, DeliveryViews):
    """Reads for people; writes nothing."""

    def breakers(self) -> list[Row]:
        """`service state failures retry_at` of every service; `responses` is the circuit of its response queue."""
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
        self,
        *,
        name: str | None = None,
        service: str | None = None,
        failed: bool = False,
        before: int | None = None,
        limit: int = 50,
    ) -> list[Row]:
        """The run log of scheduled tasks, newest first. `failed`: result `error` or `lost`."""
        params = {"name": name, "service": service, "failed": failed, "before": before, "limit": bounded(limit)}
        return self._db.all(_RUNS, params)

    def task_log(
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
        if task == "dispatch_event_task":
            return self.list_attempts(service=service, failed=failed, before=before, limit=limit)
        runs = self.list_runs(name=task, service=service, failed=failed, before=before, limit=limit)
        runs = [run | {"task_id": None} for run in runs]
        if task is not None:
            return runs
        both = runs + self.list_attempts(service=service, failed=failed, limit=limit)
        return sorted(both, key=lambda run: run["started_at"], reverse=True)[: bounded(limit)]

    def event_names(self, *, limit: int = 500) -> list[Row]:
        """`name last_seen` of events that were really seen, the latest first."""
        sql: LiteralString = "SELECT name, last_seen FROM event_names ORDER BY last_seen DESC LIMIT %s"
        return self._db.all(sql, [bounded(limit)])

    def event(self, uid: str) -> Row:
        """`name data` (JSON text) of a stored event, by the id it was given; raises `NotFoundError`."""
        row = found(self._db.one("SELECT name, data FROM events WHERE uid = %s LIMIT 1", [uid]), "stored event", uid)
        return row | {"data": self._hide_event(row["name"], row["data"])}

    def sample(self, event: str) -> str | None:
        """The latest data (JSON text) of an event of that name, None when none was seen."""
        row = self._db.one("SELECT sample FROM event_names WHERE name = %s", [event])
        return self._hide_event(event, row["sample"]) if row and row["sample"] is not None else None

    def heartbeats(self) -> list[Row]:
        """`component at alive`: when each kind of process last reported, and how many did within a minute."""
        return self._db.all(_BEATS)

    def stats(self) -> Row:
        """One look: `tasks` by state, `dead_letters`, `breakers` not closed, `schedules`, `heartbeats`."""
        tasks = dict.fromkeys(("pending", "running", "delayed", "held"), 0)
        services: dict[str, dict[str, int]] = {}
        for row in self.task_counts():
            state = shown(row)
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
