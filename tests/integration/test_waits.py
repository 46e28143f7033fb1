"""What tasks wait for, on a real database."""

from __future__ import annotations

import pytest

from hub.app.lifecycle import Hub
from hub.errors import ConflictError
from hub.operations import tasks as operation
from tests.support.http_target import HttpTarget
from tests.support.hubs import add_rule, add_service, attempt, emit, emit_many


def waits(hub: Hub) -> list[str | None]:
    """Of all tasks, oldest first."""
    return [row["waits_for"] for row in hub.views.tasks.list()][::-1]


@pytest.fixture
def working(hub: Hub) -> Hub:
    """A hub with heartbeats as of a worker that reaches the broker."""
    for component in ("worker", "releaser", "broker"):
        hub.heartbeats.beat(component)
    return hub


def test_without_a_worker_or_a_broker_that_is_the_reason(hub: Hub) -> None:
    add_service(hub, "http://127.0.0.1:9")
    add_rule(hub)
    emit(hub)
    assert waits(hub) == ["no worker is running"]
    for component, reason in (
        ("worker", "a free worker"),
        ("releaser", "broker unreachable"),
        ("broker", "a free worker"),
    ):
        hub.heartbeats.beat(component)
        assert waits(hub) == [reason]


def test_tasks_in_the_queue_and_behind_it_are_counted(working: Hub) -> None:
    add_service(working, "http://127.0.0.1:9")
    add_rule(working)
    tasks = emit_many(working, 4)
    working.db.run("UPDATE tasks SET state = 'pending', handed_at = NULL WHERE id > %s", [tasks[1]])
    working.db.run("UPDATE tasks SET handed_at = now() + interval '1 s' WHERE id = %s", [tasks[1]])
    assert waits(working) == ["a free worker"] + [f"a free worker, {n} before it" for n in (1, 2, 3)]


def test_a_failed_task_waits_for_its_retry_and_then_for_the_circuit(working: Hub) -> None:
    add_service(working, "http://127.0.0.1:9", cb_failure_threshold=2, cb_cooldown=60, retry_delays=[5])
    add_rule(working)
    first, second = emit_many(working, 2)
    assert attempt(working, first) == "failed"
    [retry, _] = waits(working)
    assert retry is not None and retry.startswith("retry 2 of 5 at ")
    assert attempt(working, second) == "failed"
    assert all(reason is not None and reason.startswith("circuit open, next probe ") for reason in waits(working))
    with pytest.raises(ConflictError, match="cannot run now: circuit open"):
        operation.retry(working, [first])
    assert working.views.tasks.get(first)["waits_until"] is not None


def test_a_task_of_a_disabled_rule_or_service_says_so_and_is_not_run(working: Hub, target: HttpTarget) -> None:
    add_service(working, target.url)
    add_rule(working)
    add_rule(working, "r2")
    first, second = emit(working)
    working.registry.rules.enable("r1", False)
    assert waits(working)[0] == "rule r1 disabled"
    with pytest.raises(ConflictError, match=f"task {first} cannot run now: rule r1 disabled"):
        operation.retry(working, [first])
    assert operation.retry(working, [first, second]) == ([second], [first])
    working.registry.services.enable("crm", False)
    assert waits(working) == ["service crm disabled"] * 2
    working.registry.services.enable("crm", True)
    working.registry.rules.enable("r1", True)
    assert attempt(working, first) == "delivered" and operation.retry(working, [second]) == ([second], [])


def test_a_rate_limit_and_a_queue_limit_are_named(working: Hub) -> None:
    add_service(working, "http://127.0.0.1:9", rate_limit=5)
    add_rule(working)
    emit_many(working, 3)
    assert waits(working)[1:] == ["rate limit 5/s, 1 before it", "rate limit 5/s, 2 before it"]
