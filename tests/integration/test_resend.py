"""Resend: a new task of the same event and rule, its origin recorded; payload and endpoint replaced for one sending."""

from __future__ import annotations

from typing import Any

import pytest

from hub.app.lifecycle import Hub
from hub.errors import ConflictError, NotFoundError, PayloadError
from hub.models import Event
from hub.operations.resend import Matching, resend, resend_event, resend_matching, would_resend
from hub.store.audit import Actor, acting
from tests.support.api import Api, problem
from tests.support.http_target import HttpTarget
from tests.support.hubs import add_rule, add_service, attempt, count, counts_are_exact, emit, emit_many, task

ANN = Actor("ann", "user", "192.0.2.7")


def delivery(hub: Hub, task_id: int) -> int:
    """The latest attempt of a task."""
    return int(hub.views.deliveries.list(task=task_id)[0]["id"])


@pytest.fixture
def sent(hub: Hub, target: HttpTarget) -> list[int]:
    """Five delivered tasks of the rule `r1`, which masks `secret`."""
    add_service(hub, target.url, mask=["secret"])
    add_rule(hub, payload={"n": "{{n}}", "secret": "{{n}}-{{n}}-hidden"})
    tasks = emit_many(hub, 5)
    assert {attempt(hub, task_id) for task_id in tasks} == {"delivered"}
    return tasks


def test_a_delivered_delivery_is_sent_again_with_a_key_of_its_own(
    hub: Hub, sent: list[int], target: HttpTarget
) -> None:
    first = target.at("/x")[2]
    with acting(ANN):
        (new,) = resend(hub, [delivery(hub, sent[2])]).tasks
    assert new not in sent and task(hub, new)["bulk"] is False
    assert attempt(hub, new) == "delivered"
    again = target.at("/x")[-1]
    assert again.json() == first.json()
    assert again.headers["idempotency-key"] != first.headers["idempotency-key"]
    origin = hub.views.origins.get(new)
    assert origin is not None
    assert (origin["kind"], origin["delivery_id"], origin["actor"]) == ("resend", delivery(hub, sent[2]), "ann")
    (entry,) = hub.audit.list(action="delivery.resend")
    assert (entry.actor, entry.subject_id, entry.after) == ("ann", delivery(hub, sent[2]), {"tasks": [new]})
    assert hub.views.origins.get(sent[2]) is None, "an event made that one"


def test_what_was_edited_is_sent_once_and_kept_masked(hub: Hub, sent: list[int], target: HttpTarget) -> None:
    edited = {"n": 7, "secret": "a new secret"}
    (new,) = resend(hub, [delivery(hub, sent[0])], payload=edited, endpoint="/other?a=b").tasks
    assert attempt(hub, new) == "delivered"
    (seen,) = target.at("/other")
    assert seen.json() == edited and seen.query == "a=b"
    origin = hub.views.origins.get(new)
    assert origin is not None and origin["endpoint"] == "/other?a=b"
    assert origin["payload"] == '{"n":7,"secret":"***"}'
    assert "a new secret" not in str(hub.views.deliveries.list(task=new))
    (entry,) = hub.audit.list(action="delivery.resend")
    assert entry.after == {"tasks": [new], "edited": ["payload", "endpoint"]}
    (after,) = resend(hub, [delivery(hub, sent[0])]).tasks
    attempt(hub, after)
    assert target.at("/x")[-1].json() == {"n": 0, "secret": "0-0-hidden"}, "the original is as it was"


def test_an_edited_payload_survives_death_and_replay(hub: Hub, sent: list[int], target: HttpTarget) -> None:
    """The person corrected it once; a service that was away meanwhile must not undo that."""
    (new,) = resend(hub, [delivery(hub, sent[0])], payload={"n": "right"}, endpoint="/other").tasks
    hub.db.run("UPDATE tasks SET state = 'pending', expires_at = now() - interval '1 s'")
    hub.outbox.expire()
    (letter,) = hub.views.dead_letters.list()
    assert letter["task_id"] == new
    (again,) = hub.dead_letters.replay([letter["id"]]).tasks
    assert attempt(hub, again) == "delivered"
    assert [seen.json() for seen in target.at("/other")] == [{"n": "right"}]
    origin = hub.views.origins.get(again)
    assert origin is not None and (origin["kind"], origin["dead_letter_id"]) == ("replay", letter["id"])


def test_an_edited_payload_is_sent_even_when_the_template_fails(hub: Hub, target: HttpTarget) -> None:
    """To correct one event is what an edit is for."""
    add_service(hub, target.url)
    add_rule(hub, payload={"n": "{{missing}}"}, strict=True)
    (broken,) = emit(hub)
    assert attempt(hub, broken) == "failed"
    hub.admin.cancel([broken], who="test")
    (new,) = resend(hub, [delivery(hub, broken)], payload=[1]).tasks
    assert attempt(hub, new) == "delivered" and target.at("/x")[0].json() == [1]


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        ({"payload": {"secret": "***"}}, r"stands for a masked value"),
        ({"payload": {"a": ["x *** y"]}}, r"stands for a masked value"),
        ({"endpoint": "/x/***"}, r"stands for a masked value"),
        ({"endpoint": "/x/{{n}}"}, r"placeholders are not filled in"),
        ({"endpoint": "http://elsewhere.example.org/"}, r"another origin"),
        ({"endpoint": "/../x"}, r"path segment"),
        ({"endpoint": "/x\n"}, r"printable"),
    ],
)
def test_an_edit_that_cannot_be_sent_is_refused(hub: Hub, sent: list[int], edit: dict[str, Any], says: str) -> None:
    with pytest.raises(PayloadError, match=says):
        resend(hub, [delivery(hub, sent[0])], **edit)
    assert count(hub, "tasks") == 0


def test_what_cannot_be_sent_again_says_why(hub: Hub, sent: list[int], target: HttpTarget) -> None:
    with pytest.raises(NotFoundError, match="no delivery 999"):
        resend(hub, [999])
    hub.db.run("DELETE FROM events WHERE id = (SELECT event_id FROM deliveries WHERE task_id = %s)", [sent[1]])
    with pytest.raises(ConflictError, match="no longer stored"):
        resend(hub, [delivery(hub, sent[0]), delivery(hub, sent[1])])
    target.on("/x", 500)
    (live,) = emit(hub, data={"n": "live"})
    assert attempt(hub, live) == "failed"
    with pytest.raises(ConflictError, match=f"hub tasks run --id {live}"):
        resend(hub, [delivery(hub, live)])
    hub.registry.rules.delete("r1")
    with pytest.raises(ConflictError, match="rule or service was deleted"):
        resend(hub, [delivery(hub, sent[0])])
    assert count(hub, "tasks") == 1, "all or none"


def test_all_that_match_are_counted_and_each_event_and_rule_is_sent_once(
    hub: Hub, sent: list[int], target: HttpTarget
) -> None:
    target.on("/x", 500)
    (twice,) = emit(hub, data={"n": "twice"})
    assert [attempt(hub, twice), hub.admin.retry([twice]), attempt(hub, twice)][::2] == ["failed", "failed"]
    assert would_resend(hub, Matching(failed=True)).skipped == {"live": 1}
    hub.admin.cancel([twice], who="test")
    would = would_resend(hub, Matching(failed=True))
    assert would.count == 1
    everything = would_resend(hub, Matching(service="crm"))
    assert everything.count == 6
    with acting(ANN):
        done = resend_matching(hub, Matching(service="crm", up_to=everything.up_to))
    assert done.count == 6 and counts_are_exact(hub)
    assert all(row["bulk"] for row in hub.db.all("SELECT bulk FROM tasks")), "they wait behind live events"
    assert [entry.actor for entry in hub.audit.list(action="delivery.resend")] == ["ann"]
    with pytest.raises(NotFoundError, match="no service named 'nobody'"):
        would_resend(hub, Matching(service="nobody"))


def test_an_event_is_sent_to_the_rules_that_match_it(hub: Hub, sent: list[int], target: HttpTarget) -> None:
    add_rule(hub, "r2", endpoint="/second")
    add_rule(hub, "off", endpoint="/off", enabled=False)
    add_rule(hub, "other", event="another")
    uid = hub.intake.handle_event(Event("e", {"n": "it"}, "own/key")).id
    before = count(hub, "tasks")
    assert len(resend_event(hub, uid).tasks) == 2
    (one,) = resend_event(hub, uid, ["off"], payload={"by": "hand"}).tasks
    assert count(hub, "tasks") == before + 3
    with pytest.raises(ConflictError, match="rule 'other' does not match"):
        resend_event(hub, uid, ["other"])
    with pytest.raises(PayloadError, match="one rule at a time"):
        resend_event(hub, uid, payload={})
    with pytest.raises(NotFoundError, match="no event, task or dead letter"):
        resend_event(hub, "nothing")
    entries = hub.audit.list(action="event.resend")
    assert [entry.subject_name for entry in entries] == ["own/key"] * 2
    assert entries[0].after == {"rules": ["off"], "tasks": [one], "edited": ["payload"]}


def test_the_api_sends_again(api: Api, target: HttpTarget) -> None:
    hub = api.hub
    add_service(hub, target.url)
    add_rule(hub)
    (first,) = emit(hub)
    attempt(hub, first)
    manage, view = api.client(), api.client("view")
    url = f"/api/v1/deliveries/{delivery(hub, first)}/resend"
    response = manage.post(url)
    assert response.status_code == 202 and response.json()["resent"] == 1
    (new,) = response.json()["tasks"]
    assert manage.get(f"/api/v1/tasks/{new}").json()["origin"]["kind"] == "resend"
    assert manage.post(url, json={"payload": None}).status_code == 202, "null is a payload"
    problem(view.post(url), 403)
    problem(manage.post(url, json={"payload": {"a": "***"}}), 422, "payload")
    problem(manage.post("/api/v1/deliveries/resend", json={}), 422)
    problem(manage.post("/api/v1/deliveries/999/resend"), 404)
    counted = manage.post("/api/v1/deliveries/resend", json={"service": "crm", "dry_run": True}).json()
    assert (counted["resent"], counted["dry_run"]) == (1, True)
    sent = manage.post("/api/v1/deliveries/resend", json={"service": "crm", "up_to": counted["up_to"]}).json()
    assert sent["resent"] == 1
    uid = hub.intake.handle_event(Event("e", {"n": 2}, "a/b")).id
    assert manage.post(f"/api/v1/events/{uid}/resend", json={"rules": ["r1"]}).json()["resent"] == 1
    assert {entry.actor_kind for entry in hub.audit.list(action="event.resend")} == {"token"}
