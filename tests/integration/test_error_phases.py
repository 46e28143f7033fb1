"""What fails before the first byte left is no try, and an internal error of that kind no attempt either."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hub.app.lifecycle import Hub
from hub.errors import NotSentError, RateLimitedError
from hub.models import Request, Service, ServiceType
from hub.settings import Settings
from hub.store.rate_limits import RateLimits
from hub.transports.amqp.transport import AmqpTransport
from hub.transports.base import Deadline
from hub.transports.rest import RestTransport
from tests.support.certificates import Authority
from tests.support.http_target import HttpTarget, Reply
from tests.support.hubs import add_rule, add_service, attempt, count, counts_are_exact, due_now, emit, task
from tests.support.soap_server import WebServer


@contextmanager
def no_descriptors() -> Iterator[None]:
    """This process can open nothing more."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def released(hub: Hub, task_id: int, *words: str, deliveries: int = 0) -> None:
    """The task waits, its attempt was not counted, nothing was logged as sent."""
    row = task(hub, task_id)
    assert (row["state"], row["attempts"]) == ("delayed", 0), row
    assert all(word in row["last_error"] for word in words), row["last_error"]
    assert count(hub, "deliveries") == deliveries and counts_are_exact(hub)


def breaker(hub: Hub) -> tuple[str, int]:
    row = hub.db.one("SELECT state, failures FROM breakers")
    return (row["state"], row["failures"]) if row else ("closed", 0)


def test_an_attempt_without_descriptors_is_released_and_delivered_later(hub: Hub, target: HttpTarget) -> None:
    add_service(hub, target.url, cb_failure_threshold=1)
    add_rule(hub)
    (first,) = emit(hub)
    assert attempt(hub, first) == "delivered"  # what is loaded and opened once, is
    target.drop()
    (task_id,) = emit(hub, data={"n": 2})
    for _ in range(6):
        with no_descriptors():
            assert attempt(hub, task_id) == "parked"
        released(hub, task_id, "no more connections", deliveries=1)
        due_now(hub)
    assert breaker(hub) == ("closed", 0) and len(target.seen) == 1
    assert attempt(hub, task_id) == "delivered" and len(target.seen) == 2


def test_a_name_that_cannot_be_looked_up_without_descriptors_is_an_internal_error() -> None:
    """The resolver calls it an unknown host, which would count against the service."""
    transport = RestTransport(Settings())
    service = Service(1, "crm", ServiceType.REST, "http://nowhere.invalid/")
    with no_descriptors(), pytest.raises(NotSentError, match="no more connections"):
        transport.send(service, Request(), Deadline(10))
    transport.close()


def test_a_descriptor_shortage_after_a_failed_try_leaves_that_try_as_the_outcome(hub: Hub, target: HttpTarget) -> None:
    add_service(hub, target.url, max_retries=3, retry_backoff=0)
    add_rule(hub)
    (first,) = emit(hub)
    assert attempt(hub, first) == "delivered"
    target.seen.clear()
    target.drop()
    (task_id,) = emit(hub, data={"n": 2})

    def starve(_: Any) -> Reply:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        return Reply(503, close=True)

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    target.default = starve
    try:
        outcome = attempt(hub, task_id)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert outcome == "failed"
    (row,) = hub.views.deliveries.list(task=task_id)
    assert "may have got it" not in row["error"] and row["status"] == 503
    assert row["tries"] == len(target.seen) == 1


@pytest.mark.parametrize("option", ["ca_file", "client_cert"])
def test_an_unreadable_tls_file_releases_the_attempt(hub: Hub, tmp_path: Path, option: str) -> None:
    authority = Authority(tmp_path)
    with HttpTarget(tls=authority.server()) as target:
        add_service(hub, target.url, **{"ca_file": authority.file, option: str(tmp_path / "gone.pem")})
        add_rule(hub)
        (task_id,) = emit(hub)
        assert attempt(hub, task_id) == "parked"
        released(hub, task_id, option, "gone.pem")
        assert not target.seen


def test_a_missing_soap_extra_releases_the_attempt(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zeep", None)  # `import zeep` raises ImportError
    with WebServer() as server:
        add_service(hub, f"{server.url}/wsdl", type="soap")
        add_rule(hub, endpoint="CreateUser")
        (task_id,) = emit(hub)
        assert attempt(hub, task_id) == "parked"
        released(hub, task_id, "integration-hub[soap]")


def failed(hub: Hub, task_id: int) -> dict[str, Any]:
    """The attempt counts, but made no try."""
    assert attempt(hub, task_id) == "failed"
    row = task(hub, task_id)
    assert row["attempts"] == 1
    (delivery,) = hub.views.deliveries.list(task=task_id)
    assert delivery["tries"] == 0 and "may have got it" not in delivery["error"]
    assert breaker(hub) == ("closed", 0)
    return delivery


def test_an_endpoint_that_leads_out_counts_as_an_attempt_without_a_try(hub: Hub, target: HttpTarget) -> None:
    add_service(hub, target.url)
    add_rule(hub, endpoint="/{{where}}/x")
    (task_id,) = emit(hub, data={"where": ".."})
    tries = _Tries(hub)
    failed(hub, task_id)
    assert not target.seen and tries.seen == []


def test_a_refused_address_counts_as_an_attempt_without_a_try(hub: Hub) -> None:
    add_service(hub, "http://169.254.169.254/latest")
    add_rule(hub)
    tries = _Tries(hub)
    (task_id,) = emit(hub)
    failed(hub, task_id)
    assert tries.seen == []


def test_a_payload_that_does_not_fit_the_operation_counts_as_an_attempt_without_a_try(hub: Hub) -> None:
    with WebServer() as server:
        add_service(hub, f"{server.url}/wsdl", type="soap")
        add_rule(hub, endpoint="CreateUser", payload={"nope": 1})
        (task_id,) = emit(hub)
        tries = _Tries(hub)
        assert "does not match" in failed(hub, task_id)["error"]
        assert tries.seen == []


class _Tries:
    """What the metric of network tries would count."""

    def __init__(self, hub: Hub) -> None:
        self.seen: list[tuple[str, str]] = []
        hub.hooks.try_finished = lambda service, outcome: self.seen.append((service, outcome))  # type: ignore[method-assign]


def test_an_open_circuit_uses_up_no_slots_of_the_rate_limit(hub: Hub, target: HttpTarget) -> None:
    target.default = 500
    add_service(hub, target.url, rate_limit=5, max_retries=1, cb_failure_threshold=1, cb_cooldown=600)
    add_rule(hub)
    (first,) = emit(hub)
    assert attempt(hub, first) == "failed" and breaker(hub)[0] == "open"
    before = hub.db.one("SELECT next_slot FROM service_flow")
    for number in range(3):
        (task_id,) = emit(hub, data={"n": 10 + number})
        assert attempt(hub, task_id) == "parked"
    assert hub.db.one("SELECT next_slot FROM service_flow") == before and len(target.seen) == 1


def test_a_probe_over_the_rate_limit_frees_the_probe(hub: Hub, target: HttpTarget) -> None:
    target.default = 500
    service = add_service(hub, target.url, rate_limit=5, max_retries=1, cb_failure_threshold=1, cb_cooldown=0.01)
    add_rule(hub)
    (task_id,) = emit(hub)
    assert attempt(hub, task_id) == "failed"
    target.default = 204
    hub.db.run("UPDATE service_flow SET next_slot = clock_timestamp() + interval '1 hour'")
    due_now(hub)
    assert attempt(hub, task_id) == "parked" and len(target.seen) == 1
    hub.db.run("UPDATE service_flow SET next_slot = clock_timestamp() - interval '1 hour'")
    due_now(hub)
    assert attempt(hub, task_id) == "delivered"
    assert service.cb_cooldown == 0.01


def test_a_rate_limit_admits_a_burst_of_one_second_and_the_rate_after_it(hub: Hub) -> None:
    """So at most 2 x rate - 1 in any one second, as documented."""
    service = add_service(hub, "http://127.0.0.1:9", rate_limit=5)
    hub.db.run("UPDATE service_flow SET next_slot = clock_timestamp() - interval '1 hour'")
    limits, begun, admitted, refused = RateLimits(hub.db), database_time(hub), 0, 0
    for _ in range(40):
        try:
            limits.acquire(service)
        except RateLimitedError as e:
            refused += 1
            assert e.retry_after is not None and 0 < e.retry_after <= 1
            hub.db.run("UPDATE service_flow SET next_slot = next_slot - interval '0.2 s'")  # as if 1 / rate had passed
            limits.acquire(service)
        else:
            admitted += 1
    assert 5 <= admitted <= 5 + 5 * (database_time(hub) - begun) and admitted + refused == 40


def database_time(hub: Hub) -> float:
    row = hub.db.one("SELECT extract(epoch FROM clock_timestamp())::float8 AS now")
    assert row
    return float(row["now"])


def test_a_publish_without_descriptors_is_an_internal_error(broker_url: str) -> None:
    transport = AmqpTransport(Settings())
    service = Service(1, "broker", ServiceType.AMQP, f"{broker_url}?routing_key=nowhere")
    with no_descriptors(), pytest.raises(NotSentError, match="no more connections"):
        transport.send(service, Request(body="{}"), Deadline(10))
    transport.close()
