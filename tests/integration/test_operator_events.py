"""Operator events: recorded with what they report, one message for many, and no loops."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from cryptography.fernet import Fernet

from hub.app.lifecycle import Hub
from hub.config.yaml_file import parse
from hub.domain.operator_events import SCHEMAS
from hub.errors import UnavailableError
from hub.operations import apply
from hub.store.responses import Responses
from tests.support.http_target import HttpTarget
from tests.support.hubs import add_rule, add_service, attempt, emit, emit_many, enqueued
from tests.support.mail_server import MailServer

EXAMPLE = Path(__file__).parents[2] / "docs" / "how-to" / "be-told.yaml"


def events(hub: Hub, name: str) -> list[dict[str, Any]]:
    """The data of the operator events of that name, each valid by its schema."""
    found = [
        json.loads(row["data"]) for row in hub.db.all("SELECT data FROM events WHERE name = %s ORDER BY id", [name])
    ]
    for data in found:
        jsonschema.validate(data, SCHEMAS[name], format_checker=jsonschema.FormatChecker())
    return found


def die(hub: Hub, task_ids: list[int]) -> None:
    """Let tasks fail for the last time."""
    hub.db.run("UPDATE tasks SET attempts = 4 WHERE id = ANY(%s)", [task_ids])
    for task_id in task_ids:
        assert attempt(hub, task_id) == "failed"


def window_over(hub: Hub) -> None:
    hub.db.run("UPDATE notice_windows SET until = now()")


@pytest.fixture
def broken(hub: Hub, target: HttpTarget) -> Iterator[Hub]:
    """A hub whose service refuses everything."""
    add_service(hub, target.url, cb_failure_threshold=0)
    add_rule(hub)
    target.on("/x", 500)
    yield hub


def test_many_dead_letters_make_one_event_and_then_a_digest(broken: Hub) -> None:
    die(broken, emit_many(broken, 3))
    assert broken.operator_events.step() == 1
    [first] = events(broken, "hub.task_dead")
    assert (first["service"], first["rule"], first["count"], first["reason"]) == ("crm", "r1", 3, "attempts")
    die(broken, emit_many(broken, 2, start=10))
    die(broken, emit_many(broken, 2, start=20))
    assert broken.operator_events.step() == 0, "within the window"
    window_over(broken)
    assert broken.operator_events.step() == 1
    assert len(events(broken, "hub.task_dead")) == 1
    assert [data["count"] for data in events(broken, "hub.dead_letters_digest")] == [4]
    window_over(broken)
    assert broken.operator_events.step() == 0
    die(broken, emit(broken, data={"n": 99}))
    broken.operator_events.step()
    assert [data["count"] for data in events(broken, "hub.task_dead")] == [3, 1], "a quiet window ends the digest"


def test_ten_thousand_expired_tasks_are_one_event(broken: Hub) -> None:
    emit_many(broken, 1)
    broken.db.run(
        "INSERT INTO tasks (event_id, rule_id, service_id, state, expires_at)"
        " SELECT event_id, rule_id, service_id, 'pending', now() - interval '1 s' FROM tasks, generate_series(1, 10000)"
    )
    while broken.outbox.expire():
        pass
    broken.operator_events.step()
    assert [data["count"] for data in events(broken, "hub.task_dead")] == [10_000]


def test_notices_that_wait_are_kept_few(broken: Hub) -> None:
    broken.db.run(
        "INSERT INTO notices (kind, subject, data) SELECT 'hub.consumer_failed', 'crm',"
        " jsonb_build_object('service', 'crm', 'error', i::text) FROM generate_series(1, 5000) i"
    )
    broken.db.run("INSERT INTO notice_windows VALUES ('hub.consumer_failed', 'crm', now() + interval '1 h')")
    assert broken.operator_events.step() == 0
    assert len(broken.db.all("SELECT 1 FROM notices")) == 1
    window_over(broken)
    broken.operator_events.step()
    [data] = events(broken, "hub.consumer_failed")
    assert (data["count"], data["error"]) == (5000, "5000")


def test_an_event_is_written_once_or_not_at_all(broken: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A notice leaves in the transaction that writes its event."""
    die(broken, emit_many(broken, 1))
    with monkeypatch.context() as patched:

        def away(*_: object) -> None:
            raise UnavailableError("the database does not respond")

        patched.setattr(broken.intake, "write", away)
        assert broken.operator_events.step() == 0
    assert broken.notices.waiting() and events(broken, "hub.task_dead") == []
    assert broken.operator_events.step() == 1 and not broken.notices.waiting()
    assert len(events(broken, "hub.task_dead")) == 1


def test_a_failing_notification_makes_no_notification(broken: Hub, target: HttpTarget) -> None:
    add_service(broken, target.url, "pager", cb_failure_threshold=1)
    add_rule(broken, "tell", "hub.*", "pager")
    die(broken, emit_many(broken, 1))
    broken.operator_events.step()
    [told] = broken.db.all("SELECT t.id FROM tasks t JOIN services s ON s.id = t.service_id WHERE s.name = 'pager'")
    die(broken, [told["id"]])
    assert len(broken.views.dead_letters.list()) == 2 and broken.views.overview.breaker("pager")["state"] == "open"
    assert not broken.notices.waiting(), "neither its dead letter nor its circuit is reported"


def test_an_event_about_a_service_is_not_sent_to_it_and_a_star_rule_gets_none(broken: Hub) -> None:
    add_rule(broken, "own", "hub.*")
    add_rule(broken, "star", "*")
    die(broken, emit_many(broken, 1)[:1])
    broken.operator_events.step()
    names = {row["event"] for row in broken.views.tasks.list()}
    assert events(broken, "hub.task_dead") and "hub.task_dead" not in names


def test_a_circuit_reports_that_it_opened_and_closed(hub: Hub, target: HttpTarget) -> None:
    service = add_service(hub, target.url, cb_failure_threshold=1, cb_cooldown=30)
    add_rule(hub)
    target.on("/x", 500)
    attempt(hub, emit(hub)[0])
    hub.operator_events.step()
    [opened] = events(hub, "hub.circuit_opened")
    assert (opened["service"], opened["circuit"], opened["failures"]) == ("crm", "dispatch", 1) and opened["retry_at"]
    hub.breakers.reset(service)
    hub.operator_events.step()
    [closed] = events(hub, "hub.circuit_closed")
    assert closed["retry_at"] is None and len(events(hub, "hub.circuit_opened")) == 1


def test_a_failed_consumption_and_unreadable_secrets_are_reported(hub: Hub, target: HttpTarget) -> None:
    service = add_service(hub, target.url, auth={"type": "bearer", "token": "canary-secret"})
    Responses(hub.db).failed(service.id, "the queue is gone")
    Responses(hub.db).succeeded(service.id)
    other = Fernet(Fernet.generate_key()).encrypt(b"{}")
    hub.db.run("UPDATE services SET secrets = %s", [other])
    hub.configuration.invalidate()
    for _ in range(2):
        hub.operator_events.step()
    assert [data["error"] for data in events(hub, "hub.consumer_failed")] == ["the queue is gone"]
    assert [data["service"] for data in events(hub, "hub.secrets_unreadable")] == ["crm"], "once in a window"
    hub.db.run("UPDATE services SET secrets = NULL")


def test_missing_workers_are_reported_while_tasks_wait(hub: Hub, target: HttpTarget) -> None:
    hub.operator_events.step()
    assert events(hub, "hub.no_workers") == [], "nothing waits"
    add_service(hub, target.url)
    add_rule(hub)
    emit(hub)
    hub.heartbeats.beat("worker")
    hub.operator_events.step()
    assert events(hub, "hub.no_workers") == []
    hub.db.run("UPDATE heartbeats SET at = now() - interval '2 minutes'")
    hub.operator_events.step()
    [data] = events(hub, "hub.no_workers")
    assert data["waiting"] == 1 and data["last_seen_at"]


def test_the_example_mails_the_administrator_and_writes_to_a_chat(broken: Hub, target: HttpTarget) -> None:
    """The file of the how-to guide, against a real mail server and a webhook."""
    with MailServer() as mail:
        url = f"smtp://127.0.0.1:{mail.port}?from=hub@example.org&to=admin@example.org&starttls=off"
        values = {"MAIL_URL": url, "CHAT_WEBHOOK": f"{target.url}/hook"}
        plan = apply.plan(parse(EXAMPLE.read_text(), values.get), broken.registry, broken.schedule)
        apply.execute(plan, broken.registry, broken.schedule)
        broken.registry.services.update("crm", {"cb_failure_threshold": 1})
        die(broken, emit_many(broken, 1))
        broken.operator_events.step()
        waiting = broken.db.all(
            "SELECT t.id FROM tasks t JOIN services s ON s.id = t.service_id WHERE s.name LIKE 'admin-%%'"
        )
        for row in enqueued(broken, [row["id"] for row in waiting]):
            assert attempt(broken, row) == "delivered"
        [message] = mail.messages
    assert message["Subject"] == "Hub: 1 dead letter(s) of crm" and message["To"] == "admin@example.org"
    assert "hub dlq show" in message.get_content()
    [chat] = [seen.json() for seen in target.seen if seen.path == "/hook"]
    assert chat == {"text": "hub.circuit_opened: crm (dispatch), 1 failures"}
