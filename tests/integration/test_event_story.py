"""One event's whole story, over HTTP, and searches over HTTP."""

from __future__ import annotations

import uuid

import pytest

from hub.models import Event
from tests.support import clients
from tests.support.api import Api, problem
from tests.support.http_target import HttpTarget
from tests.support.hubs import USER_LOGGED_IN, add_rule, add_service, attempt, due_now, emit


@pytest.fixture
def client(api: Api) -> clients.Client:
    return api.client()


def test_an_event_tells_its_whole_story(api: Api, client: clients.Client) -> None:
    hub = api.hub
    hub.lease.start()
    with HttpTarget() as target:
        add_service(hub, target.url, inbound={"token": "canary-inbound"})
        add_service(hub, "http://127.0.0.1:9", name="lms", max_attempts=1)
        add_rule(hub, "hit")
        add_rule(hub, "dead", "e", "lms")
        add_rule(hub, "held")
        hub.registry.rules.enable("held", False)
        add_rule(hub, "course", conditions={"courseid": 10})
        add_rule(hub, "other", "x")
        tasks = emit(hub, data={"courseid": 12}, key="order-7")
        assert sorted(attempt(hub, task) for task in tasks) == ["delivered", "failed", "skipped"]
        [delivered] = [row["task_id"] for row in hub.views.deliveries.list(service="crm")]
        add_rule(hub, "late")
        answered = api.client(None).post(
            "/webhook/crm",
            headers={"Authorization": "Bearer canary-inbound", "X-Hub-Task": str(delivered)},
            json={"ok": 1},
        )
        assert answered.status_code == 202, answered.text
    story = client.get("/api/v1/events/order-7").json()
    assert (story["id"], story["data"], story["state"], story["matched"]) == ("order-7", {"courseid": 12}, "dead", 3)
    rules = {rule["rule"]: rule for rule in story["rules"]}
    assert {name: rule["matched"] for name, rule in rules.items()} == {
        "hit": True,
        "dead": True,
        "held": True,
        "late": True,
        "course": False,
        "other": False,
    }
    assert rules["course"]["reason"] == "courseid is 12, and must be 10"
    assert rules["other"]["reason"] == "the event's name is not x"
    assert rules["late"]["rule_is"] == "added" and rules["late"]["tasks"] == []
    assert rules["hit"]["rule_is"] == "unchanged" and len(rules["hit"]["tasks"]) == 1
    by_rule = {task["rule"]: task for task in story["tasks"]}
    assert {name: task["state"] for name, task in by_rule.items()} == {
        "hit": "delivered",
        "dead": "dead",
        "held": "held",
    }
    assert by_rule["held"]["waits_for"] == "rule held disabled" and by_rule["dead"]["dead_letter_id"]
    assert [d["success"] for d in story["deliveries"]].count(True) == 1 and len(story["dead_letters"]) == 1
    [response], [caused] = story["responses"], story["caused"]
    assert response["direction"] == "inbound" and caused["name"] == "hub.webhook_received"
    cause = client.get(f"/api/v1/events/event:{caused['number']}").json()["caused_by"]
    assert (cause["id"], cause["task_id"]) == ("order-7", delivered)
    for ident in (f"task:{delivered}", f"dead-letter:{by_rule['dead']['dead_letter_id']}"):
        assert client.get(f"/api/v1/events/{ident}").json()["id"] == "order-7"
    problem(client.get("/api/v1/events/none"), 404)


def test_a_replayed_and_a_cancelled_task_are_told(api: Api, client: clients.Client) -> None:
    hub = api.hub
    hub.lease.start()
    add_service(hub, "http://127.0.0.1:9", max_attempts=1)
    add_rule(hub)
    [first] = emit(hub, key="k/1")
    due_now(hub)
    assert attempt(hub, first) == "failed"
    [letter] = hub.views.dead_letters.list()
    client.post("/api/v1/dead-letters/replay", json={"ids": [letter["id"]]})
    [second] = [row["id"] for row in hub.views.tasks.list()]
    assert client.delete(f"/api/v1/tasks/{second}").status_code == 200
    story = client.get("/api/v1/events/k/1").json()
    assert [(task["id"], task["state"]) for task in story["tasks"]] == [(first, "replayed"), (second, "cancelled")]
    assert story["state"] == "cancelled" and "deleted by" in story["tasks"][1]["last_error"]


def test_a_masked_value_appears_nowhere_in_a_story(api: Api, client: clients.Client) -> None:
    hub = api.hub
    add_service(hub, "http://127.0.0.1:9", mask=["other.email"])
    add_rule(hub, conditions={"other.email": "x@y.z"})
    add_rule(hub, "r2")
    emit(hub, data={"other": {"email": "canary@example.org"}}, key="k")
    text = client.get("/api/v1/events/k").text
    assert "canary" not in text and 'other.email is \\"***\\", and must be \\"x@y.z\\"' in text
    assert client.get("/api/v1/events", params={"q": "other.email:canary@example.org"}).json()["items"] == []


def test_events_are_listed_and_searched(api: Api, client: clients.Client) -> None:
    hub = api.hub
    ids = [str(uuid.uuid4()) for _ in range(5)]
    hub.intake.handle_events(
        [Event("e", USER_LOGGED_IN | {"relateduserid": 40 + i % 2, "n": i}, key) for i, key in enumerate(ids)]
    )
    page = client.get("/api/v1/events", params={"limit": 2}).json()
    rest = client.get("/api/v1/events", params={"limit": 3, "before": page["next"]}).json()
    assert [event["id"] for event in page["items"] + rest["items"]] == ids[::-1]
    assert client.get("/api/v1/events", params={"matched": "true"}).json()["items"] == []
    found = client.get("/api/v1/events", params={"q": "relateduserid:41"}).json()
    assert [event["id"] for event in found["items"]] == [ids[3], ids[1]]
    assert found["indexed"] and found["next"] is None
    found = client.get("/api/v1/events", params={"q": "other.username:student1 n:4"}).json()
    assert [event["id"] for event in found["items"]] == [ids[4]] and not found["indexed"] and found["read"] >= 5
    problem(client.get("/api/v1/events", params={"q": "status:gone"}), 422)
    assert api.client(None).get("/api/v1/events").status_code == 401


def test_a_token_that_may_only_send_events_may_not_read_them(api: Api) -> None:
    assert api.client("ingest").get("/api/v1/events").status_code == 403
