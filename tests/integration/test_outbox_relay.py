"""Outbox relay: publishes what is due, keeps the queue limit per service, republishes lost messages."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from typing import Any, cast

import dramatiq
import pytest
import structlog.testing
from pydantic import SecretStr

from hub.app.lifecycle import Hub, build
from hub.programs.up import work
from hub.settings import Settings
from hub.store.ledger import Ledger
from hub.tasks.outbox_relay import OutboxRelay
from hub.tasks.publish import BrokerPublisher
from tests.support.http_target import HttpTarget
from tests.support.hubs import (
    add_rule,
    add_service,
    attempt,
    count,
    counts_are_exact,
    due_now,
    emit,
    emit_many,
    task,
)
from tests.support.waiting import eventually


def relay_of(hub: Hub) -> OutboxRelay:
    assert hub.relay is not None
    return hub.relay


def waiting(hub: Hub) -> int:
    """Messages in the broker's queue."""
    return hub.broker.ready(hub.queues["dispatch"]) or 0


def states(hub: Hub) -> dict[str, int]:
    return {row["state"]: row["n"] for row in hub.db.all("SELECT state, count(*) AS n FROM tasks GROUP BY 1")}


def unpublished(hub: Hub) -> None:
    """As if the publisher had died: the tasks are pending, the queue is empty."""
    hub.broker.flush_all()
    hub.db.run("UPDATE tasks SET state = 'pending', handed_at = NULL")


def test_what_is_due_is_published_and_what_is_not_is_not(hub: Hub, target: HttpTarget) -> None:
    add_service(hub, target.url)
    add_rule(hub)
    due, later, now = emit_many(hub, 3)
    unpublished(hub)
    hub.db.run("UPDATE tasks SET state = 'delayed', next_run_at = now() + interval '1 h' WHERE id = %s", [later])
    hub.db.run("UPDATE tasks SET state = 'delayed', next_run_at = now() - interval '1 s' WHERE id = %s", [due])
    assert relay_of(hub).tick()
    assert [task(hub, t)["state"] for t in (due, now, later)] == ["queued", "queued", "delayed"]
    assert waiting(hub) == 2 and not relay_of(hub).tick() and waiting(hub) == 2 and counts_are_exact(hub)


def test_a_service_never_has_more_than_its_queue_limit_in_the_broker(alone: Settings, target: HttpTarget) -> None:
    """So none can fill the queue, and what is in it is soon done."""
    with build(alone.model_copy(update={"queue_limit": 10}), role="up") as hub:
        hub.lease.start()
        for name, url in (("crm", target.url), ("erp", target.url)):
            add_service(hub, url, name)
            add_rule(hub, f"to-{name}", name, name)
        add_rule(hub, "to-crm-2", "crm", "crm")
        emit_many(hub, 30, "crm")
        emit_many(hub, 5, "erp")
        unpublished(hub)
        while relay_of(hub).tick():
            pass
        rows = hub.db.all(
            "SELECT r.name, count(*) AS n FROM tasks t JOIN rules r ON r.id = t.rule_id WHERE t.state = 'queued'"
            " GROUP BY 1 ORDER BY 1"
        )
        assert [(row["name"], row["n"]) for row in rows] == [("to-crm", 5), ("to-crm-2", 5), ("to-erp", 5)]
        assert waiting(hub) == 15 and states(hub) == {"pending": 50, "queued": 15}
        taken = hub.db.all("SELECT id FROM tasks WHERE state = 'queued' AND rule_id = 1")
        for row in taken:
            attempt(hub, row["id"])
        relay_of(hub).tick()
        assert states(hub)["queued"] == 15, "as much comes after as was done"


def test_accepted_events_go_straight_to_the_broker_until_the_queue_limit_is_reached(
    alone: Settings, target: HttpTarget
) -> None:
    with build(alone.model_copy(update={"queue_limit": 7}), role="up") as hub:
        add_service(hub, target.url)
        add_rule(hub)
        emit_many(hub, 20)
        assert states(hub) == {"queued": 7, "pending": 13} and waiting(hub) == 7


def test_nothing_goes_straight_to_a_service_whose_circuit_is_open(hub: Hub, target: HttpTarget) -> None:
    add_service(hub, target.url)
    add_rule(hub)
    hub.db.run("UPDATE breakers SET state = 'open', retry_at = now() + interval '1 h'")
    emit_many(hub, 5)
    cast(BrokerPublisher, hub.publisher)._read_at = float("-inf")
    emit_many(hub, 5, start=5)
    assert states(hub)["pending"] >= 5


def test_an_open_circuit_gets_one_probe_when_it_has_cooled_down(hub: Hub, target: HttpTarget) -> None:
    add_service(hub, target.url)
    add_rule(hub)
    emit_many(hub, 10)
    unpublished(hub)
    hub.db.run("UPDATE breakers SET state = 'open', epoch = 1, retry_at = now() + interval '1 h'")
    relay_of(hub).tick()
    assert states(hub) == {"pending": 10}
    hub.db.run("UPDATE breakers SET retry_at = now()")
    for _ in range(3):
        relay_of(hub).tick()
        assert states(hub) == {"pending": 9, "queued": 1}
    (row,) = hub.db.all("SELECT id FROM tasks WHERE state = 'queued'")
    assert attempt(hub, row["id"]) == "delivered", "the probe closes it"
    relay_of(hub).tick()
    assert states(hub) == {"queued": 9}


def test_held_tasks_are_not_published(hub: Hub, target: HttpTarget) -> None:
    add_service(hub, target.url)
    add_rule(hub)
    emit_many(hub, 3)
    unpublished(hub)
    hub.registry.services.enable("crm", False)
    relay_of(hub).tick()
    assert states(hub) == {"pending": 3} and waiting(hub) == 0
    hub.registry.services.enable("crm", True)
    relay_of(hub).tick()
    assert states(hub) == {"queued": 3}


def test_a_rate_limit_parks_what_is_too_much_without_costing_attempts(hub: Hub, target: HttpTarget) -> None:
    add_service(hub, target.url, rate_limit=2)
    add_rule(hub)
    ids = emit_many(hub, 6)
    results = [attempt(hub, t) for t in ids]
    assert results.count("delivered") in (2, 3) and set(results) == {"delivered", "parked"}
    parked = [t for t, result in zip(ids, results, strict=True) if result == "parked"]
    assert {task(hub, t)["attempts"] for t in parked} == {0} and "2 requests/s" in task(hub, parked[0])["last_error"]
    unpublished(hub)
    relay_of(hub).tick()
    assert states(hub)["queued"] <= 2, "no more than a second's worth waits in the broker"


def test_tasks_of_a_lost_worker_are_taken_up_once_the_new_leader_has_looked_long_enough(
    hub: Hub, target: HttpTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A leader that has just begun, or a database that was away, knows nothing of who is alive."""
    add_service(hub, target.url)
    add_rule(hub)
    (task_id,) = emit(hub)
    assert Ledger(hub.db, worker="lost", body_limit=10).claim(task_id)
    assert relay_of(hub)._lead()
    relay_of(hub).tick()
    assert task(hub, task_id)["state"] == "running"
    monkeypatch.setattr(relay_of(hub), "_leading_since", float("-inf"))
    relay_of(hub).tick()
    assert task(hub, task_id)["state"] == "queued" and attempt(hub, task_id) == "delivered"
    relay_of(hub)._resign()


def test_one_process_leads_and_another_takes_over(alone: Settings, hub: Hub, target: HttpTarget) -> None:
    with build(alone, role="up") as other:
        assert relay_of(hub)._lead() and not relay_of(other)._lead()
        relay_of(hub)._resign()
        assert relay_of(other)._lead() and not relay_of(hub)._lead()
        hub.db.run(
            "SELECT pg_terminate_backend(l.pid) FROM pg_locks l WHERE l.locktype = 'advisory'"
            " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        eventually(lambda: relay_of(hub)._lead(), "the lead is taken over")
        relay_of(hub)._resign()
        relay_of(other)._resign()


def test_what_a_dead_process_had_in_memory_is_published_again(hub: Hub, target: HttpTarget) -> None:
    """Embedded mode: a crash empties the in-process broker; the ledger makes it safe."""
    add_service(hub, target.url)
    add_rule(hub)
    emit_many(hub, 5)
    hub.broker.flush_all()
    assert relay_of(hub)._lead()
    relay_of(hub).tick()
    assert waiting(hub) == 5 and states(hub) == {"queued": 5}
    relay_of(hub)._resign()


@pytest.fixture
def apart(settings: Settings) -> Iterator[Hub]:
    """A hub on RabbitMQ, of which nothing runs."""
    settings = settings.model_copy(update={"worker_lease": 30.0, "republish_after": 30.0})
    with build(settings, role="worker") as hub:
        hub.lease.start()
        hub.broker.declare_queue(hub.queues["dispatch"], ensure=True)  # type: ignore[call-arg]
        yield hub


def age(hub: Hub, seconds: float) -> None:
    hub.db.run("UPDATE tasks SET handed_at = handed_at - make_interval(secs => %s) WHERE state = 'queued'", [seconds])
    relay_of(hub)._lost_at = float("-inf")


def test_what_the_queue_lost_is_published_again(apart: Hub, target: HttpTarget) -> None:
    """The broker was wiped, or the publisher was killed between commit and publish."""
    add_service(apart, target.url)
    add_rule(apart)
    emit_many(apart, 40)
    eventually(lambda: waiting(apart) == 2)  # 32 and 8
    apart.broker.flush(apart.queues["dispatch"])
    age(apart, 0)
    relay_of(apart).tick()
    assert waiting(apart) == 0, "too young: they may be on their way"
    age(apart, 60)
    relay_of(apart).tick()
    eventually(lambda: waiting(apart) == 2)
    age(apart, 60)
    relay_of(apart).tick()
    assert waiting(apart) == 2, "the queue holds them"


def test_a_deleted_queue_is_made_again(apart: Hub, target: HttpTarget) -> None:
    add_service(apart, target.url)
    add_rule(apart)
    emit_many(apart, 40)
    with apart.broker.pool.channel() as channel:  # type: ignore[union-attr]
        channel.queue_delete(apart.queues["dispatch"])
    assert apart.broker.ready(apart.queues["dispatch"]) is None
    age(apart, 60)
    relay_of(apart).tick()
    eventually(lambda: waiting(apart) == 2)


def test_a_backlog_is_not_published_again_and_again(apart: Hub, target: HttpTarget) -> None:
    """A timer alone would: every task older than the grace, every grace."""
    add_service(apart, target.url)
    add_rule(apart)
    emit_many(apart, 200)
    eventually(lambda: waiting(apart) == 7)
    for _ in range(5):
        age(apart, 60)
        relay_of(apart).tick()
    assert waiting(apart) == 7 and count(apart, "queued") == 200


def test_a_broker_that_is_away_costs_nothing_but_time(settings: Settings, target: HttpTarget) -> None:
    """The events are accepted, their tasks wait in the ledger."""
    gone = settings.model_copy(update={"broker_url": SecretStr("amqp://guest:guest@127.0.0.1:9/")})
    with build(gone, role="worker") as hub:
        add_service(hub, target.url)
        add_rule(hub)
        emit_many(hub, 5)
        assert states(hub) == {"pending": 5} and cast(BrokerPublisher, hub.publisher).down
        assert not relay_of(hub).tick() and states(hub) == {"pending": 5}
        emit_many(hub, 5, start=5)
        assert states(hub) == {"pending": 10} and counts_are_exact(hub)


@pytest.mark.parametrize("where", ["hub", "apart"])
def test_a_running_worker_does_all_of_it(where: str, request: pytest.FixtureRequest, target: HttpTarget) -> None:
    """Both brokers, with Dramatiq's threads: everything arrives once, and the end is orderly."""
    hub: Hub = request.getfixturevalue(where)
    add_service(hub, target.url)
    add_rule(hub)
    with work(hub, threads=4):
        emit_many(hub, 300)
        eventually(lambda: count(hub, "tasks") == 0)
    assert len(target.seen) == 300 == len({seen.body for seen in target.seen}) and hub.ledger.running() == 0
    assert count(hub, "delivered") == 300 and counts_are_exact(hub)


def test_due_retries_run_by_themselves(hub: Hub, target: HttpTarget) -> None:
    """Four delays, five attempts, a dead letter: without anybody's help."""
    target.default = 500
    add_service(hub, target.url, cb_failure_threshold=0)
    add_rule(hub)
    with work(hub, threads=2):
        emit(hub)
        eventually(lambda: count(hub, "dead_letters") == 1)
    assert len(target.seen) == 5 and count(hub, "tasks") == 0
    gaps = [b.at - a.at for a, b in zip(target.seen, target.seen[1:], strict=False)]
    assert all(gap >= low for gap, low in zip(gaps, (0.18, 0.27, 0.36, 0.45), strict=True))


def test_a_stop_releases_what_waited_in_memory(hub: Hub, target: HttpTarget) -> None:
    """Tasks that found no room in the bulkhead are the ledger's again, not lost until the next start."""
    hold = threading.Event()

    def slow(_: Any) -> int:
        hold.wait(120)
        return 204

    target.default = slow
    add_service(hub, target.url, timeout=120)
    add_rule(hub)
    worker = dramatiq.Worker(hub.broker, worker_threads=4, worker_timeout=50)
    hub.start_worker(4)
    worker.start()
    emit_many(hub, 12)
    eventually(lambda: len(target.seen) == 3 and waiting(hub) == 0)
    eventually(lambda: len(hub.bulkhead._waits) == 9)
    hub.stop_worker()
    assert states(hub) == {"running": 3, "pending": 9}
    hold.set()
    worker.stop()
    assert hub.ledger.flush(10) and states(hub) == {"pending": 9}


def test_a_stop_without_a_database_leaves_the_waiting_tasks_to_the_relay(hub: Hub) -> None:
    hub.start_worker(2)
    hub.bulkhead._waiting[1] = deque([1])
    hub.db.close()
    with structlog.testing.capture_logs() as lines:
        hub.stop_worker()
    (line,) = [line for line in lines if line["event"] == "tasks not released; the relay republishes them"]
    assert line["count"] == 1


def test_a_retry_by_hand_is_published_at_once(hub: Hub, target: HttpTarget) -> None:
    target.default = 500
    add_service(hub, target.url)
    add_rule(hub)
    (task_id,) = emit(hub)
    attempt(hub, task_id)
    hub.db.run("UPDATE tasks SET next_run_at = now() + interval '1 h'")
    assert hub.admin.retry([task_id]) == [task_id]
    relay_of(hub).tick()
    target.default = 204
    assert task(hub, task_id)["attempts"] == 1 and attempt(hub, task_id) == "delivered"
    due_now(hub)
