"""Services, rules and schedules over HTTP: written, changed, by two editors at once, and previewed."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from hub.app.lifecycle import build
from tests.support import clients
from tests.support.api import Api, problem
from tests.support.http_target import HttpTarget
from tests.support.hubs import USER_LOGGED_IN, add_rule, add_service, emit

CRM: dict[str, Any] = {
    "name": "crm",
    "type": "rest",
    "base_url": "http://127.0.0.1:9/api",
    "auth": {"type": "bearer", "token": "t0p"},
    "secret_headers": {"X-Key": "h1dden"},
    "max_retries": 2,
    "headers": {"X-Plain": "seen"},
    "mask": ["card"],
}


@pytest.fixture
def client(api: Api) -> clients.Client:
    return api.client()


def test_a_service_from_first_to_last(api: Api, client: clients.Client) -> None:
    made = client.post("/api/v1/services", json=CRM)
    assert made.status_code == 201 and made.headers["Location"] == "/api/v1/services/crm"
    document = made.json()
    assert document["auth"] == {"type": "bearer", "token": "***"} and document["secret_headers"] == {"X-Key": "***"}
    assert document["headers"] == {"X-Plain": "seen"} and document["timeout"] == 5 and document["enabled"] is True
    assert client.get("/api/v1/services/crm").json() == document
    assert client.get("/api/v1/services").json() == {"items": [document]}
    changed = client.patch("/api/v1/services/crm", json={"timeout": 9, "name": "crm 2"}).json()
    assert (changed["timeout"], changed["name"], changed["version"]) == (9, "crm 2", 2)
    assert client.post("/api/v1/services/crm%202/disable").json()["enabled"] is False
    assert client.post("/api/v1/services/crm%202/enable").json()["enabled"] is True
    add_rule(api.hub, service="crm 2")
    assert client.delete("/api/v1/services/crm%202").json() == {"deleted": "crm 2", "rules": 1}
    problem(client.get("/api/v1/services/crm%202"), 404)
    assert client.get("/api/v1/rules").json() == {"items": []}


def test_what_was_read_can_be_written_back_without_losing_a_secret(api: Api, client: clients.Client) -> None:
    """The way of every editor: GET, change one member, send all of it."""
    document = client.post("/api/v1/services", json=CRM).json()
    again = client.patch("/api/v1/services/crm", json=document | {"timeout": 7})
    assert again.status_code == 200 and again.json()["timeout"] == 7
    assert api.hub.configuration.service("crm").secrets == {"token": "t0p", "header:X-Key": "h1dden"}
    other = client.patch("/api/v1/services/crm", json={"auth": {"token": "n3w"}}).json()
    assert other["auth"] == {"type": "bearer", "token": "***"}
    assert api.hub.configuration.service("crm").secrets["token"] == "n3w"
    problem(
        client.patch("/api/v1/services/crm", json={"secret_headers": {"X-New": "***"}}), 422, "secret_headers.X-New"
    )
    problem(
        client.patch("/api/v1/services/crm", json={"auth": {"type": "basic", "username": "u", "password": "***"}}),
        422,
        "auth.password",
    )
    amqp = {"name": "q", "type": "amqp", "base_url": "amqp://u:p4ss@127.0.0.1/v?exchange=x"}
    document = client.post("/api/v1/services", json=amqp).json()
    assert document["base_url"] == "amqp://u:***@127.0.0.1/v?exchange=x"
    assert client.patch("/api/v1/services/q", json=document | {"response_queue": "answers"}).status_code == 200
    assert api.hub.configuration.service("q").secrets == {"password": "p4ss"}
    moved = {"base_url": "amqp://u:***@elsewhere/v"}
    problem(client.patch("/api/v1/services/q", json=moved), 422, "base_url")


def test_of_two_editors_the_second_hears_of_the_first(api: Api, client: clients.Client) -> None:
    """Nobody overwrites what they have not seen; by ETag, or by the version in the document."""
    seen = client.post("/api/v1/services", json=CRM)
    assert seen.headers["ETag"] == '"1"'
    first = client.patch("/api/v1/services/crm", json={"timeout": 1}, headers={"If-Match": seen.headers["ETag"]})
    assert first.status_code == 200 and first.headers["ETag"] == '"2"'
    problem(client.patch("/api/v1/services/crm", json={"timeout": 2}, headers={"If-Match": '"1"'}), 412)
    problem(client.patch("/api/v1/services/crm", json=seen.json() | {"timeout": 2}), 412)
    problem(client.delete("/api/v1/services/crm", headers={"If-Match": 'W/"1"'}), 412)
    problem(client.patch("/api/v1/services/crm", json={"timeout": 2}, headers={"If-Match": '"soon"'}), 412)
    assert client.get("/api/v1/services/crm").json()["timeout"] == 1
    assert client.patch("/api/v1/services/crm", json={"timeout": 3}, headers={"If-Match": "*"}).status_code == 200
    assert client.delete("/api/v1/services/crm", headers={"If-Match": '"3"'}).status_code == 200


def test_many_editors_at_once_lose_nothing(api: Api, client: clients.Client) -> None:
    """Each reads, adds one header, writes, and reads again when it was too late: in the end all are there."""
    client.post("/api/v1/services", json=CRM)
    gate = threading.Barrier(5)

    def edit(n: int) -> None:
        gate.wait(120)
        with clients.Client(base_url=api.url, headers=client.headers) as mine:
            for _ in range(50):
                seen = mine.get("/api/v1/services/crm")
                headers = seen.json()["headers"] | {f"X-{n}": "1"}
                answer = mine.patch(
                    "/api/v1/services/crm", json={"headers": headers}, headers={"If-Match": seen.headers["ETag"]}
                )
                if answer.status_code == 200:
                    return
                problem(answer, 412)
        raise AssertionError("never got through")

    with ThreadPoolExecutor(5) as pool:
        list(pool.map(edit, range(5)))
    found = client.get("/api/v1/services/crm").json()
    assert found["version"] == 6 and set(found["headers"]) == {"X-Plain", *(f"X-{n}" for n in range(5))}


def test_a_process_that_has_not_heard_of_a_change_does_not_undo_it(api: Api, client: clients.Client) -> None:
    """Another process shows version 2; this one still has version 1 in memory when the edit of version 2 comes."""
    client.post("/api/v1/services", json=CRM)
    with build(api.hub.settings, role="web") as other:
        stale = other.registry.configuration.snapshot()
        api.hub.registry.services.update("crm", {"timeout": 42})
        other.registry.configuration._snapshot = stale
        changed = other.registry.services.update("crm", {"max_retries": 1}, version=2)
        assert (changed.timeout, changed.max_retries) == (42, 1)


WRONG: list[tuple[dict[str, Any], str | None]] = [
    ({"name": ""}, "name"),
    ({"name": "a/b"}, "name"),
    ({"base_url": "ftp://x"}, None),
    ({"timeout": "soon"}, "timeout"),
    ({"timeout": -1}, "timeout"),
    ({"auth": {"type": "bearer"}}, "auth"),
    ({"auth": {"typ": 1}}, "auth.typ"),
    ({"headers": {"a b": "c"}}, None),
    ({"headers": {"A": "b\nc"}}, "headers.A"),
    ({"surprise": 1}, "surprise"),
    ({"mask": ["a\0"]}, "mask.0"),
    ({"response_queue": "q"}, None),
    ({"retry_delays": [1e300]}, "retry_delays.0"),
]


def test_a_wrong_member_is_named_and_its_value_is_not_repeated(client: clients.Client) -> None:
    for change, field in WRONG:
        found = problem(client.post("/api/v1/services", json=CRM | change), 422, field)
        assert "t0p" not in str(found)
    assert client.get("/api/v1/services").json() == {"items": []}


def test_a_rule_from_first_to_last(api: Api, client: clients.Client) -> None:
    add_service(api.hub, "http://127.0.0.1:9/")
    rule = {
        "name": "r",
        "event": "\\core\\event\\*",
        "service": "crm",
        "endpoint": "/u/{{userid}}",
        "method": "put",
        "payload": {"id": "{{objectid}}"},
        "conditions": {"userid": {"gt": 1}},
    }
    made = client.post("/api/v1/rules", json=rule)
    assert made.status_code == 201 and made.headers["ETag"] == '"1"' and made.json()["method"] == "PUT"
    assert made.json()["payload"] == {"id": "{{objectid}}"} and made.json()["conditions"] == {"userid": {"gt": 1}}
    problem(client.post("/api/v1/rules", json=rule), 409)
    problem(client.post("/api/v1/rules", json=rule | {"name": "s", "service": "nobody"}), 404)
    problem(client.post("/api/v1/rules", json=rule | {"payload": '{"a": '}), 422)
    problem(client.post("/api/v1/rules", json=rule | {"payload": '{"a": "\0"}'}), 422)
    problem(client.post("/api/v1/rules", json=rule | {"conditions": {"a": {"near": 1}}}), 422)
    assert [r["name"] for r in client.get("/api/v1/rules", params={"event": "\\core\\event\\x"}).json()["items"]] == [
        "r"
    ]
    assert client.get("/api/v1/rules", params={"event": "other"}).json()["items"] == []
    assert client.get("/api/v1/rules", params={"service": "nobody"}).json()["items"] == []
    edited = client.patch("/api/v1/rules/r", json=made.json() | {"endpoint": "/v2"})
    assert edited.json()["endpoint"] == "/v2" and edited.json()["version"] == 2
    problem(client.patch("/api/v1/rules/r", json={"endpoint": "/v3"}, headers={"If-Match": '"1"'}), 412)
    assert client.patch("/api/v1/rules/r", json={"payload": None}).json()["payload"] is None
    assert client.post("/api/v1/rules/r/disable").json()["enabled"] is False
    assert client.post("/api/v1/rules/r/enable").json()["enabled"] is True
    assert client.delete("/api/v1/rules/r").json() == {"deleted": "r"}
    problem(client.get("/api/v1/rules/r"), 404)


def test_a_preview_shows_the_request_and_sends_nothing(api: Api, client: clients.Client) -> None:
    add_service(api.hub, "http://127.0.0.1:9/")
    add_rule(api.hub, "r", event="\\core\\event\\*", endpoint="/u/{{userid}}", payload={"who": "{{other.username}}"})
    problem(client.post("/api/v1/rules/r/preview", json={}), 422, "event")
    emit(api.hub, USER_LOGGED_IN["eventname"], USER_LOGGED_IN)
    seen = client.post("/api/v1/rules/r/preview", json={}).json()
    assert seen["endpoint"] == "/u/5" and seen["body"] == {"who": "student1"} and seen["matches"] is True
    assert seen["data"] == USER_LOGGED_IN and seen["error"] is None
    given = client.post("/api/v1/rules/r/preview", json={"data": {"userid": 9}, "event": "x"}).json()
    assert (given["matches"], given["endpoint"], given["body"]) == (False, "/u/9", {"who": None})
    new = {"name": "n", "event": "e", "service": "crm", "payload": {"a": "{{b}}"}, "strict": True}
    failed = client.post("/api/v1/rules/preview", json={"rule": new, "data": {}}).json()
    assert "b" in failed["error"] and failed["body"] is None
    assert client.post("/api/v1/rules/preview", json={"rule": new, "data": {"b": 1}}).json()["body"] == {"a": 1}
    problem(client.post("/api/v1/rules/preview", json={"data": {}}), 422, "rule")
    assert [t["event"] for t in client.get("/api/v1/tasks").json()["items"]] == [USER_LOGGED_IN["eventname"]]


def test_a_service_is_reached_on_request(api: Api, client: clients.Client) -> None:
    with HttpTarget() as target:
        add_service(api.hub, target.url)
        assert client.post("/api/v1/services/crm/test").json()["ok"] is True
    gone = client.post("/api/v1/services/crm/test").json()
    assert gone["ok"] is False and "127.0.0.1" in gone["message"]
    problem(client.post("/api/v1/services/nobody/test"), 404)


def test_schedules_are_read_and_changed(client: clients.Client) -> None:
    path = "/api/v1/schedules/consume_responses_task"
    names = [s["name"] for s in client.get("/api/v1/schedules").json()["items"]]
    assert names == ["consume_responses_task", "housekeeping_task"]
    assert client.put(path, json={"cron": "0 3 * * *"}).json()["cron"] == "0 3 * * *"
    changed = client.patch(path, json={"cron": "*/5 * * * *"}).json()
    assert changed["cron"] == "*/5 * * * *" and len(changed["next_runs"]) == 5
    assert all(run[14:16] in {f"{m:02}" for m in range(0, 60, 5)} for run in changed["next_runs"])
    problem(client.patch(path, json={"cron": "61 * * * *"}), 422, "minute")
    assert client.get(path).json()["cron"] == "*/5 * * * *"
    off = client.post(f"{path}/disable").json()
    assert (off["enabled"], off["next_runs"], off["next_run_at"]) == (False, [], None)
    assert client.patch(path, json={"enabled": True}).json()["enabled"] is True
    assert client.post(f"{path}/reset").json()["cron"] == "* * * * *"
    run = client.post(f"{path}/run")
    assert run.status_code == 202 and run.json()["run_requested"] is True
    assert client.get(f"{path}/runs").json() == {"items": [], "next": None}
    problem(client.get("/api/v1/schedules/nothing"), 404)
    shown = client.get("/api/v1/schedules/preview", params={"cron": "0 12 * * *", "n": 2}).json()
    assert [at[11:] for at in shown["next_runs"]] == ["12:00:00Z"] * 2


LONG = "9" * 5000


@pytest.mark.parametrize(
    ("path", "content", "kind"),
    [
        ("/api/v1/events", '{"name": "e", "data": {"a": ' + LONG + "}}", "application/json"),
        ("/api/v1/events", '{"name": "e", "data": {"a": ' + LONG + "}}\n", "application/x-ndjson"),
        (
            "/api/v1/rules",
            '{"name": "n", "event": "e", "service": "crm", "payload": {"a": ' + LONG + "}}",
            "application/json",
        ),
        ("/api/v1/services", '{"name": "n", "base_url": "http://x", "timeout": ' + LONG + "}", "application/json"),
    ],
)
def test_an_integer_that_is_too_long_is_refused_at_every_door(
    api: Api, client: clients.Client, path: str, content: str, kind: str
) -> None:
    response = client.post(path, content=content, headers={"Content-Type": kind})
    assert "an integer has more than 4300 digits" in response.text
    assert response.status_code == 422 or kind == "application/x-ndjson"
    assert "set_int_max" not in response.text
