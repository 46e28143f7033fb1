"""Runs of the response consumer: success, errors, limits."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pika
import pytest

from hub.config.definitions import ServiceSpec, parse_spec
from hub.inbound.consumer import RunResult, response_services
from hub.models import Event
from hub.scheduling.schedule import CONSUME
from hub.store.database import Connection
from hub.store.schedules import Schedules
from hub.store.views import Views
from tests.integration.responses.bench import Bench
from tests.support.rabbit import RabbitNode


def test_an_empty_queue_is_a_success(bench: Bench) -> None:
    """Nothing to do is not an error, and the service's page must show that it was looked at."""
    erp = bench.service()
    bench.publish()
    result = bench.consumer().consume(erp)
    assert result == RunResult("ok", seconds=result.seconds)
    assert bench.state(erp)["last_success_at"] is not None


def test_a_missing_queue_is_declared_durable(bench: Bench) -> None:
    """As MIH does: the first answer must have a place to go to."""
    result = bench.consumer().consume(bench.service())
    assert result.declared and result.outcome == "ok"
    bench.publish("1")  # declares it durable: refused if it were not
    assert bench.consumer().consume(bench.registry.configuration.service("erp")).stored == 1


def test_no_two_runs_read_one_queue_at_once(bench: Bench) -> None:
    """A slow run and the next minute's would store messages twice and out of order."""
    erp = bench.service()
    bench.publish("1", "2")
    inside, go_on = threading.Event(), threading.Event()

    def emit(*_: Any) -> Callable[[], None]:
        inside.set()
        assert go_on.wait(120)
        return lambda: None

    first = threading.Thread(target=lambda: bench.consumer(emit).consume(erp))
    first.start()
    assert inside.wait(120)
    try:
        assert bench.consumer().consume(erp).outcome == "skipped"
        other = bench.service("crm", queue=bench.queue + ".crm")
        assert bench.consumer().consume(other).outcome == "ok", "services do not wait for each other"
    finally:
        go_on.set()
        first.join(120)
    assert bench.bodies() == ["1", "2"]
    assert sorted(bench.hooks.runs) == [("crm", "ok"), ("erp", "ok"), ("erp", "skipped")]


@pytest.mark.parametrize("url", ["amqp://guest:guest@127.0.0.1:1/", "amqp://guest:wr0ng-pass@{at}"])
def test_a_broken_service_is_told_clearly_and_holds_no_other(bench: Bench, url: str) -> None:
    """Its page shows why; the secret shows nowhere."""
    bad = bench.service("bad", url=url.format(at=bench.url.partition("@")[2]))
    good = bench.service("good")
    bench.publish("1")
    result = bench.consumer().consume(bad)
    assert result.outcome == "error" and result.error
    assert "wr0ng-pass" not in str(result) + str(bench.state(bad))
    assert bench.state(bad)["last_error"] == result.error
    assert bench.consumer().consume(good).stored == 1
    run = Views(bench.db).runs.scheduled(name=CONSUME, failed=True)[0]
    assert (run["service"], run["error"]) == ("bad", result.error)
    assert Schedules(bench.db, claimed_by="t").get(CONSUME).last_result == "error"


def test_an_exclusive_queue_is_a_clear_error(bench: Bench) -> None:
    """Somebody else has the queue for himself: the broker's words reach the person."""
    with pika.BlockingConnection(pika.URLParameters(bench.url)) as connection:
        connection.channel().queue_declare(bench.queue, exclusive=True)
        result = bench.consumer().consume(bench.service())
    assert result.outcome == "error" and "405" in (result.error or "")


@pytest.mark.parametrize("there", [True, False], ids=["queue there", "queue missing"])
def test_a_missing_permission_is_told_with_what_to_do(
    bench: Bench, broker_node: RabbitNode | None, there: bool
) -> None:
    """The hub's user at the service's broker is somebody else's to set up: say exactly what it lacks."""
    if broker_node is None:
        pytest.skip("needs to make users on the broker")
    vhost, user = bench.url.rpartition("/")[2], f"u{bench.queue[:11]}"
    broker_node.ctl("add_user", user, "pw")
    broker_node.ctl("set_permissions", "-p", vhost, user, "^$", "^$", "^$")
    if there:
        bench.publish("1")
    erp = bench.service(url=f"amqp://{user}:pw@{bench.url.partition('@')[2]}")
    result = bench.consumer().consume(erp)
    assert result.outcome == "error"
    assert "permission" in (result.error or "") and "`read`" in (result.error or "")
    assert bench.queue in bench.state(erp)["last_error"]


def test_a_run_ends_in_time_and_the_next_takes_the_rest(bench: Bench) -> None:
    """A flood must not hold a worker for ever; nothing is skipped over."""
    erp = bench.service()
    bench.publish(*map(str, range(300)))
    result = bench.consumer(consumer_run_time=1e-9, consumer_batch=10).consume(erp)
    assert result.outcome == "ok" and result.unfinished and "next run" in result.summary()
    bench.consumer().consume(erp)
    assert bench.bodies() == [str(i) for i in range(300)]


def test_a_batch_is_bounded_by_its_bytes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """500 messages of a megabyte would be half a gigabyte."""
    monkeypatch.setattr("hub.inbound.consumer._BATCH_BYTES", 50_000)
    sizes = []

    def emit(_: Connection, events: list[Event], depths: list[int]) -> Callable[[], None]:
        sizes.append(len(events))
        return lambda: None

    bench.publish(*[json.dumps("x" * 20_000)] * 30)
    result = bench.consumer(emit).consume(bench.service())
    assert result.stored == sum(sizes) == 30
    assert len(sizes) > 1


def test_which_services_are_consumed(bench: Bench) -> None:
    """Enabled, AMQP, with a response queue; nothing else."""
    bench.service()
    bench.service("off")
    bench.registry.services.enable("off", False)
    bench.registry.services.add(parse_spec(ServiceSpec, {"name": "rest", "base_url": "http://127.0.0.1:1"}))
    bench.registry.services.add(parse_spec(ServiceSpec, {"name": "mute", "type": "amqp", "base_url": bench.url}))
    assert [s.name for s in response_services(bench.registry.configuration.services())] == ["erp"]


def test_a_queue_deleted_while_it_is_read_is_an_error_and_what_came_is_kept(bench: Bench) -> None:
    """The broker cancels the consumer; the run must not wait for ever."""
    erp = bench.service()
    bench.publish(*map(str, range(100)))

    def emit(*_: Any) -> Callable[[], None]:
        with pika.BlockingConnection(pika.URLParameters(bench.url)) as connection:
            connection.channel().queue_delete(bench.queue)
        return lambda: None

    result = bench.consumer(emit, consumer_batch=10).consume(erp)
    assert result.outcome == "error" and result.error
    assert bench.bodies()[:10] == [str(i) for i in range(10)]
