"""The web server as a process has it: where it listens, what a slow or broken client does to it, how it ends."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest

from hub.app.lifecycle import Hub, build
from hub.errors import ConfigError
from hub.settings import Settings
from hub.web.server import WebServer
from tests.support import clients
from tests.support.api import Api, serving
from tests.support.hubs import add_rule, add_service, count
from tests.support.waiting import eventually


def connect(api: Api) -> socket.socket:
    place = urlsplit(api.url)
    return socket.create_connection((place.hostname, place.port or 80), timeout=120)


def answer(connection: socket.socket) -> bytes:
    """Everything until the server closes, or has said all of an answer that closes."""
    got = b""
    while chunk := connection.recv(65536):
        got += chunk
        if b"\r\n\r\n" in got and b"}" in got:
            break
    return got


def test_an_address_that_is_taken_or_none_is_said_so(api: Api) -> None:
    taken = api.url.removeprefix("http://")
    for listen, words in (
        (taken, "cannot listen"),
        ("nowhere", "host:port"),
        ("127.0.0.1:99999", "host:port"),
        ("192.0.2.1:0", "cannot listen"),
    ):
        hub = _Listening(api.hub, listen)
        with pytest.raises(ConfigError, match=f"HUB_LISTEN: .*{words}"):
            WebServer(hub)  # type: ignore[arg-type]


class _Listening:
    """A hub with another address."""

    def __init__(self, hub: Hub, listen: str) -> None:
        self._hub = hub
        self.settings = hub.settings.model_copy(update={"listen": listen})

    def __getattr__(self, name: str) -> object:
        return getattr(self._hub, name)


def test_ipv6_and_every_address_are_shown_as_one_can_reach_them(alone: Settings) -> None:
    with build(alone.model_copy(update={"listen": "[::1]:0"}), role="up") as hub, WebServer(hub) as server:
        assert server.url.startswith("http://[::1]:")
        assert clients.get(f"{server.url}/healthz").json() == {"status": "ok"}
    with build(alone.model_copy(update={"listen": "0.0.0.0:0"}), role="up") as hub, WebServer(hub) as server:
        assert server.url.startswith("http://127.0.0.1:")


def test_answers_do_not_wait_for_acknowledgements(api: Api) -> None:
    """Nagle's algorithm and delayed acknowledgements together cost every answer 40 ms."""
    with WebServer(api.hub) as server:
        assert server._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_sender_that_goes_away_leaves_nothing(api: Api) -> None:
    add_service(api.hub, "http://127.0.0.1:9/")
    add_rule(api.hub)
    token = api.client("ingest").headers["Authorization"]
    with connect(api) as gone:
        gone.sendall(
            b"POST /api/v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n"
            b"Authorization: " + token.encode() + b'\r\n\r\n{"name": "e"}'
        )
    assert api.client("view").get("/api/v1/stats").status_code == 200
    assert count(api.hub, "events") == 0


def test_a_head_without_end_is_refused(api: Api) -> None:
    """Anybody may connect; nobody may fill the memory."""
    with connect(api) as endless:
        endless.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: ")
        try:
            for _ in range(1000):
                endless.sendall(b"x" * 4096)
            got = endless.recv(100)
        except OSError:
            got = b""
        assert got == b"" or b" 431 " in got.split(b"\r\n")[0]
    assert api.client(None).get("/healthz").status_code == 200


def test_a_body_far_too_long_is_refused_before_it_comes(api: Api) -> None:
    token = api.client("ingest").headers["Authorization"]
    with connect(api) as big:
        big.sendall(
            b"POST /api/v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 99999999999\r\nAuthorization: " + token.encode() + b"\r\n\r\n"
        )
        assert b" 413 " in answer(big).split(b"\r\n")[0]


def test_what_is_under_way_ends_before_the_server_does(alone: Settings) -> None:
    """A stop must not cut off an event that is being accepted."""
    with build(alone.model_copy(update={"listen": "127.0.0.1:0"}), role="up") as hub:
        server = WebServer(hub)
        server.start()
        api = Api(hub, server.url)
        client = api.client("ingest")
        begun, go_on = threading.Event(), threading.Event()
        real = hub.intake.handle_event

        def slow(event: object) -> object:
            begun.set()
            assert go_on.wait(120)
            return real(event)  # type: ignore[arg-type]

        hub.intake.handle_event = slow  # type: ignore[method-assign,assignment]
        with ThreadPoolExecutor(2) as pool:
            sent = pool.submit(client.post, "/api/v1/events", json={"name": "e"})
            assert begun.wait(120)
            stopped = pool.submit(server.stop)
            eventually(lambda: not _accepts(api))
            go_on.set()
            assert sent.result(120).status_code == 202
            stopped.result(120)
        api.close()


def _accepts(api: Api) -> bool:
    try:
        connect(api).close()
    except OSError:
        return False
    return True


def test_many_at_once_are_served_and_one_too_many_is_told_to_come_again(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Back-pressure: what would only wait in memory is refused with Retry-After."""
    client = api.client("ingest")
    monkeypatch.setattr("hub.web.api.events._AT_ONCE", 1)
    with serving(api.hub) as narrow:
        _one_too_many(narrow, client, monkeypatch)


def _one_too_many(api: Api, client: clients.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    place = f"{api.url}/api/v1/events"
    begun, go_on = threading.Event(), threading.Event()
    real = api.hub.intake.handle_event

    def slow(event: object) -> object:
        begun.set()
        assert go_on.wait(120)
        return real(event)  # type: ignore[arg-type]

    monkeypatch.setattr(api.hub.intake, "handle_event", slow)
    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(client.post, place, json={"name": "e"})
        assert begun.wait(120)
        chunks = iter([b'{"name": ', b'"e"}'])  # such a request does not take the fast path, which has its own limit
        refused = client.post(place, content=chunks, headers={"Content-Type": "application/json"})
        assert refused.status_code == 503 and refused.headers["Retry-After"] == "1"
        go_on.set()
        assert sent.result(120).status_code == 202
