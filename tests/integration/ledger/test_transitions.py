"""Transitions of a task: whole, fenced by the claim, counted."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from hub.app.lifecycle import Hub
from hub.models import (
    DeadReason,
)
from hub.store.leases import Leases
from hub.store.ledger import Ledger
from tests.integration.ledger.claims import outcome, taken
from tests.support.hubs import add_rule, add_service, count, counts_are_exact, emit, task


def test_the_attempt_is_counted_at_the_claim_before_the_work(hub: Hub, tasks: list[int]) -> None:
    """A worker that dies in its work has spent the attempt: it may have reached the service."""
    claim = taken(hub, tasks[0])
    assert claim.attempt == 1 and task(hub, tasks[0])["attempts"] == 1
    row = task(hub, tasks[0])
    assert row["state"] == "running" and row["worker"] == hub.instance and row["handed_at"] is None
    assert str(row["key"]) == claim.key


def test_a_task_is_in_one_pair_of_hands(hub: Hub, tasks: list[int]) -> None:
    """A second message for a task, in whatever process, gets nothing."""
    other = Ledger(hub.db, worker="other", body_limit=100)
    with ThreadPoolExecutor(8) as pool:
        claims = list(pool.map(lambda n: (hub.ledger if n % 2 else other).claim(tasks[n % 10]), range(80)))
    assert sorted(c.id for c in claims if c) == sorted(tasks)
    assert [task(hub, t)["attempts"] for t in tasks] == [1] * 10 and counts_are_exact(hub)


def test_what_is_not_due_or_gone_is_not_claimed(hub: Hub, tasks: list[int]) -> None:
    hub.ledger.fail(taken(hub, tasks[0]), outcome(taken(hub, tasks[1]), "no"), delay=60)
    assert hub.ledger.claim(tasks[0]) is None and task(hub, tasks[0])["attempts"] == 1
    assert hub.ledger.claim(999_999) is None


def test_success_ends_the_task_and_logs_it_in_one_step(hub: Hub, tasks: list[int]) -> None:
    claims = [taken(hub, t) for t in tasks]
    with ThreadPoolExecutor(5) as pool:
        assert all(pool.map(lambda c: hub.ledger.finish(c, outcome(c)), claims))
    assert count(hub, "tasks") == 0 and count(hub, "deliveries") == 10 and hub.ledger.running() == 0
    assert counts_are_exact(hub)


def test_failure_makes_the_task_due_later_with_its_error(hub: Hub, tasks: list[int]) -> None:
    claim = taken(hub, tasks[0])
    assert hub.ledger.fail(claim, outcome(claim, "HTTP 500"), delay=60)
    row = task(hub, tasks[0])
    assert row["state"] == "delayed" and row["due_in"] == 60 and row["last_error"] == "HTTP 500"
    assert row["worker"] is None and count(hub, "deliveries") == 1


@pytest.mark.parametrize(("delay", "state"), [(0.0, "pending"), (30.0, "delayed")])
def test_what_is_given_back_has_cost_no_attempt(hub: Hub, tasks: list[int], delay: float, state: str) -> None:
    claim = taken(hub, tasks[0])
    hub.ledger.release(claim, delay=delay, why="the circuit is open")
    row = task(hub, tasks[0])
    assert (row["state"], row["attempts"], row["last_error"]) == (state, 0, "the circuit is open")
    assert count(hub, "deliveries") == 0 and hub.ledger.running() == 0


def test_the_last_failure_becomes_a_dead_letter_that_says_why(hub: Hub, tasks: list[int]) -> None:
    claim = taken(hub, tasks[0])
    assert hub.ledger.move_to_dlq(claim, outcome(claim, "HTTP 500"), DeadReason.ATTEMPTS)
    letter = hub.views.dead_letters.list()[0]
    assert (letter["task_id"], letter["reason"], letter["error"]) == (tasks[0], "attempts", "HTTP 500")
    assert letter["payload"] == '{"n":1}' and letter["attempts"] == 1
    assert count(hub, "tasks") == 9 and count(hub, "deliveries") == 1 and counts_are_exact(hub)


def test_a_dead_letter_that_cannot_be_written_whole_is_not_written_at_all(hub: Hub, tasks: list[int]) -> None:
    claim = taken(hub, tasks[0])
    hub.db.run("ALTER TABLE deliveries ADD CHECK (error IS NULL)")
    with pytest.raises(psycopg.errors.CheckViolation):
        hub.ledger.move_to_dlq(claim, outcome(claim, "HTTP 500"), DeadReason.ATTEMPTS)
    assert count(hub, "dead_letters") == 0 and task(hub, tasks[0])["state"] == "running"


def test_who_lost_a_task_can_end_it_no_more(hub: Hub, tasks: list[int]) -> None:
    """The token fences: a worker that was taken for dead and wakes up changes nothing."""
    old = [taken(hub, t) for t in tasks[:4]]
    hub.db.run("UPDATE tasks SET lease_until = now() - interval '1 s' WHERE state = 'running'")
    assert len(hub.outbox.recover()) == 4
    other = Ledger(hub.db, worker="other", body_limit=100)
    new = [other.claim(t) for t in tasks[:4]]
    assert [c and c.attempt for c in new] == [2] * 4
    assert not hub.ledger.finish(old[0], outcome(old[0]))
    assert not hub.ledger.fail(old[1], outcome(old[1], "no"), delay=60)
    assert not hub.ledger.move_to_dlq(old[2], outcome(old[2], "no"), DeadReason.ATTEMPTS)
    hub.ledger.release(old[3])
    assert [task(hub, t)["state"] for t in tasks[:4]] == ["running"] * 4 and count(hub, "dead_letters") == 0
    assert [task(hub, t)["attempts"] for t in tasks[:4]] == [2] * 4
    assert hub.views.deliveries.list(task=tasks[0], failed=False)[0]["success"], "it did reach the service"
    assert new[0] and other.finish(new[0], outcome(new[0]))


def test_the_tasks_of_a_living_worker_are_left_alone(hub: Hub, tasks: list[int]) -> None:
    taken(hub, tasks[0])
    assert hub.outbox.recover() == []


def test_a_worker_whose_lease_is_over_may_still_be_in_its_last_send(hub: Hub, tasks: list[int]) -> None:
    """It begins no more, but the one under way may take the service's timeout."""
    hub.registry.services.update("crm", {"timeout": 60})
    other = Ledger(hub.db, worker="other", body_limit=100)
    Leases(hub.db, "other").renew(10, host="h", pid=1)
    other.claim(tasks[0])
    hub.db.run("UPDATE workers SET lease_until = now() - interval '30 s' WHERE id = 'other'")
    assert hub.outbox.recover() == []
    hub.db.run("UPDATE workers SET lease_until = now() - interval '61 s' WHERE id = 'other'")
    assert hub.outbox.recover() == [("crm", False)]


def test_a_task_that_kills_its_worker_five_times_is_dead(hub: Hub, tasks: list[int]) -> None:
    """It is taken up again four times, and every time leaves a row that says so."""
    for attempt in range(1, 6):
        lost = Ledger(hub.db, worker=f"lost{attempt}", body_limit=100)
        claim = lost.claim(tasks[0])
        assert claim is not None and claim.attempt == attempt
        assert hub.outbox.recover() == [("crm", attempt == 5)]
        assert hub.outbox.recover() == []
    letter = hub.views.dead_letters.list()[0]
    assert (letter["reason"], letter["attempts"]) == ("worker_lost", 5) and "worker was lost" in letter["error"]
    assert [d["attempt"] for d in hub.views.deliveries.list(task=tasks[0], failed=True)] == [5, 4, 3, 2, 1]
    assert hub.ledger.claim(tasks[0]) is None and counts_are_exact(hub)


def test_a_task_that_is_too_old_is_dead_with_its_last_error(hub: Hub, tasks: list[int]) -> None:
    claim = taken(hub, tasks[0])
    hub.ledger.fail(claim, outcome(claim, "HTTP 500"), delay=3600)
    hub.db.run("UPDATE tasks SET expires_at = now() - interval '1 s' WHERE id = ANY(%s)", [tasks[:2]])
    assert hub.ledger.claim(tasks[1]) is None  # it was queued: the relay moves it to the dead letters
    assert hub.outbox.expire() == ["crm", "crm"]
    letters = {row["task_id"]: row for row in hub.views.dead_letters.list()}
    assert letters.keys() == set(tasks[:2]) and {row["reason"] for row in letters.values()} == {"expired"}
    assert "HTTP 500" in letters[tasks[0]]["error"] and letters[tasks[1]]["attempts"] == 0
    assert count(hub, "tasks") == 8 and counts_are_exact(hub)


def test_one_delivery_that_cannot_be_written_does_not_spoil_its_batch(hub: Hub, tasks: list[int]) -> None:
    claims = [taken(hub, t) for t in tasks]
    hub.db.run("ALTER TABLE deliveries ADD CHECK (task_id <> %s)" % tasks[3])  # noqa: UP031
    done: list[int] = []
    for claim in claims:
        hub.ledger.finish_soon(claim, outcome(claim), lambda ok, c=claim: done.append(c.id))  # type: ignore[misc]
    assert hub.ledger.flush(10)
    assert sorted(done) == sorted(set(tasks) - {tasks[3]}) and count(hub, "deliveries") == 9
    assert task(hub, tasks[3])["state"] == "running"


def test_an_event_is_still_there_for_its_task(hub: Hub) -> None:
    """A task without its event could never be claimed, and so would never end."""
    add_service(hub, "http://127.0.0.1:9")
    add_rule(hub)
    (task_id,) = emit(hub)
    assert taken(hub, task_id).event_data == '{"n":1}'
