"""Single events over the fast path: the same responses, promises and refusals as the API's own way."""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import httpx
import psycopg
import pytest

from hub.store.token_cache import TokenCache
from tests.support import clients
from tests.support.api import Api, problem
from tests.support.hubs import add_rule, add_service, count
from tests.support.waiting import eventually

PATH = "/api/v1/events"


@pytest.fixture
def ingest(api: Api) -> clients.Client:
    """A client whose token is in memory, so that its plain requests take the fast path."""
    add_service(api.hub, "http://127.0.0.1:9/")
    add_rule(api.hub)
    client = api.client("ingest")
    assert client.post(PATH, json={"name": "e", "id": "warm"}).status_code == 202
    return client


@pytest.fixture
def batches(api: Api, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the batches that the fast path accepted."""
    sizes: list[int] = []
    real = api.hub.intake.handle_each

    def handle_each(events: list[object]) -> object:
        sizes.append(len(events))
        return real(events)  # type: ignore[arg-type]

    monkeypatch.setattr(api.hub.intake, "handle_each", handle_each)
    return sizes


def database(api: Api) -> str:
    """The URL of the hub's database."""
    assert api.hub.settings.database_url is not None
    return api.hub.settings.database_url.get_secret_value()


def slowly(client: clients.Client, body: bytes, **headers: str) -> httpx.Response:
    """The same request in chunks: it does not take the fast path."""
    parts = (body[i : i + 7] for i in range(0, len(body), 7))
    return client.post(PATH, content=parts, headers={"Content-Type": "application/json", **headers})


@pytest.mark.parametrize(
    "body",
    [
        b'{"name": "e", "data": {"n": 1}}',
        b'{"name": "e", "data": {"n": 1}, "id": "own"}',
        b'{"eventname": "\\\\core\\\\event\\\\user_created", "objectid": 5, "token": "not-kept"}',
        '{"name": "é", "data": {"t": "Ünïcödé \\ud83d\\ude00"}}'.encode(),
    ],
)
def test_both_ways_store_the_same(api: Api, ingest: clients.Client, batches: list[int], body: bytes) -> None:
    fast = ingest.post(PATH, content=body, headers={"Content-Type": "application/json"})
    assert fast.status_code == 202 and sum(batches) == 1
    slow = slowly(ingest, body)
    assert slow.status_code == 202
    assert slow.json()["id"] == fast.json()["id"] and slow.json()["duplicate"], "the same event by the same sender"
    assert set(fast.headers) | {"date"} == set(slow.headers) | {"date"}


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b"{", 422, "body"),
        (b'{"name": 5}', 422, "name"),
        (b'{"name": "e", "data": NaN}', 422, "body"),
        (b'{"name": "e", "extra": 1}', 422, "extra"),
        (b'{"name": "e", "data": "\\ud800"}', 422, "body"),
        (b'"text"', 422, None),
        (b'{"name": "e", "data": ' + b"[" * 300 + b"]" * 300 + b"}", 422, "data"),
        (b'{"name": "e", "data": 1e999}', 422, None),
    ],
)
def test_both_ways_refuse_the_same(
    api: Api, ingest: clients.Client, body: bytes, status: int, field: str | None
) -> None:
    fast = problem(ingest.post(PATH, content=body, headers={"Content-Type": "application/json"}), status, field)
    assert fast == problem(slowly(ingest, body), status, field)
    assert count(api.hub, "events") == 1, "nothing of it is stored"


def test_events_that_arrive_together_share_a_transaction_and_an_invalid_one_fails_alone(
    api: Api, ingest: clients.Client, batches: list[int]
) -> None:
    """Behind a transaction that waits for a lock, what arrives meanwhile becomes one batch."""
    with psycopg.connect(database(api)) as conn, ThreadPoolExecutor(40) as pool:
        conn.execute("LOCK TABLE event_keys IN EXCLUSIVE MODE")
        client = clients.Client(base_url=api.url, headers=ingest.headers)
        send = [pool.submit(client.post, PATH, json={"name": "e", "data": n}) for n in range(30)]
        send.append(pool.submit(client.post, PATH, json={"name": 5}))
        eventually(lambda: sum(batches) >= 2, "two threads wait for the lock")
        conn.rollback()
        codes = [future.result().status_code for future in send]
        client.close()
    assert codes == [202] * 30 + [422]
    assert sum(batches) == 30 and max(batches) > 1
    assert count(api.hub, "events") == 31


def test_a_body_that_arrives_in_two_packets_is_accepted(api: Api, ingest: clients.Client) -> None:
    body = b'{"name": "e", "data": "late"}'
    host, port = api.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=120) as sock:
        head = (
            f"POST {PATH} HTTP/1.1\r\nHost: hub\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            f"Authorization: {ingest.headers['Authorization']}\r\n\r\n"
        )
        sock.sendall(head.encode() + body[:5])
        sock.sendall(body[5:])
        assert sock.recv(100).startswith(b"HTTP/1.1 202 ")
    assert count(api.hub, "events") == 2


def test_a_key_of_the_header_is_accepted_once(ingest: clients.Client, batches: list[int]) -> None:
    headers = {"Idempotency-Key": "k"}
    first = ingest.post(PATH, json={"name": "e", "data": 1}, headers=headers).json()
    again = ingest.post(PATH, json={"name": "e", "data": 2}, headers=headers).json()
    assert first["id"] == again["id"] == "k" and again["duplicate"] and sum(batches) == 2
    problem(ingest.post(PATH, json={"name": "e"}, headers={"Idempotency-Key": "k" * 201}), 422, "Idempotency-Key")


def test_a_revoked_token_is_refused_at_once(api: Api, ingest: clients.Client) -> None:
    api.hub.accounts.tokens.revoke("ingest 1")
    assert ingest.post(PATH, json={"name": "e", "data": "after"}).status_code == 401
    assert count(api.hub, "events") == 1


def test_a_change_by_another_process_reaches_the_cache(api: Api) -> None:
    """The trigger announces it; no clock is involved: the cache's own is stopped."""
    _, secret = api.hub.accounts.tokens.add("other", "ingest")
    cache = TokenCache(api.hub.accounts.tokens, api.hub.registry.configuration.generation, clock=lambda: 0.0)
    eventually(lambda: cache.use(secret) and cache.get(secret), "the token is in memory")
    with psycopg.connect(database(api), autocommit=True) as conn:
        conn.execute("UPDATE api_tokens SET revoked_at = now() WHERE name = 'other'")
    eventually(lambda: cache.get(secret) is None, "the change is announced")
    assert cache.use(secret) is None


def test_tokens_are_cached_for_seconds_only_where_changes_are_heard_and_never_when_they_expire_soon(api: Api) -> None:
    now = 0.0
    _, secret = api.hub.accounts.tokens.add("t", "ingest")
    deaf = TokenCache(api.hub.accounts.tokens, lambda: None)
    assert deaf.use(secret) and deaf.get(secret) is None
    cache = TokenCache(api.hub.accounts.tokens, lambda: 1, clock=lambda: now)
    assert cache.use(secret) and cache.get(secret)
    now = 6.0
    assert cache.get(secret) is None
    soon = api.hub.clock.read() + timedelta(seconds=30)
    _, short = api.hub.accounts.tokens.add("short", "ingest", expires_at=soon)
    assert cache.use(short) and cache.get(short) is None


def test_the_database_away_is_503_and_acceptance_resumes(api: Api, ingest: clients.Client) -> None:
    name = database(api)
    stop, codes = threading.Event(), []

    def send() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            response = ingest.post(PATH, json={"name": "e", "id": f"n{number}"})
            codes.append((response.status_code, f"n{number}"))

    thread = threading.Thread(target=send)
    thread.start()
    with psycopg.connect(name, autocommit=True) as conn:
        for _ in range(5):
            conn.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
                " AND pid <> pg_backend_pid()"
            )
            time.sleep(0.05)
    before = len(codes)
    eventually(lambda: len(codes) > before + 5, "requests are served again")
    stop.set()
    thread.join()
    assert {code for code, _ in codes} <= {202, 503} and codes[-1][0] == 202
    with psycopg.connect(name) as conn:
        stored = {row[0] for row in conn.execute("SELECT uid FROM events")}
    assert {uid for code, uid in codes if code == 202} <= stored, "what was accepted is in the ledger"


def test_many_connections_get_each_their_own_response(api: Api, ingest: clients.Client) -> None:
    client = clients.Client(base_url=api.url, headers=ingest.headers)
    with ThreadPoolExecutor(16) as pool, client:
        sent = list(pool.map(lambda n: client.post(PATH, json={"name": "e", "id": f"i{n}"}).json()["id"], range(200)))
    assert sent == [f"i{n}" for n in range(200)]
