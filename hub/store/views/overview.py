"""The state of the hub at a glance: circuits, schedules, heartbeats, counts."""

from __future__ import annotations

from hub.store.database import Database, Row
from hub.store.views.dead_letters import DeadLetterViews
from hub.store.views.filters import found
from hub.store.views.tasks import TaskViews, shown

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
# A scheduler sends a heartbeat with each tick, once a minute.
# `broker` is not a process: the relay records with it that RabbitMQ responds.
_HEARTBEATS = """
SELECT component, max(at) AS at, count(*) FILTER (WHERE alive) AS alive,
       (array_agg(clock_offset ORDER BY abs(clock_offset) DESC NULLS LAST) FILTER (WHERE alive))[1] AS clock_offset
FROM (
    SELECT component, at, clock_offset,
           at > now() - CASE component WHEN 'scheduler' THEN interval '3 minutes' ELSE interval '1 minute' END AS alive
    FROM heartbeats WHERE component <> 'broker'
) h
GROUP BY component ORDER BY component
"""
_OLDEST_DUE = """
SELECT min(at) AS at FROM (
    (SELECT next_run_at AS at FROM tasks WHERE state = 'queued' ORDER BY handed_at LIMIT 1)
    UNION ALL
    SELECT first.at FROM rules r JOIN services s ON s.id = r.service_id AND s.enabled AND s.deleted_at IS NULL
    CROSS JOIN LATERAL (
        SELECT t.next_run_at AS at FROM tasks t WHERE t.state = 'pending' AND NOT t.bulk AND t.rule_id = r.id
        ORDER BY t.next_run_at LIMIT 1
    ) first
    WHERE r.enabled AND r.deleted_at IS NULL
) due
"""


class Overview:
    """Reads the state of the hub."""

    def __init__(self, db: Database, tasks: TaskViews, dead_letters: DeadLetterViews) -> None:
        self._db = db
        self._tasks = tasks
        self._dead_letters = dead_letters

    def breakers(self) -> list[Row]:
        """`service state failures retry_at` of every service; `responses` is the circuit of its response queue."""
        return self._db.all(_BREAKERS)

    def breaker(self, service: str) -> Row:
        """The circuit of one service; raises `NotFoundError`."""
        return found(next((b for b in self.breakers() if b["service"] == service), None), "service", service)

    def schedules(self) -> list[Row]:
        """`name cron enabled last_run_at last_result next_run_at` of every scheduled task."""
        return self._db.all(_SCHEDULES)

    def schedule(self, name: str) -> Row:
        """One scheduled task; raises `NotFoundError`."""
        return found(next((s for s in self.schedules() if s["name"] == name), None), "scheduled task", name)

    def heartbeats(self) -> list[Row]:
        """`component at alive clock_offset` of each kind of process.

        `at` is the last heartbeat, `alive` the number of processes with one within a minute (scheduler: three), and
        `clock_offset` the largest of theirs: seconds by which a machine's clock is ahead of the database's.
        """
        return self._db.all(_HEARTBEATS)

    def stats(self) -> Row:
        """`tasks` by state, `services`, `dead_letters`, `breakers`, `schedules`, `heartbeats`, `oldest_due_at`."""
        tasks = dict.fromkeys(("pending", "running", "delayed", "blocked", "held"), 0)
        services: dict[str, dict[str, int]] = {}
        for row in self._tasks.counts():
            state = shown(row)
            tasks[state] += row["n"]
            of_service = services.setdefault(row["service"] or "(deleted)", dict.fromkeys(tasks, 0))
            of_service[state] += row["n"]
        due = self._db.one(_OLDEST_DUE)
        return {
            "queue_depth": tasks["pending"],
            "tasks": tasks,
            "services": services,
            "dead_letters": self._dead_letters.count(),
            "breakers": self.breakers(),
            "schedules": self.schedules(),
            "heartbeats": self.heartbeats(),
            "oldest_due_at": due["at"] if due else None,
        }
