"""One circuit for all processes: exactly one probe, and only the probe decides."""

from __future__ import annotations

import multiprocessing
import threading
from typing import Any

import pytest

from hub.app.lifecycle import Hub, build
from hub.errors import CircuitOpenError, DeliveryError
from hub.models import Request
from hub.settings import Settings
from tests.support.http_target import HttpTarget, Reply, Seen
from tests.support.hubs import add_rule, add_service, attempt, emit, task


def breaker(hub: Hub) -> dict[str, Any]:
    row = hub.db.one("SELECT state, failures, epoch FROM breakers")
    assert row is not None
    return row


def cooled(hub: Hub) -> None:
    """Open, and the cooldown has just ended."""
    hub.db.run("UPDATE breakers SET state = 'open', failures = 5, epoch = epoch + 1, retry_at = now()")


def _callers(settings: Settings, threads: int, ready: Any, start: Any, out: Any) -> None:
    """A process that calls the service from several threads at once."""
    with build(settings, role="cli") as hub:
        service = hub.configuration.service("crm")
        hub.db.one("SELECT 1 AS x")

        def call() -> None:
            start.wait(120)
            try:
                hub.gateway.execute_request(service, Request(endpoint="/x", body="{}"))
                out.put("sent")
            except CircuitOpenError as e:
                out.put("parked" if e.retry_after and e.retry_after > 0 else "no time")
            except Exception as e:
                out.put(repr(e))

        pool = [threading.Thread(target=call) for _ in range(threads)]
        for thread in pool:
            thread.start()
        ready.release()
        for thread in pool:
            thread.join()


def test_of_16_callers_in_four_processes_exactly_one_is_the_probe(
    alone: Settings, hub: Hub, target: HttpTarget
) -> None:
    """MIH let everybody through as soon as the cooldown was over."""
    gate = threading.Event()

    def hold(_: Seen) -> Reply:
        gate.wait(120)
        return Reply(204)

    target.default = hold
    add_service(hub, target.url, timeout=20)
    cooled(hub)
    spawn = multiprocessing.get_context("spawn")
    ready, start, out = spawn.Semaphore(0), spawn.Event(), spawn.Queue()
    processes = [spawn.Process(target=_callers, args=(alone, 4, ready, start, out)) for _ in range(4)]
    for process in processes:
        process.start()
    for _ in processes:
        assert ready.acquire(timeout=120)
    start.set()
    assert [out.get(timeout=120) for _ in range(15)] == ["parked"] * 15
    assert breaker(hub)["state"] == "half_open" and len(target.seen) == 1
    gate.set()
    assert out.get(timeout=120) == "sent"
    for process in processes:
        process.join(120)
    assert breaker(hub) == {"state": "closed", "failures": 0, "epoch": 2} and len(target.seen) == 1


def test_it_opens_after_five_failed_calls_and_a_failed_probe_opens_it_again(hub: Hub, target: HttpTarget) -> None:
    target.default = 500
    service = add_service(hub, target.url, max_retries=2, cb_cooldown=30)
    for failures in range(1, 6):
        with pytest.raises(DeliveryError):
            hub.gateway.execute_request(service, Request(body="{}"))
        assert breaker(hub)["failures"] == failures
    assert breaker(hub)["state"] == "open" and len(target.seen) == 10
    with pytest.raises(CircuitOpenError) as e:
        hub.gateway.execute_request(service, Request(body="{}"))
    assert 15 < (e.value.retry_after or 0) <= 30 and len(target.seen) == 10
    hub.db.run("UPDATE breakers SET retry_at = now()")
    with pytest.raises(DeliveryError, match="500"):
        hub.gateway.execute_request(service, Request(body="{}"))
    assert breaker(hub)["state"] == "open" and len(target.seen) == 12
    row = hub.db.one("SELECT extract(epoch FROM retry_at - now())::float8 AS wait FROM breakers")
    assert row and 15 < row["wait"] <= 30, "a fresh cooldown"


def test_a_success_in_between_starts_the_count_anew(hub: Hub, target: HttpTarget) -> None:
    service = add_service(hub, target.url)
    for answer in (500, 500, 500, 500, 204, 500, 500, 500, 500):
        target.default = answer
        try:
            hub.gateway.execute_request(service, Request(body="{}"))
        except DeliveryError:
            pass
    assert (breaker(hub)["state"], breaker(hub)["failures"]) == ("closed", 4)


@pytest.mark.parametrize("late", ["success", "failure"])
def test_what_began_before_the_circuit_opened_moves_nothing(hub: Hub, target: HttpTarget, late: str) -> None:
    """A late success says how the service was, not how it is; a late failure does not prolong the cooldown."""
    gate, begun = threading.Event(), threading.Event()

    def slow(_: Seen) -> Reply:
        begun.set()
        gate.wait(120)
        return Reply(204 if late == "success" else 500)

    target.on("/slow", slow)
    target.default = 500
    service = add_service(hub, target.url, timeout=20)
    add_rule(hub, endpoint="/slow")
    (task_id,) = emit(hub)
    thread = threading.Thread(target=attempt, args=(hub, task_id))
    thread.start()
    assert begun.wait(120)
    for _ in range(5):
        with pytest.raises(DeliveryError):
            hub.gateway.execute_request(service, Request(endpoint="/x", body="{}"))
    opened = breaker(hub)
    assert opened["state"] == "open"
    gate.set()
    thread.join(120)
    assert breaker(hub) == opened


def test_a_4xx_closes_a_half_open_circuit_the_service_is_alive(hub: Hub, target: HttpTarget) -> None:
    target.default = 422
    service = add_service(hub, target.url)
    cooled(hub)
    with pytest.raises(DeliveryError, match="422"):
        hub.gateway.execute_request(service, Request(body="{}"))
    assert (breaker(hub)["state"], breaker(hub)["failures"]) == ("closed", 0)


def test_a_probe_that_sent_nothing_gives_its_slot_back(hub: Hub, target: HttpTarget) -> None:
    """A template that gives no payload, or the hub's own fault, says nothing about the service."""
    service = add_service(hub, target.url)
    cooled(hub)
    with pytest.raises(DeliveryError, match="method"):
        hub.gateway.execute_request(service, Request(method="NONSENSE", body="{}"))
    assert breaker(hub)["state"] == "half_open" and target.seen == []
    hub.gateway.execute_request(service, Request(body="{}"))
    assert breaker(hub)["state"] == "closed" and len(target.seen) == 1


def test_the_slot_of_a_probe_whose_worker_died_is_free_after_its_lease(hub: Hub, target: HttpTarget) -> None:
    service = add_service(hub, target.url, timeout=2, max_retries=2, retry_backoff=1)
    cooled(hub)
    permit = hub.breakers.admit(service, probe_lease=30)
    assert permit.probe
    with pytest.raises(CircuitOpenError):
        hub.gateway.execute_request(service, Request(body="{}"))
    hub.db.run("UPDATE breakers SET probe_until = now()")
    hub.gateway.execute_request(service, Request(body="{}"))
    assert breaker(hub)["state"] == "closed" and len(target.seen) == 1
    hub.breakers.failed(service, permit)  # the dead one turns up after all: it speaks for itself only
    assert breaker(hub)["state"] == "closed"


def test_the_lease_of_a_probe_is_as_long_as_its_tries_may_take(hub: Hub, target: HttpTarget) -> None:
    """Not minutes longer: that is how long a service that is back has to wait when a worker was killed."""
    service = add_service(hub, target.url, timeout=2, max_retries=3, retry_backoff=1)
    cooled(hub)
    hub.gateway._permit(service, None)
    row = hub.db.one("SELECT extract(epoch FROM probe_until - now())::float8 AS wait FROM breakers")
    assert row and 5 < row["wait"] <= 2 * 3 + 1 + 2 + 5


def test_a_person_resets_a_circuit(hub: Hub, target: HttpTarget) -> None:
    service = add_service(hub, target.url)
    add_rule(hub)
    hub.db.run("UPDATE breakers SET state = 'open', failures = 5, retry_at = now() + interval '1 h'")
    (task_id,) = emit(hub)
    assert attempt(hub, task_id) == "parked" and task(hub, task_id)["attempts"] == 0
    assert hub.breakers.reset(service) and not hub.breakers.reset(service)
    hub.db.run("UPDATE tasks SET state = 'pending'")
    assert attempt(hub, task_id) == "delivered"
