"""Tasks, dead letters, deliveries and circuits over HTTP: the fields of the contract, pages, and what people do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime

import pytest

from tests.integration.test_views import DEAD, DELIVERY, SCHEDULE, TASK
from tests.support import clients
from tests.support.api import Api, problem
from tests.support.http_target import HttpTarget
from tests.support.hubs import add_rule, add_service, attempt, count, due_now, emit, emit_many


@pytest.fixture
def client(api: Api) -> clients.Client:
    return api.client()


@pytest.fixture
def target(api: Api) -> Iterator[HttpTarget]:
    """A service that answers, and this process as its worker."""
    api.hub.lease.start()
    with HttpTarget() as target:
        add_service(api.hub, target.url)
        add_rule(api.hub)
        yield target


def bury(api: Api, target: HttpTarget, data: object) -> int:
    """Let a task fail five times; the id of its dead letter."""
    target.on("/x", 500)
    [task] = emit(api.hub, data=data)
    for _ in range(5):
        assert attempt(api.hub, task) == "failed"
        due_now(api.hub)
    api.hub.breakers.reset(api.hub.configuration.service("crm"))
    target.on("/x", 200)
    return int(api.hub.views.dead_letters.list()[0]["id"])


def test_tasks_are_listed_by_page_and_filter(api: Api, client: clients.Client, target: HttpTarget) -> None:
    ids = emit_many(api.hub, 5)
    first = client.get("/api/v1/tasks", params={"limit": 2}).json()
    assert set(first["items"][0]) >= TASK and [t["id"] for t in first["items"]] == ids[:2:-1]
    second = client.get("/api/v1/tasks", params={"limit": 2, "before": first["next"]}).json()
    third = client.get("/api/v1/tasks", params={"limit": 2, "before": second["next"]}).json()
    assert [t["id"] for t in third["items"]] == [ids[0]] and third["next"] is None
    created = first["items"][0]["created_at"]
    assert created.endswith("Z") and datetime.fromisoformat(created)
    for params, found in (
        ({"state": "pending"}, 5),
        ({"state": "running"}, 0),
        ({"service": "crm"}, 5),
        ({"service": "x"}, 0),
        ({"rule": "r1"}, 5),
        ({"event": "e"}, 5),
        ({"event": "e*"}, 5),
        ({"event": "x"}, 0),
        ({"failed": "true"}, 0),
        ({"orphan": "true"}, 0),
        ({"overdue": "true"}, 0),
    ):
        assert len(client.get("/api/v1/tasks", params=params).json()["items"]) == found, params
    problem(client.get("/api/v1/tasks", params={"state": "queued"}), 422, "state")
    shown = client.get(f"/api/v1/tasks/{ids[0]}").json()
    assert shown["event_data"] == {"n": 0} and shown["rule"] == "r1"


def test_a_task_that_is_over_says_how_it_ended(api: Api, client: clients.Client, target: HttpTarget) -> None:
    [delivered] = emit(api.hub, data=1)
    assert attempt(api.hub, delivered) == "delivered"
    dead_letter = bury(api, target, 2)
    dead = api.hub.views.dead_letters.get(dead_letter)["task_id"]
    [cancelled] = emit(api.hub, data=3)
    assert client.delete(f"/api/v1/tasks/{cancelled}").json() == {"deleted": 1}
    for task, how in ((delivered, "delivered"), (dead, "dead"), (cancelled, "cancelled")):
        for answer in (client.get(f"/api/v1/tasks/{task}"), client.post(f"/api/v1/tasks/{task}/run")):
            assert problem(answer, 404)["ended"]["how"] == how
    assert problem(client.get(f"/api/v1/tasks/{dead}"), 404)["ended"]["dead_letter_id"] == dead_letter
    assert "ended" not in problem(client.get("/api/v1/tasks/999"), 404)
    row = api.hub.db.one("SELECT who, reason FROM cancellations WHERE task_id = %s", [cancelled])
    assert row == {"who": "token manage 1", "reason": "deleted"}


def test_tasks_are_run_retried_and_left_alone_while_they_run(
    api: Api, client: clients.Client, target: HttpTarget
) -> None:
    target.on("/x", 500)
    [task] = emit(api.hub)
    assert attempt(api.hub, task) == "failed"
    fails = client.get("/api/v1/tasks/fails").json()["items"]
    assert [(t["id"], t["state"], t["attempts"]) for t in fails] == [(task, "delayed", 1)] and fails[0]["last_error"]
    assert client.post(f"/api/v1/tasks/{task}/run").json() == {"due": [task], "skipped": []}
    assert client.get(f"/api/v1/tasks/{task}").json()["state"] == "pending"
    assert client.post("/api/v1/tasks/run", json={"failed": True}).json() == {"due": [task], "skipped": []}
    assert client.post(f"/api/v1/tasks/{task}/retry", json={"restart": True}).status_code == 202
    assert client.get(f"/api/v1/tasks/{task}").json()["attempts"] == 0
    many = client.post("/api/v1/tasks/run", json={"ids": [task, 999]})
    assert many.status_code == 202 and many.json() == {"due": [task], "skipped": [999]}
    problem(client.post("/api/v1/tasks/run", json={}), 422, "ids")
    problem(client.post("/api/v1/tasks/run", json={"ids": []}), 422, "ids")
    problem(client.post("/api/v1/tasks/run", json={"ids": ["x"]}), 422, "ids.0")
    api.hub.db.run("UPDATE tasks SET state = 'running'")
    problem(client.delete(f"/api/v1/tasks/{task}"), 409)
    problem(client.post(f"/api/v1/tasks/{task}/retry"), 409)


def test_orphans_are_counted_and_purged(api: Api, client: clients.Client, target: HttpTarget) -> None:
    emit_many(api.hub, 3)
    client.delete("/api/v1/rules/r1")
    assert len(client.get("/api/v1/tasks", params={"orphan": "true"}).json()["items"]) == 3
    assert client.post("/api/v1/tasks/purge-orphans", json={"dry_run": True}).json() == {"purged": 3, "dry_run": True}
    assert client.post("/api/v1/tasks/purge-orphans", json={}).json() == {"purged": 3, "dry_run": False}
    assert count(api.hub, "tasks") == 0 and count(api.hub, "cancellations") == 3


def test_dead_letters_are_looked_at_replayed_and_deleted(api: Api, client: clients.Client, target: HttpTarget) -> None:
    ids = [bury(api, target, n) for n in range(3)]
    listed = client.get("/api/v1/dead-letters", params={"service": "crm", "reason": "attempts"}).json()["items"]
    assert set(listed[0]) >= DEAD and [d["id"] for d in listed] == ids[::-1]
    shown = client.get(f"/api/v1/dead-letters/{ids[0]}").json()
    assert shown["event_data"] == 0 and shown["payload"] == "0" and shown["attempts"] == 5
    exported = client.get("/api/v1/dead-letters/export")
    assert exported.headers["content-type"].startswith("application/x-ndjson")
    lines = [json.loads(line) for line in exported.text.splitlines()]
    assert [line["event_data"] for line in lines] == [2, 1, 0] and set(lines[0]) >= DEAD
    dry = client.post("/api/v1/dead-letters/replay", json={"all": True, "dry_run": True}).json()
    assert (dry["remaining"], dry["replayed"], dry["dry_run"]) == (3, 0, True)
    one = client.post(f"/api/v1/dead-letters/{ids[0]}/replay").json()
    assert one["replayed"] == 1 and attempt(api.hub, one["tasks"][0]) == "delivered"
    problem(client.post(f"/api/v1/dead-letters/{ids[0]}/replay"), 404)
    problem(client.post("/api/v1/dead-letters/replay", json={"ids": [ids[0], ids[1]]}), 404)
    problem(client.post("/api/v1/dead-letters/replay", json={}), 422, "ids")
    problem(client.post("/api/v1/dead-letters/replay", json={"ids": [1], "service": "crm"}), 422, "ids")
    problem(client.post("/api/v1/dead-letters/replay", json={"service": "nobody"}), 404)
    assert client.delete(f"/api/v1/dead-letters/{ids[1]}").json() == {"deleted": 1}
    problem(client.delete(f"/api/v1/dead-letters/{ids[1]}"), 404)
    late = client.post("/api/v1/dead-letters/replay", json={"since": "2100-01-01T00:00:00Z"}).json()
    assert (late["replayed"], late["remaining"]) == (0, 0)
    rest = client.post("/api/v1/dead-letters/replay", json={"service": "crm", "since": "2020-01-01"}).json()
    assert rest["replayed"] == 1 and rest["remaining"] == 0 and count(api.hub, "dead_letters") == 0
    assert client.post("/api/v1/dead-letters/delete", json={"ids": [1, 2]}).json() == {"deleted": 0}


@pytest.mark.parametrize("odd", ['{"a": "\\ud800"}', '{"a": 1e999}', "no JSON", "[" * 300 + "]" * 300])
def test_an_odd_row_is_shown_as_it_is(api: Api, client: clients.Client, target: HttpTarget, odd: str) -> None:
    """One row that somebody edited by hand hides neither itself nor the others of an export."""
    bury(api, target, 1)
    dead_letter = bury(api, target, 2)
    [task] = emit(api.hub, data=3)
    api.hub.db.run("UPDATE dead_letters SET event_data = %s WHERE id = %s", [odd, dead_letter])
    api.hub.db.run("UPDATE events SET data = %s", [odd])
    assert client.get(f"/api/v1/dead-letters/{dead_letter}").json()["event_data"] == odd
    assert client.get(f"/api/v1/tasks/{task}").json()["event_data"] == odd
    exported = client.get("/api/v1/dead-letters/export").text.splitlines()
    assert [json.loads(line)["event_data"] for line in exported] == [odd, 1]


def test_a_dead_letter_whose_rule_is_gone_stays(api: Api, client: clients.Client, target: HttpTarget) -> None:
    dead_letter = bury(api, target, 1)
    client.delete("/api/v1/rules/r1")
    problem(client.post(f"/api/v1/dead-letters/{dead_letter}/replay"), 409)
    add_rule(api.hub, "r2")
    other = bury(api, target, 2)
    for chosen in ({"all": True}, {"ids": [dead_letter, other]}, {"service": "crm"}):
        dry = client.post("/api/v1/dead-letters/replay", json=chosen | {"dry_run": True}).json()
        assert (dry["remaining"], dry["orphans"], dry["replayed"]) == (1, 1, 0), "what a real run does"
    problem(client.post("/api/v1/dead-letters/replay", json={"ids": [999], "dry_run": True}), 404)
    found = client.post("/api/v1/dead-letters/replay", json={"all": True}).json()
    assert (found["replayed"], found["orphans"], found["remaining"]) == (1, 1, 0)
    assert client.get("/api/v1/dead-letters").json()["items"][0]["orphan"] is True


def test_the_log_is_filtered_paged_and_followed(api: Api, client: clients.Client, target: HttpTarget) -> None:
    [good] = emit(api.hub, data=1)
    attempt(api.hub, good)
    target.on("/x", 404)
    [bad] = emit(api.hub, data=2)
    attempt(api.hub, bad)
    rows = client.get("/api/v1/deliveries").json()["items"]
    assert set(rows[0]) >= DELIVERY and [r["success"] for r in rows] == [False, True]
    assert rows[0]["status"] == 404 and rows[0]["request_body"] == "2" and rows[0]["latency_ms"] > 0
    for params, found in (
        ({"failed": "true"}, [bad]),
        ({"failed": "false"}, [good]),
        ({"task": good}, [good]),
        ({"status": 404}, [bad]),
        ({"direction": "inbound"}, []),
        ({"direction": "outbound"}, [bad, good]),
        ({"service": "crm"}, [bad, good]),
        ({"event": "e"}, [bad, good]),
        ({"since": "2100-01-01"}, []),
        ({"until": "2100-01-01"}, [bad, good]),
    ):
        listed = client.get("/api/v1/deliveries", params=params).json()["items"]
        assert [r["task_id"] for r in listed] == found, params
    last = client.get("/api/v1/deliveries", params={"after": 0, "limit": 1}).json()
    assert [r["task_id"] for r in last["items"]] == [good]
    then = client.get("/api/v1/deliveries", params={"after": last["next"]}).json()
    assert [r["task_id"] for r in then["items"]] == [bad]
    assert client.get("/api/v1/deliveries", params={"after": then["next"]}).json() == {
        "items": [],
        "next": then["next"],
    }
    assert client.get(f"/api/v1/deliveries/{rows[0]['id']}").json()["outcome"] == "http_4xx"
    problem(client.get("/api/v1/deliveries/999"), 404)


def test_a_circuit_is_seen_open_and_closed_by_hand(api: Api, client: clients.Client, target: HttpTarget) -> None:
    client.patch("/api/v1/services/crm", json={"cb_failure_threshold": 1})
    target.on("/x", 500)
    [task] = emit(api.hub)
    attempt(api.hub, task)
    [circuit] = client.get("/api/v1/breakers").json()["items"]
    assert (circuit["service"], circuit["state"], circuit["failures"]) == ("crm", "open", 1)
    assert circuit["retry_at"].endswith("Z")
    assert client.post("/api/v1/breakers/crm/reset").json()["state"] == "closed"
    problem(client.post("/api/v1/breakers/nobody/reset"), 404)
    problem(client.get("/api/v1/breakers/nobody"), 404)


def test_one_look_tells_how_it_stands(api: Api, client: clients.Client, target: HttpTarget) -> None:
    emit_many(api.hub, 4)
    stats = client.get("/api/v1/stats").json()
    assert stats["queue_depth"] == 4 == stats["tasks"]["pending"] and stats["services"]["crm"]["pending"] == 4
    assert {"dead_letters", "breakers", "schedules", "heartbeats", "oldest_due_at"} <= set(stats)
    assert set(stats["schedules"][0]) >= SCHEDULE
    assert [n["name"] for n in client.get("/api/v1/event-names").json()["items"]] == ["e"]


def test_the_bytes_of_a_message_that_is_no_json_can_be_downloaded(api: Api, client: clients.Client) -> None:
    """They were readable in SQL only."""
    row = api.hub.db.one(
        "INSERT INTO deliveries (direction, service, success, outcome, raw)"
        " VALUES ('inbound', 'erp', false, 'malformed', %s) RETURNING id",
        [b"\xff\x00raw"],
    )
    assert row is not None
    answer = client.get(f"/api/v1/deliveries/{row['id']}/raw")
    assert answer.status_code == 200 and answer.content == b"\xff\x00raw"
    assert answer.headers["content-type"] == "application/octet-stream"
    assert "attachment" in answer.headers["content-disposition"]
    assert client.get(f"/api/v1/deliveries/{row['id'] + 1}/raw").status_code == 404
