"""Limits of the web server on connections and bodies: who sends slowly, or nothing, takes nothing from others."""

from __future__ import annotations

import base64
import itertools
import json
import select
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from hub.app.lifecycle import build
from hub.models import Event
from hub.settings import Settings
from hub.web import bodies
from tests.support import clients
from tests.support.api import Api, serving
from tests.support.hubs import add_service
from tests.support.waiting import eventually

Serve = Callable[..., Api]
SIGNING = "whsec_" + base64.b64encode(bytes(32)).decode()
FORM = "application/x-www-form-urlencoded"


@pytest.fixture
def serve(alone: Settings) -> Iterator[Serve]:
    """Starts a hub whose settings differ as the test says."""
    with ExitStack() as stack:

        def start(**changes: object) -> Api:
            settings = alone.model_copy(update={"listen": "127.0.0.1:0", **changes})
            return stack.enter_context(serving(stack.enter_context(build(settings, role="up"))))

        yield start


def connect(api: Api) -> socket.socket:
    place = urlsplit(api.url)
    return socket.create_connection((place.hostname, place.port or 80), timeout=120)


@contextmanager
def many(api: Api, count: int, first: bytes = b"") -> Iterator[list[socket.socket]]:
    """So many connections that have sent `first` and nothing more."""
    with ExitStack() as stack:
        opened = [stack.enter_context(connect(api)) for _ in range(count)]
        for connection in opened:
            if first:
                connection.sendall(first)
        yield opened


def closed(connection: socket.socket) -> bool:
    """Whether the server has closed a connection, whatever it said before."""
    connection.setblocking(False)
    try:
        while connection.recv(65536):
            pass
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def said(connection: socket.socket) -> bytes:
    """What the server sends until it closes."""
    connection.settimeout(120)
    got = b""
    try:
        while chunk := connection.recv(65536):
            got += chunk
    except OSError:
        pass
    return got


def post(path: str, *headers: str, kind: str = "application/json") -> bytes:
    """A request whose body has begun."""
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Type: {kind}", "Content-Length: 1000", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n{"


def test_connections_beyond_the_limit_replace_silent_ones(serve: Serve) -> None:
    """Health checks and deliveries are served however many clients connect and say nothing."""
    api = serve(connections=20)
    with many(api, 60) as silent:
        for _ in range(3):
            assert clients.get(f"{api.url}/healthz").status_code == 200
        eventually(lambda: sum(map(closed, silent)) >= 40)


def test_a_head_that_does_not_come_closes_the_connection(serve: Serve) -> None:
    api = serve(header_timeout=0.5)
    with many(api, 2) as silent, many(api, 2, b"GET /healthz HTTP/1.1\r\nHos") as slow:
        eventually(lambda: all(map(closed, silent + slow)))


def test_a_connection_that_dribbles_its_head_is_closed(serve: Serve) -> None:
    """Each byte would start an idle time-out anew; the time for the head is one."""
    api = serve(header_timeout=0.5)

    def dribble() -> bool:
        try:
            slow.sendall(b"x")
        except OSError:
            return True
        return False

    with connect(api) as slow:
        slow.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: ")
        eventually(dribble)


def test_a_client_that_reads_nothing_makes_way_for_others(serve: Serve) -> None:
    """Responses that nobody reads fill the socket; such a connection is not one that works."""
    api = serve(connections=8)
    request = b"GET /static/hub.js HTTP/1.1\r\nHost: x\r\n\r\n"
    with ExitStack() as stack:
        for _ in range(8):
            greedy = stack.enter_context(connect(api))
            greedy.setblocking(False)
            try:
                for _ in range(3000):
                    greedy.send(request)
            except OSError:
                pass
        assert clients.get(f"{api.url}/healthz").status_code == 200


def test_an_address_has_a_limit_of_its_own_unless_it_is_a_trusted_proxy(serve: Serve) -> None:
    api = serve(connections=40, connections_per_address=5, trusted_proxies=())
    with many(api, 20) as silent:
        eventually(lambda: sum(map(closed, silent)) >= 15)
        assert clients.get(f"{api.url}/healthz").status_code == 200
    api = serve(connections=40, connections_per_address=5)
    with many(api, 20) as silent:
        assert clients.get(f"{api.url}/healthz").status_code == 200
        assert not any(map(closed, silent))


def test_a_body_slower_than_the_least_rate_is_refused(serve: Serve) -> None:
    """Also one that always sends a little: the time for the body is counted as a whole."""
    api = serve(body_timeout=0.5, body_rate=1_000_000)
    token = "Authorization: " + api.client("ingest").headers["Authorization"]
    with connect(api) as slow, many(api, 1, post("/login", kind=FORM)) as other:
        slow.sendall(post("/api/v1/events", token))
        slow.setblocking(False)

        def dribble() -> bool:
            try:
                slow.send(b" ")
                return b" 408 " in slow.recv(100)
            except BlockingIOError:
                return False

        eventually(dribble)
        assert b" 408 " in said(other[0])


def test_slow_bodies_of_strangers_keep_out_no_signed_webhook_and_no_body_token(serve: Serve) -> None:
    api = serve(connections=80)  # 20 bodies at once
    add_service(api.hub, "http://127.0.0.1:9/", inbound={"token": "in-token-1", "signing_secret": SIGNING})
    _, secret = api.hub.accounts.tokens.add("moodle", "ingest")
    ingest = "Authorization: " + api.client("ingest").headers["Authorization"]
    client, known = api.client(None), api.client("ingest")
    signed = post("/webhook/crm", "webhook-signature: v1,x", "webhook-id: 1", "webhook-timestamp: 1")
    with many(api, 20, signed), many(api, 20, post("/api/v1/events")), many(api, 20, post("/api/v1/events", ingest)):
        moodle = {"eventname": "\\core\\event\\x", "token": secret}
        assert client.post("/api/v1/events", json=moodle).status_code == 202
        assert known.post("/api/v1/events", json={"name": "e"}).status_code == 202
        hook = client.post("/webhook/crm", json={}, headers={"Authorization": "Bearer in-token-1"})
        assert hook.status_code == 202, hook.text


def test_a_body_given_up_for_others_is_told_to_come_again(serve: Serve) -> None:
    api = serve(connections=16, body_timeout=60.0)  # 4 bodies at once
    with many(api, 6, post("/api/v1/events")) as slow:
        told = [said(connection) for connection in _readable(slow, 2)]
    assert all(b"HTTP/1.1 503 " in text and b"retry-after: 1" in text for text in told)


def _readable(connections: list[socket.socket], wanted: int) -> list[socket.socket]:
    """Those connections on which the server says something, once there are as many as wanted."""
    eventually(lambda: len(select.select(connections, [], [], 0)[0]) >= wanted)
    return select.select(connections, [], [], 0)[0]


_POST = b"POST / HTTP/1.1\r\nHost: x\r\n"
_CHUNKED = _POST + b"Transfer-Encoding: chunked\r\n"
BAD_REQUESTS = {
    "an empty transfer coding beside a length": _POST + b"Transfer-Encoding: \r\nContent-Length: 3\r\n\r\nabc",
    "a transfer coding beside a length": _CHUNKED + b"Content-Length: 3\r\n\r\n0\r\n\r\n",
    "another transfer coding": _POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunks in HTTP/1.0": b"POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": _POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "a blank before a size": _CHUNKED + b"\r\n 3\r\nabc\r\n0\r\n\r\n",
    "a blank after a size": _CHUNKED + b"\r\n3 \r\nabc\r\n0\r\n\r\n",
    "a signed length": _POST + b"Content-Length: +3\r\n\r\nabc",
    "no host": b"GET /healthz HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /healthz HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "no version": b"GET /healthz\r\nHost: x\r\n\r\n",
    "version 2": b"GET /healthz HTTP/2.0\r\nHost: x\r\n\r\n",
    "bare line feeds": b"GET /healthz HTTP/1.1\nHost: x\n\n",
    "a folded header": b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
    "a long chunk extension": _CHUNKED + b"\r\n1;" + b"x" * 40_000,
    "a long trailer": _CHUNKED + b"\r\n0\r\nX: " + b"x" * 40_000,
}


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"a:b\r\n" * 200 + b"\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\na: " + b"b" * 17_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 17_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ids=["many headers", "a long header", "a long path"],
)
def test_a_head_over_the_limits_is_answered_with_431(serve: Serve, request_: bytes) -> None:
    with connect(serve()) as connection:
        connection.sendall(request_)
        assert said(connection).startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")


def test_what_two_readers_could_read_differently_is_refused(serve: Serve) -> None:
    """A proxy in front may see another end of the request than the hub does."""
    api = serve()
    for name, request in BAD_REQUESTS.items():
        with connect(api) as connection:
            try:
                connection.sendall(request)
            except OSError:
                pass
            got = said(connection)
            assert got == b"" or got[9:12] in (b"400", b"405"), (name, got[:200])
            assert got.count(b"HTTP/1.1 ") <= 1, name


def test_trailers_are_no_headers(serve: Serve) -> None:
    """They come when the token was looked for already."""
    api = serve()
    token = api.client("ingest").headers["Authorization"].encode()
    with connect(api) as connection:
        connection.sendall(
            b"POST /api/v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n"
            b'Transfer-Encoding: chunked\r\n\r\na\r\n{"name":1}\r\n0\r\nAuthorization: ' + token + b"\r\n\r\n"
        )
        assert said(connection).startswith(b"HTTP/1.1 401 ")


def test_a_few_pipelined_requests_are_answered_in_order_and_very_many_are_not_kept(serve: Serve) -> None:
    api = serve()
    request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    with connect(api) as connection:
        connection.sendall(request * 4 + request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert said(connection).count(b"HTTP/1.1 200 ") == 5
    with connect(api) as connection:
        connection.sendall(request * 2000)
        assert said(connection).count(b"HTTP/1.1 200 ") < 100


def test_compressed_bodies_are_refused_by_name(serve: Serve) -> None:
    api = serve()
    for scope, path in (("ingest", "/api/v1/events"), ("manage", "/api/v1/services")):
        client = api.client(scope)  # type: ignore[arg-type]
        for kind in ("application/json", "application/x-ndjson"):
            answer = client.post(path, content=b"\x1f\x8b", headers={"Content-Type": kind, "Content-Encoding": "gzip"})
            assert answer.status_code == 415 and answer.json()["errors"][0]["field"] == "Content-Encoding"
            assert answer.headers["Accept-Encoding"] == "identity"


def test_a_verb_in_the_place_of_an_id_is_another_method(serve: Serve) -> None:
    """`run` is no task: what can be done there is said, not what is wrong with the id."""
    client = serve().client("manage")
    for path in ("tasks/run", "tasks/purge-orphans", "dead-letters/replay", "dead-letters/delete"):
        for method in ("GET", "DELETE"):
            answer = client.request(method, f"/api/v1/{path}")
            assert answer.status_code == 405 and answer.headers["Allow"] == "POST", (method, path, answer.text)
    assert client.get("/api/v1/tasks/-1").status_code == client.get(f"/api/v1/tasks/{'9' * 5000}").status_code == 422
    assert client.get("/api/v1/tasks/abc").status_code == 404


def test_metrics_and_health_wait_for_no_thread_that_strangers_take(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = serve()
    held, go_on = threading.Semaphore(0), threading.Event()

    def look_up(secret: str) -> None:
        held.release()
        assert go_on.wait(120)

    monkeypatch.setattr(api.hub.accounts.tokens, "find", look_up)
    headers = {"Authorization": "Bearer hub_x"}
    client = clients.Client(base_url=api.url, limits=httpx.Limits(max_connections=None))
    with ThreadPoolExecutor(60) as pool, client:
        waiting = [pool.submit(client.get, "/api/v1/stats", headers=headers) for _ in range(60)]
        for _ in range(40):
            assert held.acquire(timeout=120)
        for path in ("/metrics", "/healthz", "/readyz"):
            assert client.get(path).status_code == 200
        go_on.set()
        assert {future.result().status_code for future in waiting} <= {401, 429}


def test_a_token_in_the_body_is_checked_before_it_is_parsed(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger's megabyte of JSON costs half a second to parse, and nothing to refuse."""
    api = serve()
    parsed: list[int] = []
    real = bodies.parse

    def parse(body: bytes) -> Any:
        parsed.append(len(body))
        return real(body)

    monkeypatch.setattr(bodies, "parse", parse)
    client = api.client(None)
    _, secret = api.hub.accounts.tokens.add("moodle", "ingest")
    heavy = b'{"eventname": "e", "other": [' + b"[]," * 300_000 + b'[]], "token": "hub_%s"}'
    headers = {"Content-Type": "application/json"}
    assert client.post("/api/v1/events", content=heavy % b"unknown", headers=headers).status_code == 401
    assert client.post("/api/v1/events", content=heavy.replace(b"token", b"tokem"), headers=headers).status_code == 401
    assert not parsed
    assert client.post("/api/v1/events", content=heavy % secret[4:].encode(), headers=headers).status_code == 202
    assert len(parsed) == 1
    nested = {"eventname": "e", "other": {"token": secret}}
    assert client.post("/api/v1/events", json=nested).status_code == 401
    assert client.post(
        "/api/v1/events", json={"eventname": "e", "other": {"token": "hub_x"}, "token": secret}
    ).is_success


def test_an_address_that_sends_wrong_tokens_sends_no_large_bodies_any_more(serve: Serve) -> None:
    """A small body may still hold a valid token: nobody locks out others behind the same address."""
    api = serve()
    client = api.client(None)
    _, secret = api.hub.accounts.tokens.add("moodle", "ingest")
    last = client.get("/healthz")
    for _ in range(30):
        last = client.post("/api/v1/events", json={"eventname": "e", "token": "hub_unknown"})
    assert last.status_code == 429
    large = {"eventname": "e", "token": secret, "other": "x" * 100_000}
    assert client.post("/api/v1/events", json=large).status_code == 429
    assert client.post("/api/v1/events", json={"eventname": "e", "token": secret}).status_code == 202


def test_a_long_stream_is_answered_by_counts_and_fills_no_folder(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub.web.api.stream_response.LONGEST", 10_000)
    monkeypatch.setattr(tempfile, "TemporaryFile", None)
    monkeypatch.setattr(tempfile, "SpooledTemporaryFile", None)
    client = serve().client("ingest")
    lines = "\n".join(json.dumps({"name": "e", "data": n}) for n in range(1200))
    headers = {"Content-Type": "application/x-ndjson"}
    answer = client.post("/api/v1/events", content=lines, headers=headers)
    assert (answer.status_code, answer.json()) == (202, {"accepted": 1200, "duplicates": 0, "tasks": 0})
    answer = client.post("/api/v1/events", content=lines, headers=headers)
    assert answer.json() == {"accepted": 1200, "duplicates": 1200, "tasks": 0}


def test_an_error_within_a_stream_says_how_many_lines_were_accepted(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = serve()
    real, calls = api.hub.intake.handle_events, itertools.count()

    def fails(events: list[Event]) -> object:
        if next(calls) == 2:
            raise KeyError("a defect")
        return real(events)

    monkeypatch.setattr(api.hub.intake, "handle_events", fails)
    lines = "\n".join(json.dumps({"name": "e", "data": n}) for n in range(1200))
    answer = api.client("ingest").post(
        "/api/v1/events", content=lines, headers={"Content-Type": "application/x-ndjson"}
    )
    assert answer.status_code == 500 and answer.json()["accepted"] == 1000
    assert "defect" not in answer.text
