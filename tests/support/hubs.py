"""A hub for tests: put together, with services and rules, and short ways to look into its ledger."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hub.app.lifecycle import Hub
from hub.config.definitions import RuleSpec, ServiceSpec, parse_spec
from hub.config.sources import SourceSpec
from hub.models import Event, Rule, Service, Source
from hub.pipeline.attempts import FailedAttempt
from hub.store.database import Row

USER_LOGGED_IN: dict[str, Any] = {
    "eventname": "\\core\\event\\user_loggedin",
    "component": "core",
    "action": "loggedin",
    "target": "user",
    "objecttable": "user",
    "objectid": 5,
    "crud": "r",
    "edulevel": 0,
    "contextid": 1,
    "contextlevel": 10,
    "contextinstanceid": 0,
    "userid": 5,
    "courseid": 0,
    "relateduserid": None,
    "anonymous": 0,
    "other": {"username": "student1"},
    "timecreated": 1708258939,
}


def add_service(hub: Hub, url: str, name: str = "crm", **fields: Any) -> Service:
    """A REST service that gives up quickly; `fields` are those of `ServiceSpec`."""
    spec = {"name": name, "type": "rest", "base_url": url, "timeout": 2, "max_retries": 1, "retry_backoff": 0.01}
    return hub.registry.services.add(parse_spec(ServiceSpec, spec | fields))


def add_rule(hub: Hub, name: str = "r1", event: str = "e", service: str = "crm", **fields: Any) -> Rule:
    """A rule; `fields` are those of `RuleSpec`."""
    return hub.registry.rules.add(
        parse_spec(RuleSpec, {"name": name, "event": event, "service": service, "endpoint": "/x"} | fields)
    )


def add_source(
    hub: Hub, url: str = "mysql://reader:secret@127.0.0.1:9/moodle", name: str = "site", **fields: Any
) -> Source:
    """An event source; `fields` are those of `SourceSpec`."""
    return hub.registry.sources.add(parse_spec(SourceSpec, {"name": name, "url": url} | fields))


def emit(hub: Hub, name: str = "e", data: Any = None, key: str | None = None) -> list[int]:
    """Accept one event, and wait until its tasks are enqueued; their ids."""
    tasks = hub.intake.handle_event(Event(name, {"n": 1} if data is None else data, key)).tasks
    return enqueued(hub, tasks)


def emit_many(hub: Hub, count: int, name: str = "e", start: int = 0) -> list[int]:
    """Accept `count` different events in one call; the ids of their tasks."""
    accepted = hub.intake.handle_events([Event(name, {"n": n}) for n in range(start, start + count)])
    return enqueued(hub, [task for a in accepted for task in a.tasks])


def enqueued(hub: Hub, tasks: Sequence[int]) -> list[int]:
    """The same tasks, once none waits to be enqueued."""
    assert hub.enqueuer is None or hub.enqueuer.flush(30)
    return list(tasks)


def attempt(hub: Hub, task_id: int) -> str:
    """One attempt, recorded, as a worker does it: delivered, parked, skipped or failed."""
    try:
        outcome = hub.dispatcher.run(task_id)
        if isinstance(outcome, FailedAttempt):
            hub.attempts.record(outcome)
            return "failed"
        return outcome
    finally:
        assert hub.ledger.flush(10)


def task(hub: Hub, task_id: int) -> Row:
    """The row of a task, which must be there; `due_in` seconds after its last attempt, or from now."""
    row = hub.db.one(
        "SELECT *, extract(epoch FROM next_run_at - coalesce((SELECT max(created_at) FROM deliveries d"
        " WHERE d.task_id = t.id), now()))::float8 AS due_in FROM tasks t WHERE id = %s",
        [task_id],
    )
    assert row is not None, f"no task {task_id}"
    return row


def count(hub: Hub, what: str) -> int:
    """Rows of a table of the hub."""
    tables = {
        "tasks": "SELECT count(*) AS n FROM tasks",
        "events": "SELECT count(*) AS n FROM events",
        "event_keys": "SELECT count(*) AS n FROM event_keys",
        "deliveries": "SELECT count(*) AS n FROM deliveries",
        "dead_letters": "SELECT count(*) AS n FROM dead_letters",
        "names": "SELECT count(*) AS n FROM event_names",
        "delivered": "SELECT count(DISTINCT task_id) AS n FROM deliveries WHERE success AND direction = 'outbound'",
        "running": "SELECT count(*) AS n FROM tasks WHERE state = 'running'",
        "queued": "SELECT count(*) AS n FROM tasks WHERE state = 'queued'",
        "cancellations": "SELECT count(*) AS n FROM cancellations",
    }
    row = hub.db.one(tables[what].encode())  # type: ignore[arg-type]
    assert row is not None
    return int(row["n"])


def due_now(hub: Hub) -> None:
    """Let time pass for every task that waits for its next attempt."""
    hub.db.run("UPDATE tasks SET state = 'pending', next_run_at = now() WHERE state = 'delayed'")


def counts_are_exact(hub: Hub) -> bool:
    """Whether the running totals are what counting the tasks gives."""
    return not hub.db.all(
        "SELECT service_id, rule_id, state, sum(n) FROM ("
        " SELECT service_id, rule_id, state, n FROM task_counts UNION ALL"
        " SELECT service_id, rule_id, CASE WHEN bulk AND state = 'pending' THEN 'bulk' ELSE state END, -1 FROM tasks"
        ") x GROUP BY 1, 2, 3 HAVING sum(n) <> 0"
    )
