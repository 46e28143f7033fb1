"""`POST /api/v1/events` over a real server: accepted means stored, all or nothing, once per id."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pydantic import SecretStr

from hub.app.lifecycle import build
from hub.settings import Settings
from tests.support import clients
from tests.support.api import Api, problem, serving
from tests.support.databases import PostgresServer
from tests.support.hubs import USER_LOGGED_IN, add_rule, add_service, count
from tests.support.waiting import eventually

NDJSON = {"Content-Type": "application/x-ndjson"}


@pytest.fixture
def ingest(api: Api) -> clients.Client:
    """A client that may send events; every event named `e` has one rule."""
    add_service(api.hub, "http://127.0.0.1:9/")
    add_rule(api.hub)
    return api.client("ingest")


def test_an_event_is_answered_with_its_id_and_tasks_once_the_ledger_has_it(api: Api, ingest: clients.Client) -> None:
    """202 is the promise that nothing loses it any more."""
    answer = ingest.post("/api/v1/events", json={"name": "e", "data": {"n": 1}})
    assert answer.status_code == 202
    assert set(answer.json()) == {"id", "duplicate", "tasks"} and answer.json()["duplicate"] is False
    assert answer.json()["tasks"] == [row["id"] for row in api.hub.views.tasks.list()]
    again = ingest.post("/api/v1/events", json={"name": "e", "data": {"n": 1}}).json()
    assert again == {"id": answer.json()["id"], "duplicate": True, "tasks": []}


def test_an_array_is_answered_by_an_array_and_is_one_transaction(api: Api, ingest: clients.Client) -> None:
    answer = ingest.post("/api/v1/events", json=[{"name": "e", "data": n} for n in (1, 2, 1)])
    assert [a["duplicate"] for a in answer.json()] == [False, False, True]
    assert answer.json()[2]["id"] == answer.json()[0]["id"]
    bad = ingest.post("/api/v1/events", json=[{"name": "e", "data": 3}, {"name": "e", "id": []}])
    problem(bad, 422, "[1].id")
    assert count(api.hub, "events") == 2, "of a batch with a bad event nothing is kept"
    assert ingest.post("/api/v1/events", json=[]).json() == []
    problem(ingest.post("/api/v1/events", json=[{"name": "e"}] * 1001), 413, "body")


def test_an_idempotency_key_is_accepted_once_whatever_the_content(api: Api, ingest: clients.Client) -> None:
    first = ingest.post("/api/v1/events", json={"name": "e", "data": 1}, headers={"Idempotency-Key": "k-1"}).json()
    again = ingest.post("/api/v1/events", json={"name": "e", "data": 2}, headers={"Idempotency-Key": "k-1"}).json()
    other = ingest.post("/api/v1/events", json={"name": "e", "data": 1}, headers={"Idempotency-Key": "k-2"}).json()
    assert first["id"] == again["id"] == "k-1" and again["duplicate"] and not other["duplicate"]
    own = ingest.post("/api/v1/events", json={"name": "e", "id": "mine"}, headers={"Idempotency-Key": "k-3"}).json()
    assert own["id"] == "mine", "the event's own id wins"
    batch = [{"name": "e", "data": 1}, {"name": "e", "data": 1}]
    one = ingest.post("/api/v1/events", json=batch, headers={"Idempotency-Key": "b"}).json()
    two = ingest.post("/api/v1/events", json=batch, headers={"Idempotency-Key": "b"}).json()
    assert [a["duplicate"] for a in one + two] == [False, False, True, True], "a batch sent again changes nothing"
    for key in ("x" * 201, "", "a\tb"):
        problem(
            ingest.post("/api/v1/events", json={"name": "e"}, headers={"Idempotency-Key": key}), 422, "Idempotency-Key"
        )


def test_one_token_cannot_use_up_the_ids_of_another(api: Api, ingest: clients.Client) -> None:
    """Else whoever may send any event could suppress `order-7-paid` of somebody else."""
    other = api.client("ingest")
    headers = {"Idempotency-Key": "order-7-paid"}
    answers = [c.post("/api/v1/events", json={"name": "e"}, headers=headers).json() for c in (other, ingest, ingest)]
    assert [a["duplicate"] for a in answers] == [False, False, True]
    streamed = [c.post("/api/v1/events", content=b'{"name": "e", "id": "n"}', headers=NDJSON) for c in (other, ingest)]
    assert [a["duplicate"] for r in streamed for a in r.json()] == [False, False]


def test_of_many_who_send_the_same_key_at_once_one_is_first(api: Api, ingest: clients.Client) -> None:
    """Two web processes, one event: the database decides."""
    gate = threading.Barrier(8)

    def send(_: int) -> Any:
        gate.wait(120)
        answer = clients.post(
            f"{api.url}/api/v1/events",
            json={"name": "e"},
            headers={"Idempotency-Key": "race", "Authorization": ingest.headers["Authorization"]},
        )
        assert answer.status_code == 202
        return answer.json()

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(send, range(8)))
    assert sorted(a["duplicate"] for a in answers) == [False] + [True] * 7
    assert {a["id"] for a in answers} == {"race"} and count(api.hub, "tasks") == 1


def test_moodles_own_body_is_taken_with_the_token_in_it_and_without_keeping_the_token(api: Api) -> None:
    """`local_webhooks` can send no header; the token must end up nowhere."""
    add_service(api.hub, "http://127.0.0.1:9/")
    add_rule(api.hub, event="\\core\\event\\*")
    _, secret = api.hub.accounts.tokens.add("moodle", "ingest")
    client = api.client(None)
    body = USER_LOGGED_IN | {"host": "https://moodle.example", "token": secret, "extra": "x"}
    answer = client.post("/api/v1/events", json=body)
    assert answer.status_code == 202 and len(answer.json()["tasks"]) == 1
    kept = api.hub.views.tasks.get(answer.json()["tasks"][0])["event_data"]
    assert json.loads(kept) == USER_LOGGED_IN | {"host": "https://moodle.example", "extra": "x"}
    assert secret not in str(api.hub.views.events.sample(USER_LOGGED_IN["eventname"]))
    problem(client.post("/api/v1/events", json=body | {"token": "hub_wrong"}), 401)
    problem(client.post("/api/v1/events", json={"name": "e", "data": {}, "token": secret}), 401)
    problem(client.post("/api/v1/events", json=[body]), 401)
    problem(client.post("/api/v1/events", content=b"{", headers={"Content-Type": "application/json"}), 401)
    with_both = api.client("ingest").post("/api/v1/events", json=body | {"userid": 6, "token": "anything"})
    assert "anything" not in api.hub.views.tasks.get(with_both.json()["tasks"][0])["event_data"]


def test_moodles_own_body_may_say_that_it_is_a_form_and_hold_php_data(api: Api) -> None:
    """`local_webhooks` sends JSON under either media type; `other` of a log store comes as PHP serialized it."""
    add_service(api.hub, "http://127.0.0.1:9/")
    add_rule(api.hub, event="\\core\\event\\*", payload={"user": "{{other.username}}"})
    _, secret = api.hub.accounts.tokens.add("moodle", "ingest")
    client = api.client(None, **{"Content-Type": "application/x-www-form-urlencoded"})
    body = USER_LOGGED_IN | {"token": secret, "other": 'a:1:{s:8:"username";s:5:"Zoë1";}'}
    answer = client.post("/api/v1/events", content=json.dumps(body).encode())
    assert answer.status_code == 202, answer.text
    kept = json.loads(api.hub.views.tasks.get(answer.json()["tasks"][0])["event_data"])
    assert kept["other"] == {"username": "Zoë1"} and "token" not in kept
    odd = body | {"other": 'a:1:{i:0;O:8:"stdClass":0:{}}', "userid": 6}
    answer = client.post("/api/v1/events", content=json.dumps(odd).encode())
    kept = json.loads(api.hub.views.tasks.get(answer.json()["tasks"][0])["event_data"])
    assert kept["other"] == odd["other"], "what is refused stays the text that it is"
    problem(client.post("/api/v1/events", content=b"eventname=x&token=y"), 401)
    with_header = api.client("ingest", **{"Content-Type": "application/x-www-form-urlencoded"})
    assert with_header.post("/api/v1/events", content=json.dumps(USER_LOGGED_IN).encode()).status_code == 202


def test_a_stream_of_lines_is_taken_in_batches(api: Api, ingest: clients.Client) -> None:
    def lines() -> Iterator[bytes]:
        for n in range(1201):
            yield json.dumps({"name": "e", "data": n}).encode() + (b"\r\n" if n % 2 else b"\n\n")

    answer = ingest.post("/api/v1/events", content=lines(), headers=NDJSON)
    assert answer.status_code == 202
    assert len(answer.json()) == 1201 == count(api.hub, "tasks")
    assert ingest.post("/api/v1/events", content=b"", headers=NDJSON).json() == []
    assert len(ingest.post("/api/v1/events", content=b'{"name":"e","data":"x"}', headers=NDJSON).json()) == 1


def test_a_bad_line_says_which_one_and_how_many_before_it_were_accepted(api: Api, ingest: clients.Client) -> None:
    """So that the sender can go on from there; sending all of it again is safe too."""
    lines = [json.dumps({"name": "e", "data": n, "id": f"i{n}"}) for n in range(600)]
    lines[550] = '{"name": "e", "data": '
    found = problem(ingest.post("/api/v1/events", content="\n".join(lines), headers=NDJSON), 422, "line 551")
    assert found["accepted"] == 500 == count(api.hub, "tasks") and found["line"] == 551
    lines[550] = '{"name": "e"}'
    again = ingest.post("/api/v1/events", content="\n".join(lines), headers=NDJSON).json()
    assert sum(a["duplicate"] for a in again) == 500


BAD: list[tuple[bytes, int, str | None]] = [
    (b"", 422, "body"),
    (b"{", 422, "body"),
    (b"\xff\xfe{}", 422, "body"),
    (b'{"name": NaN}', 422, "body"),
    (b'{"name": "e", "data": "\\ud800"}', 422, "body"),
    (b"[" * 100_000, 422, "body"),
    (b'{"name": "e", "data": ' + b"[" * 300 + b"]" * 300 + b"}", 422, "data"),
    (b"null", 422, None),
    (b'"text"', 422, None),
    (b"{}", 422, "name"),
    (b'{"name": 5}', 422, "name"),
    (b'{"name": ""}', 422, "name"),
    (b'{"name": "a\\u0000b"}', 422, "name"),
    (b'{"name": "e", "dat": 1}', 422, "dat"),
    (b'{"name": "e", "id": {}}', 422, "id"),
    (b'{"name": "e", "id": "a\\u0000"}', 422, "id"),
    (b'{"name": "' + b"x" * 300 + b'"}', 422, "name"),
    (b'{"name": "e", "data": "' + b"x" * 1_100_000 + b'"}', 413, "data"),
    (b'[{"name": "e", "data": "' + b"x" * 1_100_000 + b'"}]', 413, "[0].data"),
    (b'{"name": "e", "data": "' + b"x" * 10_000_000 + b'"}', 413, "body"),
]


def test_bad_input_is_refused_by_name_and_leaves_nothing(api: Api, ingest: clients.Client) -> None:
    for body, status, field in BAD:
        answer = ingest.post("/api/v1/events", content=body, headers={"Content-Type": "application/json"})
        problem(answer, status, field)
        assert len(answer.content) < 2000, "what was sent is not sent back"
    assert count(api.hub, "events") == count(api.hub, "names") == 0


def test_nul_in_the_data_is_data(api: Api, ingest: clients.Client) -> None:
    """JSON may say it, so it is kept, and delivered as it came."""
    task = ingest.post("/api/v1/events", json={"name": "e", "data": "a\x00b"}).json()["tasks"][0]
    assert api.client().get(f"/api/v1/tasks/{task}").json()["event_data"] == "a\x00b"


def test_what_is_not_said_to_be_json_is_refused(ingest: clients.Client) -> None:
    for kind in (None, "text/plain", "application/x-www-form-urlencoded", "x", "application/xml"):
        headers = {"Content-Type": kind} if kind else {}
        problem(ingest.post("/api/v1/events", content=b'{"name":"e"}', headers=headers), 415, "Content-Type")
    for kind in ("application/json; charset=utf-8", "application/cloudevents+json"):
        answer = ingest.post("/api/v1/events", content=b'{"name":"e"}', headers={"Content-Type": kind})
        assert answer.status_code == 202


def test_a_long_line_of_a_stream_is_refused_without_being_read(api: Api, ingest: clients.Client) -> None:
    body = b'{"name":"e","data":1}\n{"name":"e","data":"' + b"x" * 1_100_000 + b'"}\n'
    assert problem(ingest.post("/api/v1/events", content=body, headers=NDJSON), 413, "line 2")["accepted"] == 0


def test_with_the_database_away_events_are_refused_with_when_to_come_again(
    postgres: PostgresServer, alone: Settings
) -> None:
    """Never a 202 for something that is nowhere."""
    settings = alone.model_copy(update={"database_url": SecretStr(postgres.url), "listen": "127.0.0.1:0"})
    with build(settings, role="up") as hub, serving(hub) as api:
        client = api.client("ingest")
        hub.db.pool.timeout = 1.0
        postgres.stop()
        answer = client.post("/api/v1/events", json={"name": "e"})
        found = problem(answer, 503)
        assert int(answer.headers["Retry-After"]) >= 1 and "postgres" not in found["detail"]
        ready = client.get("/readyz")
        assert ready.status_code == 503 and ready.json() | {"worker": "?", "scheduler": "?", "relay": "?"} == {
            "ready": False,
            "database": "away",
            "broker": "ok",
            "worker": "?",
            "scheduler": "?",
            "relay": "?",
            "clock": "unknown",
        }
        assert client.get("/healthz").status_code == 200
        postgres.start()
        eventually(lambda: client.post("/api/v1/events", json={"name": "e"}).status_code == 202)
        eventually(lambda: client.get("/readyz").json()["ready"])
        assert {"database": "ok", "broker": "ok"}.items() <= client.get("/readyz").json().items()
