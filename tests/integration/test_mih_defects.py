"""The defects of the hub's predecessor (MIH for Moodle), one test each.

Two more are tested in test_amqp_transport.py (`%40` in a password) and test_responses.py (a JSON scalar).
"""

from __future__ import annotations

import threading

import pytest

from hub.app.lifecycle import Hub
from hub.errors import CircuitOpenError, DeliveryError
from hub.models import Event, Request
from tests.support.http_target import HttpTarget, Reply
from tests.support.hubs import USER_LOGGED_IN, add_rule, add_service, attempt, count, due_now, emit, task


def test_the_retry_policy_retries(hub: Hub, target: HttpTarget) -> None:
    answers = iter([503, 503, 204])
    target.default = lambda _: next(answers)
    add_service(hub, target.url, max_retries=3)
    add_rule(hub)
    assert attempt(hub, emit(hub)[0]) == "delivered" and len(target.seen) == 3


def test_an_open_circuit_burns_no_attempts(hub: Hub, target: HttpTarget) -> None:
    add_service(hub, target.url)
    add_rule(hub)
    (task_id,) = emit(hub)
    hub.db.run("UPDATE breakers SET state = 'open', retry_at = now() + interval '1 min'")
    for _ in range(6):
        attempt(hub, task_id)
        due_now(hub)
    assert task(hub, task_id)["attempts"] == 0 and count(hub, "dead_letters") == 0


def test_half_open_lets_one_through(hub: Hub, target: HttpTarget) -> None:
    service = add_service(hub, target.url)
    hub.db.run("UPDATE breakers SET state = 'open', retry_at = now()")
    assert hub.breakers.admit(service, probe_lease=30).probe
    for _ in range(5):
        with pytest.raises(CircuitOpenError):
            hub.breakers.admit(service, probe_lease=30)


def test_failures_at_the_same_moment_are_all_counted(hub: Hub, target: HttpTarget) -> None:
    """MIH read, added one, and wrote."""
    target.default = 500
    service = add_service(hub, target.url, cb_failure_threshold=100)
    barrier = threading.Barrier(16)

    def fail() -> None:
        barrier.wait(120)
        with pytest.raises(DeliveryError):
            hub.gateway.execute_request(service, Request(body="{}"))

    threads = [threading.Thread(target=fail) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert hub.db.one("SELECT failures FROM breakers") == {"failures": 16}


def test_a_service_that_says_no_is_alive(hub: Hub, target: HttpTarget) -> None:
    target.default = 404
    service = add_service(hub, target.url)
    for _ in range(10):
        with pytest.raises(DeliveryError):
            hub.gateway.execute_request(service, Request(body="{}"))
    assert hub.db.one("SELECT state, failures FROM breakers") == {"state": "closed", "failures": 0}


def test_an_invalid_template_is_counted_and_dead_lettered_with_the_real_error(hub: Hub, target: HttpTarget) -> None:
    add_service(hub, target.url, max_attempts=2)
    add_rule(hub, payload={"id": "{{gone.for.good}}"}, strict=True)
    (task_id,) = emit(hub)
    for _ in range(2):
        attempt(hub, task_id)
        due_now(hub)
    assert "gone.for.good" in hub.views.dead_letters.list()[0]["error"] and target.seen == []


def test_a_dead_letter_has_the_error_and_the_answer_of_the_service(hub: Hub, target: HttpTarget) -> None:
    """And so has the log: MIH threw the body of a failure away."""
    target.default = Reply(422, {"email": "is taken"})
    add_service(hub, target.url, max_attempts=1)
    add_rule(hub)
    attempt(hub, emit(hub)[0])
    letter = hub.views.dead_letters.get(hub.views.dead_letters.list()[0]["id"])
    assert "422" in letter["error"] and "is taken" in letter["response_body"]
    assert "is taken" in hub.views.deliveries.list()[0]["response_body"]


def test_events_of_a_disabled_rule_are_not_lost(hub: Hub, target: HttpTarget) -> None:
    add_service(hub, target.url)
    add_rule(hub, enabled=False)
    (task_id,) = emit(hub)
    hub.registry.rules.enable("r1", True)
    assert attempt(hub, task_id) == "delivered"


def test_null_and_nested_fields_are_substituted(hub: Hub, target: HttpTarget) -> None:
    add_service(hub, target.url)
    add_rule(hub, event="*", payload='{"id": {{userid}}, "who": "{{other.username}}", "none": "{{relateduserid}}"}')
    attempt(hub, hub.intake.handle_event(Event("\\core\\event\\user_loggedin", USER_LOGGED_IN)).tasks[0])
    assert target.seen[0].json() == {"id": 5, "who": "student1", "none": None}


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"])
def test_every_method_is_sent_as_what_it_is_with_its_body(hub: Hub, target: HttpTarget, method: str) -> None:
    """MIH sent PATCH as GET and broke the bodies of PUT and DELETE."""
    add_service(hub, target.url)
    add_rule(hub, method=method)
    assert attempt(hub, emit(hub)[0]) == "delivered"
    (seen,) = target.seen
    assert seen.method == method and seen.body == (b"" if method in ("GET", "HEAD") else b'{"n":1}')
    if seen.body:
        assert seen.headers["content-type"] == "application/json"


def test_a_message_that_no_queue_takes_is_no_success(hub: Hub, broker_url: str) -> None:
    """It counts as an attempt, and says nothing against the broker."""
    add_service(hub, f"{broker_url}?routing_key=nobody", type="amqp", max_attempts=1)
    add_rule(hub, endpoint="")
    assert attempt(hub, emit(hub)[0]) == "failed"
    assert count(hub, "dead_letters") == 1 and hub.views.deliveries.list()[0]["outcome"] == "unroutable"
    assert hub.db.one("SELECT failures FROM breakers") == {"failures": 0}


def test_dedupe_drops_no_real_repeats(hub: Hub) -> None:
    """Two users who log in in the same second, one user who logs in twice."""
    add_service(hub, "http://127.0.0.1:9")
    add_rule(hub)
    for changed in ({}, {"userid": 6}, {"timecreated": 1708258940}, {"other": {"username": "student2"}}):
        assert len(emit(hub, data=USER_LOGGED_IN | changed)) == 1
    assert emit(hub, data=dict(USER_LOGGED_IN)) == []


def test_secrets_are_nowhere_in_plain_text(hub: Hub, target: HttpTarget) -> None:
    """Neither in the database, nor in what people are shown, nor in the log of a service that echoes them."""
    token = "tok-4f9d0c1e8b7a"
    target.default = Reply(500, {"you sent": f"Bearer {token}"})
    add_service(hub, target.url, auth={"type": "bearer", "token": token}, max_attempts=1)
    add_rule(hub)
    attempt(hub, emit(hub)[0])
    assert target.seen[0].headers["authorization"] == f"Bearer {token}"
    for name in ("services", "rules", "events", "tasks", "deliveries", "dead_letters", "breakers", "event_names"):
        rows = hub.db.all(f"SELECT t::text AS row FROM {name} t")
        assert all(token not in row["row"] for row in rows), name
        assert rows or name == "tasks"
    assert token not in repr(hub.configuration.service("crm"))
