"""`import hub` in somebody's own program."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

import hub
from hub import api
from hub.app.lifecycle import build
from hub.config.definitions import ServiceSpec, parse_spec
from hub.errors import NotFoundError, PayloadError, RejectedError
from hub.settings import Settings
from tests.support.http_target import HttpTarget, Reply


@pytest.fixture
def target(settings: Settings, hub_env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpTarget]:
    for name, value in hub_env.items():
        if name.startswith("HUB_") and name != "HUB_BROKER_URL":
            monkeypatch.setenv(name, value)
    with HttpTarget() as server:
        with build(settings) as own:
            own.registry.services.add(
                parse_spec(ServiceSpec, {"name": "crm", "base_url": server.url, "max_retries": 2, "retry_backoff": 0})
            )
        yield server
        api.close()


def test_request_sends_now_and_is_logged(target: HttpTarget, settings: Settings) -> None:
    target.on("/users", Reply(201, {"id": 7}))
    delivery = hub.request("crm", "/users", {"name": "Zoë"}, method="PUT", headers={"X-Trace": "1"})
    assert (delivery.status, delivery.tries, delivery.success) == (201, 1, True)
    (seen,) = target.seen
    assert (seen.method, seen.json(), seen.headers["x-trace"]) == ("PUT", {"name": "Zoë"}, "1")
    with build(settings) as own:
        (row,) = own.views.deliveries.list()
    assert (row["service"], row["endpoint"], row["status"], row["task_id"]) == ("crm", "/users", 201, None)


def test_a_mask_hides_the_response_from_the_log_and_not_from_the_caller(target: HttpTarget, settings: Settings) -> None:
    target.on("/users", Reply(201, {"user": {"email": "a@example.org"}}))
    with build(settings) as own:
        own.registry.services.update("crm", {"mask": ["user.email"]})
    delivery = hub.request("crm", "/users", {"user": {"email": "b@example.org"}})
    assert "a@example.org" in str(delivery.response_body)
    with build(settings) as own:
        assert "example.org" not in str(own.db.all("SELECT request_body, response_body FROM deliveries"))


def test_request_raises_what_happened_after_its_tries(target: HttpTarget) -> None:
    target.on("/users", 503)
    with pytest.raises(RejectedError) as failed:
        hub.request("crm", "/users", {})
    assert (failed.value.status, failed.value.tries, len(target.seen)) == (503, 2, 2)
    with pytest.raises(NotFoundError):
        hub.request("nope")


def test_emit_returns_when_the_event_is_safe(target: HttpTarget) -> None:
    first = hub.emit("a", {"x": 1}, id="mine")
    assert first.id == "mine" and first.tasks == ()
    with pytest.raises(PayloadError):
        hub.emit("", {})


def test_importing_the_package_costs_nothing() -> None:
    """A program that only wants `hub.emit` somewhere must not pay for Dramatiq at start."""
    code = "import hub, sys; print(sorted({'dramatiq', 'psycopg', 'fastapi', 'pika'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_forked_child_makes_its_own_connections(target: HttpTarget) -> None:
    """Gunicorn and Celery fork after loading: parent and child must not talk over one socket."""
    code = """
import os, hub
from hub import api
hub.emit("a", {"who": "parent"})
child = os.fork()
if child == 0:
    hub.emit("a", {"who": "child"})
    api.close()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print(hub.emit("a", {"who": "parent again"}).duplicate)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.strip()) == (0, "False"), done.stderr


def test_all_tries_of_a_request_without_a_key_carry_the_same_one(target: HttpTarget, settings: Settings) -> None:
    """A receiver must be able to tell a second try from a second request."""
    with build(settings) as own:
        fields = {"name": "signed", "base_url": target.url, "max_retries": 3, "retry_backoff": 0}
        own.registry.services.add(parse_spec(ServiceSpec, fields | {"signing_secret": "whsec_" + "A" * 32}))
    target.on("/users", 503)
    for _ in range(2):
        with pytest.raises(RejectedError):
            hub.request("signed", "/users", {})
    assert len(target.seen) == 6
    for header in ("idempotency-key", "webhook-id"):
        keys = [seen.headers[header] for seen in target.seen]
        assert len(set(keys[:3])) == len(set(keys[3:])) == 1 and keys[0] != keys[3]


def test_a_log_row_that_cannot_be_written_does_not_undo_what_was_sent(target: HttpTarget, settings: Settings) -> None:
    target.on("/users", 204)
    target.on("/down", 503)
    hub.request("crm", "/users", {})
    with build(settings) as own:
        own.db.run("ALTER TABLE deliveries RENAME TO deliveries_gone")
    assert hub.request("crm", "/users", {}).status == 204
    with pytest.raises(RejectedError):
        hub.request("crm", "/down", {})
