"""Erasing one person's data: found wherever it is, counted, blanked with what belongs to it, never sent again."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from hub.app.lifecycle import Hub
from hub.cli.app import app
from hub.errors import ConflictError, PayloadError
from hub.models import Delivery, Direction, Event
from hub.operations import backfill, erase
from hub.operations.erase import parse_where
from hub.operations.resend import resend, resend_event
from hub.settings import Settings
from hub.store.audit import Actor, acting
from tests.integration.test_backfill import SINCE, soon
from tests.support.http_target import HttpTarget, Reply
from tests.support.hubs import add_rule, add_service, attempt, count, counts_are_exact, emit
from tests.support.workers import environment

ANN = Actor("ann", "cli", "host")
PERSON = {"userid": 4711, "other": {"email": "anna.b@example.org"}}
MARKS = ("4711", "anna.b")


def everywhere(hub: Hub) -> str:
    """All rows of the tables that may hold a person's data, as one text."""
    tables = ("events", "deliveries", "dead_letters", "tasks", "task_origins", "event_names", "audit_log", "backfills")
    return "\n".join(str(row) for table in tables for row in hub.db.all(f"SELECT to_jsonb(t) AS row FROM {table} t"))


def find(hub: Hub, *where: str) -> erase.Found:
    return erase.find(hub, [parse_where(text) for text in where])


@pytest.fixture
def service(hub: Hub, target: HttpTarget) -> None:
    target.default = lambda seen: Reply(200, body=seen.body)  # it echoes what it got
    add_service(hub, target.url)
    add_rule(hub, endpoint="/users/{{userid}}")


def test_what_is_said_of_one_person_goes_and_the_others_stay(hub: Hub, service: None, target: HttpTarget) -> None:
    """Delivered, dead, resent with an edit, answered by a response, known to no rule."""
    (delivered,) = emit(hub, data=PERSON)
    assert attempt(hub, delivered) == "delivered"
    emit(hub, data=PERSON | {"n": 2})
    hub.db.run("UPDATE tasks SET state = 'pending', expires_at = now() - interval '1 s'")
    hub.outbox.expire()
    (edited,) = resend(hub, [hub.views.deliveries.list(task=delivered)[0]["id"]], payload={"mail": "anna.b"}).tasks
    attempt(hub, edited)
    emit(hub, "unwanted", {"relateduserid": "4711"})
    answer = {"service": "crm", "task_id": delivered, "payload": {"greeting": "anna.b"}}
    hub.intake.handle_event(Event("hub.response_received", answer, cause_task=delivered))
    inbound = Delivery(Direction.INBOUND, None, "bus", True, response_body='{"userid": 4711}')
    hub.log.add([inbound])
    (other,) = emit(hub, data={"userid": 47110, "other": {"email": "bob@example.org"}})
    attempt(hub, other)
    assert all(mark in everywhere(hub) for mark in MARKS)

    wanted = [parse_where("userid:4711"), parse_where("relateduserid:4711")]
    found = erase.find(hub, wanted)
    counted = erase.count(hub, found)
    assert (counted.events, counted.deliveries, counted.dead_letters, counted.tasks) == (4, 3, 1, 0)
    assert everywhere(hub) == everywhere(hub) and count(hub, "dead_letters") == 1, "counting changes nothing"
    with acting(ANN):
        done = erase.erase(hub, wanted, found)
    assert (done.events, done.deliveries, done.dead_letters) == (4, 3, 1)
    left = everywhere(hub).replace("47110", "")
    assert not [mark for mark in MARKS if mark in left], left
    assert hub.views.deliveries.list(task=other)[0]["request_body"] is not None, "another person's is as it was"
    assert [(d["success"], d["request_body"]) for d in hub.views.deliveries.list(task=delivered)] == [(True, None)]
    assert count(hub, "cancellations") == 1, "a dead letter that goes leaves a row"
    assert hub.db.all("SELECT 1 AS x FROM events WHERE erased_at IS NOT NULL AND search_keys IS NOT NULL") == []
    (entry,) = hub.audit.list(action="data.erase")
    assert entry.actor == "ann" and entry.after is not None
    assert entry.after["where"] == ["userid:***", "relateduserid:***"] and entry.after["events"] == 4
    assert find(hub, "userid:4711").events == [], "a second run finds nothing"


def test_what_was_erased_is_never_sent_again(hub: Hub, service: None) -> None:
    (task_id,) = emit(hub, data=PERSON)
    attempt(hub, task_id)
    emit(hub, "seen", PERSON)
    uid = hub.db.all("SELECT uid FROM events ORDER BY id LIMIT 1")[0]["uid"]
    delivery = hub.views.deliveries.list(task=task_id)[0]["id"]
    erase.erase(hub, [parse_where("other.email:anna.b@example.org")], find(hub, "other.email:anna.b@example.org"))
    with pytest.raises(ConflictError, match="data of its event was erased"):
        resend(hub, [delivery])
    with pytest.raises(ConflictError, match="its data was erased"):
        resend_event(hub, uid)
    rule = add_rule(hub, "late", "seen")
    assert backfill.count(hub, rule, SINCE, soon()).matched == 0


def test_live_tasks_are_a_reason_to_refuse(hub: Hub, service: None) -> None:
    """They need the data: a person decides whether they go, too."""
    (live,) = emit(hub, data=PERSON)
    (running,) = emit(hub, data=PERSON | {"n": 2})
    claim = hub.ledger.claim(running)
    assert claim is not None
    wanted, found = [parse_where("userid:4711")], find(hub, "userid:4711")
    with pytest.raises(ConflictError, match=r"2 task\(s\) of these events are live"):
        erase.erase(hub, wanted, found)
    assert count(hub, "tasks") == 2 and MARKS[0] in everywhere(hub)
    done = erase.erase(hub, wanted, found, include_live=True)
    assert (done.events, done.tasks, done.running) == (1, 1, 1), "what a worker runs stays until it has ended"
    assert count(hub, "cancellations") == 1 and counts_are_exact(hub)
    hub.ledger.release(claim)
    again = erase.erase(hub, wanted, find(hub, "userid:4711"), include_live=True)
    assert (again.events, again.tasks, again.running) == (1, 1, 0) and live != running
    assert count(hub, "tasks") == 0


@pytest.mark.parametrize(
    ("data", "where"),
    [
        ({"userid": "42"}, "userid:42"),
        ({"a": {"b": ["x", 42]}}, "a.b:42"),
        ({"other": '{"user": "Zoë"}'}, "other.user:Zoë"),
        ({"name": "Мария"}, "name:Мария"),
        ({"name": 'say "hi"'}, 'name:"say "hi""'),
        ({"url": "https://x/y:z"}, "url:https://x/y:z"),
    ],
)
def test_values_are_found_however_they_are_written(hub: Hub, data: Any, where: str) -> None:
    emit(hub, "any", data)
    emit(hub, "any", {"userid": "421", "name": "Мари"})
    assert len(find(hub, where).events) == 1


@pytest.mark.parametrize("text", ["userid", "userid:", ":42", "a..b:1", ""])
def test_a_condition_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(PayloadError):
        parse_where(text)


def test_the_command(hub: Hub, service: None, monkeypatch: pytest.MonkeyPatch, alone: Settings) -> None:
    for name, value in environment(alone).items():
        if name.startswith("HUB_"):
            monkeypatch.setenv(name, value)
    (task_id,) = emit(hub, data=PERSON)

    def command(*args: str) -> Any:
        return CliRunner().invoke(app, ["erase", "--where", "userid:4711", *args])

    dry = json.loads(command("--dry-run", "--json").stdout)
    assert dry == {
        "where": ["userid:***"],
        "dry_run": True,
        "events": 1,
        "deliveries": 0,
        "dead_letters": 0,
        "tasks": 1,
        "samples": 1,
        "running": 0,
    }
    assert isinstance(command("--yes").exception, ConflictError)
    assert command("--include-live").exit_code == 2, "without a terminal it wants --yes"
    assert attempt(hub, task_id) == "delivered"
    result = command("--yes", "--json")
    assert result.exit_code == 0 and json.loads(result.stdout)["events"] == 1
    assert not [mark for mark in MARKS if mark in everywhere(hub)]
    assert hub.audit.list(action="data.erase")[0].actor_kind == "cli"
