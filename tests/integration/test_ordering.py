"""Ordering keys: tasks of one key are sent one at a time, in the order of their events."""

from __future__ import annotations

import itertools

import pytest

from hub.app.lifecycle import Hub
from hub.errors import ConfigError, ConflictError
from hub.models import Claim, Event
from hub.operations.replay import replay_ids
from hub.store.ledger import Ledger
from tests.support.http_target import HttpTarget
from tests.support.hubs import add_rule, add_service, attempt, count, counts_are_exact, enqueued, task


def accept(hub: Hub, *users: int) -> list[int]:
    """Accept one event for each user in one call; the ids of their tasks."""
    accepted = hub.intake.handle_events([Event("e", {"user": user, "n": next(_numbers)}) for user in users])
    return enqueued(hub, [task_id for a in accepted for task_id in a.tasks])


_numbers = itertools.count()


def states(hub: Hub, ids: list[int]) -> list[str]:
    found = {row["id"]: row["state"] for row in hub.db.all("SELECT id, state FROM tasks WHERE id = ANY(%s)", [ids])}
    return [found.get(task_id, "gone") for task_id in ids]


def tick(hub: Hub) -> None:
    assert hub.relay is not None
    hub.relay.tick()


@pytest.fixture
def ordered(hub: Hub, target: HttpTarget) -> Hub:
    """A hub with a rule whose tasks are ordered by user."""
    add_service(hub, target.url)
    add_rule(hub, ordering_key="{{user}}")
    return hub


def test_the_first_of_a_key_runs_and_the_others_wait_for_it(ordered: Hub, target: HttpTarget) -> None:
    ids = accept(ordered, 1, 1, 2, 1)
    assert states(ordered, ids) == ["queued", "blocked", "queued", "blocked"] and counts_are_exact(ordered)
    assert attempt(ordered, ids[1]) == "skipped", "a forged or repeated message runs nothing out of order"
    assert [ordered.views.tasks.get(i)["waits_behind"] for i in ids] == [None, ids[0], None, ids[0]]
    for task_id in (ids[0], ids[1], ids[3], ids[2]):
        assert attempt(ordered, task_id) == "delivered"
    assert [request.json()["n"] for request in target.seen[:3]] == sorted(r.json()["n"] for r in target.seen[:3])
    assert count(ordered, "tasks") == 0 and counts_are_exact(ordered)


def test_events_accepted_later_queue_behind_those_that_wait(ordered: Hub) -> None:
    first, second = accept(ordered, 1, 1)
    assert attempt(ordered, first) == "delivered"
    (third,) = accept(ordered, 1)
    assert states(ordered, [second, third]) == ["pending", "blocked"]
    tick(ordered)
    assert states(ordered, [second, third]) == ["queued", "blocked"]


def test_a_failed_task_blocks_its_key_until_it_is_delivered(ordered: Hub, target: HttpTarget) -> None:
    target.on("/x", 500)
    ids = accept(ordered, 1, 1, 2)
    assert attempt(ordered, ids[0]) == "failed"
    tick(ordered)
    assert states(ordered, ids) == ["delayed", "blocked", "queued"]
    target.on("/x", 200)
    ordered.db.run("UPDATE tasks SET next_run_at = now() WHERE state = 'delayed'")
    tick(ordered)
    assert states(ordered, ids)[:2] == ["queued", "blocked"]
    assert attempt(ordered, ids[0]) == "delivered" and states(ordered, ids)[1] == "pending"


def test_with_continue_later_tasks_go_on_and_the_failed_one_comes_next_when_it_is_due(
    ordered: Hub, target: HttpTarget
) -> None:
    ordered.registry.rules.update("r1", {"on_failure": "continue"})
    target.on("/x", 500)
    ids = accept(ordered, 1, 1, 1)
    assert attempt(ordered, ids[0]) == "failed"
    assert states(ordered, ids) == ["delayed", "pending", "blocked"]
    ordered.db.run("UPDATE tasks SET next_run_at = now() WHERE state = 'delayed'")
    tick(ordered)
    assert states(ordered, ids) == ["blocked", "queued", "blocked"], "one at a time, still"
    target.on("/x", 200)
    assert attempt(ordered, ids[1]) == "delivered"
    assert states(ordered, ids) == ["pending", "gone", "blocked"], "its event was accepted first"
    assert counts_are_exact(ordered)


@pytest.mark.parametrize("how", ["dead", "cancelled", "expired", "worker_lost"])
def test_whatever_ends_the_first_lets_the_next_run(ordered: Hub, target: HttpTarget, how: str) -> None:
    ids = accept(ordered, 1, 1, 1)
    if how == "cancelled":
        ordered.admin.cancel(ids[:1], who="t")
    elif how == "expired":
        ordered.db.run("UPDATE tasks SET state = 'pending', expires_at = now() - interval '1 s' WHERE id = %s", ids[:1])
        assert ordered.outbox.expire()
    elif how == "worker_lost":
        ordered.db.run("UPDATE tasks SET attempts = 4 WHERE id = %s", ids[:1])
        assert Ledger(ordered.db, worker="gone", body_limit=10).claim(ids[0])
        assert ordered.outbox.recover() == [("crm", True)]
    else:
        target.on("/x", 500)
        ordered.db.run("UPDATE tasks SET attempts = 4 WHERE id = %s", ids[:1])
        attempt(ordered, ids[0])
    assert states(ordered, ids) == ["gone", "pending", "blocked"] and counts_are_exact(ordered)


def test_a_worker_that_dies_leaves_its_key_to_the_same_task(ordered: Hub) -> None:
    ids = accept(ordered, 1, 1)
    assert isinstance(Ledger(ordered.db, worker="gone", body_limit=10).claim(ids[0]), Claim)
    ordered.outbox.recover()
    assert states(ordered, ids) == ["pending", "blocked"]


def test_keys_that_a_crash_left_closed_are_opened(ordered: Hub) -> None:
    """A process may die between the commit of an event and the statement that opens its key."""
    accepted, _ = ordered.intake.write([Event("e", {"user": n % 3, "n": n}) for n in range(6)], [0] * 6)
    ids = [task_id for a in accepted for task_id in a.tasks]
    assert states(ordered, ids) == ["blocked"] * 6
    tick(ordered)
    assert states(ordered, ids) == ["queued"] * 3 + ["blocked"] * 3


def test_a_sweep_goes_through_more_keys_than_one_batch(ordered: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub.store.ordering.BATCH", 4)
    accepted, _ = ordered.intake.write([Event("e", {"user": n, "n": n}) for n in range(10)], [0] * 10)
    ids = [task_id for a in accepted for task_id in a.tasks]
    assert [ordered.ordering.sweep() for _ in range(3)] == [4, 4, 2]
    assert set(states(ordered, ids)) == {"pending"}


def test_a_replay_goes_behind_or_before_the_tasks_that_wait(ordered: Hub, target: HttpTarget) -> None:
    ids = accept(ordered, 1, 1, 1, 1)
    target.on("/x", 500)
    ordered.db.run("UPDATE tasks SET attempts = 4")
    attempt(ordered, ids[0])
    attempt(ordered, ids[1])
    letters = [row["id"] for row in ordered.views.dead_letters.list()][::-1]
    assert [row["waiting"] for row in ordered.views.dead_letters.list()] == [2, 2]
    behind = replay_ids(ordered.dead_letters, letters[:1]).tasks
    before = replay_ids(ordered.dead_letters, letters[1:], before=True).tasks
    target.on("/x", 200)
    order = []
    for _ in range(4):
        tick(ordered)
        (ready,) = ordered.db.all("SELECT id FROM tasks WHERE holds_key")
        assert attempt(ordered, ready["id"]) == "delivered"
        order.append(ready["id"])
    assert order == [ids[2], *before, ids[3], *behind], "the task that already holds the key is not displaced"


def test_a_resend_of_an_ordered_rule_keeps_its_order(ordered: Hub) -> None:
    from hub.operations.resend import resend

    ids = accept(ordered, 1)
    assert attempt(ordered, ids[0]) == "delivered"
    waiting = accept(ordered, 1, 1)
    delivery = ordered.views.deliveries.list(task=ids[0])[0]["id"]
    (again,) = resend(ordered, [delivery]).tasks
    assert states(ordered, [*waiting, again]) == ["queued", "blocked", "blocked"]
    for task_id in (*waiting, again):
        assert attempt(ordered, task_id) == "delivered"


def test_a_person_runs_or_retries_no_task_out_of_order(ordered: Hub) -> None:
    ids = accept(ordered, 1, 1)
    assert ordered.ledger.claim_now(ids[1]) is None
    ordered.admin.retry(ids)
    assert states(ordered, ids) == ["pending", "blocked"]


def test_events_without_the_value_have_no_order(ordered: Hub) -> None:
    accepted = ordered.intake.handle_events([Event("e", {"n": n, "user": None}) for n in range(3)])
    ids = enqueued(ordered, [task_id for a in accepted for task_id in a.tasks])
    assert states(ordered, ids) == ["queued"] * 3
    assert [task(ordered, i)["ordering_key"] for i in ids] == [None] * 3


def test_a_constant_orders_all_tasks_of_the_rule_and_long_keys_are_hashed(hub: Hub, target: HttpTarget) -> None:
    add_service(hub, target.url)
    add_rule(hub, ordering_key="all")
    add_rule(hub, "r2", ordering_key="{{text}}-{{user}}")
    hub.intake.handle_events([Event("e", {"user": n, "text": "x" * 5000}) for n in range(2)])
    keys = {row["ordering_key"] for row in hub.db.all("SELECT DISTINCT ordering_key FROM tasks")}
    assert "all" in keys and len(keys) == 3 and all(len(key) <= 200 for key in keys)


@pytest.mark.parametrize("template", ["{{user", "{{task.id}}", "{{ now }}", "{{a|lower}}"])
def test_a_key_that_orders_nothing_is_refused(hub: Hub, target: HttpTarget, template: str) -> None:
    add_service(hub, target.url)
    with pytest.raises((ConfigError, ConflictError), match="ordering_key"):
        add_rule(hub, ordering_key=template)


def test_only_one_of_two_that_open_a_key_at_the_same_time_succeeds(ordered: Hub) -> None:
    ordered.intake.write([Event("e", {"user": 1, "n": n}) for n in range(2)], [0, 0])
    rule = ordered.configuration.rule("r1").id
    assert ordered.ordering.open([(rule, "1")]) == ordered.ordering.open([(rule, "1")]) == []
    assert len(ordered.db.all("SELECT 1 FROM tasks WHERE holds_key")) == 1
