"""Connections of the REST transport: reuse, replacement, proxies, descriptors."""

from __future__ import annotations

import os
import resource
import select
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from hub.errors import (
    ConnectError,
    EgressRefusedError,
    UnavailableError,
)
from hub.models import Request
from hub.settings import Settings
from hub.transports.base import Deadline
from hub.transports.http import pool as http_pool
from hub.transports.http.adapter import HubAdapter
from hub.transports.rest import RestTransport
from tests.integration.rest.calls import PATIENCE, send, service
from tests.support.certificates import Authority
from tests.support.http_target import HttpTarget, Reply
from tests.support.raw_server import RawServer
from tests.support.waiting import eventually


class TestConnections:
    def test_one_serves_many_requests(self, transport: RestTransport, target: HttpTarget) -> None:
        target.default = Reply(200, {"ok": True})
        for _ in range(5):
            send(transport, target.url)
        assert target.connections == 1

    def test_one_that_the_server_closed_meanwhile_is_replaced(
        self, transport: RestTransport, target: HttpTarget
    ) -> None:
        """A restarted service must not cost an attempt."""
        send(transport, target.url)
        target.drop()
        assert send(transport, target.url).status == 204
        assert target.connections == 2

    def test_one_try_is_one_send_even_on_a_used_connection(self, transport: RestTransport) -> None:
        """`max_retries * 5` is the most a service sees: the transport must not retry behind the policy's back."""
        got: list[bytes] = []

        def serve(sock: socket.socket) -> None:
            while data := sock.recv(65536):
                got.append(data)
                if b"/break" in data:
                    return
                sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

        with RawServer(serve) as server:
            send(transport, server.url, Request("/fine"))
            with pytest.raises(ConnectError):
                send(transport, server.url, Request("/break", idempotency_key="k"))
        assert len(got) == 2

    def test_many_threads_share_them_and_get_their_own_answers(
        self, transport: RestTransport, target: HttpTarget
    ) -> None:
        target.default = lambda seen: Reply(200, seen.body)
        fixed = service(target.url)

        def ask(number: int) -> bool:
            return transport.send(fixed, Request(body=str(number)), Deadline(PATIENCE)).body == str(number)

        with ThreadPoolExecutor(16) as pool:
            assert all(pool.map(ask, range(400)))
        assert target.connections <= 17

    def test_a_changed_service_counts_at_once(self, transport: RestTransport, target: HttpTarget) -> None:
        send(transport, target.url, auth_type="bearer", secrets={"token": "one"})
        send(transport, target.url, auth_type="bearer", secrets={"token": "two"}, version=2)
        assert [seen.headers["authorization"] for seen in target.seen] == ["Bearer one", "Bearer two"]

    def test_one_that_was_idle_for_long_is_not_used(
        self, monkeypatch: pytest.MonkeyPatch, transport: RestTransport, target: HttpTarget
    ) -> None:
        """Servers close idle connections; a request that crosses the closing would be lost, and counted as failed."""
        monkeypatch.setattr(http_pool, "IDLE", 0.0)
        send(transport, target.url)
        send(transport, target.url)
        assert target.connections == 2

    def test_failures_leave_no_descriptor_open(self, target: HttpTarget) -> None:
        target.on("/cut", lambda seen: Reply(200, "x" * 5000, close=True))

        def hang_up(sock: socket.socket) -> None:
            sock.recv(10)

        with RawServer(hang_up) as breaking:
            before = len(os.listdir("/proc/self/fd"))
            transport = RestTransport(Settings(response_limit=1024))
            for _ in range(20):
                for url in (breaking.url, "http://127.0.0.1:1", breaking.url.replace("http:", "https:")):
                    with pytest.raises(ConnectError):
                        send(transport, url, seconds=PATIENCE)
                send(transport, target.url, Request("/cut"))
            transport.close()
            target.drop()
            eventually(lambda: len(os.listdir("/proc/self/fd")) <= before, what="closing")

    def test_no_more_descriptors_is_the_hubs_own_fault(self, transport: RestTransport, target: HttpTarget) -> None:
        """It must cost the service no attempt and move no breaker."""
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        url, deadline = service(target.url), Deadline(PATIENCE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            with pytest.raises(UnavailableError, match="no more connections"):
                transport.send(url, Request(), deadline)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    def test_nobody_listening_is_a_connect_error(self, transport: RestTransport) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        with pytest.raises(ConnectError, match=f"127.0.0.1:{port}: connection refused"):
            send(transport, f"http://127.0.0.1:{port}")

    def test_an_unknown_name_is_a_connect_error(self, transport: RestTransport) -> None:
        with pytest.raises(ConnectError, match=r"no address for nowhere\.invalid"):
            send(transport, "http://nowhere.invalid/")

    def test_a_proxy_of_the_environment_is_used_only_when_set_so(
        self, monkeypatch: pytest.MonkeyPatch, target: HttpTarget
    ) -> None:
        with HttpTarget(Reply(200, "by proxy")) as proxy:
            monkeypatch.setenv("http_proxy", proxy.url.replace("//", "//u:p@"))
            monkeypatch.delenv("no_proxy", raising=False)
            monkeypatch.delenv("NO_PROXY", raising=False)
            for settings, body in ((Settings(), None), (Settings(egress_proxy=True), "by proxy")):
                transport = RestTransport(settings)
                assert send(transport, target.url.replace("127.0.0.1", "localhost"), Request("/x")).body == body
                transport.close()
            (seen,) = proxy.seen
            assert seen.path == f"http://localhost:{target.port}/x"
            assert seen.headers["proxy-authorization"] == "Basic dTpw"

    def test_an_https_service_is_reached_through_a_tunnel(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        authority = Authority(tmp_path)
        asked: list[bytes] = []

        secure = HttpTarget(Reply(200, "through"), tls=authority.server())

        def serve(sock: socket.socket) -> None:
            asked.append(sock.recv(4096))
            if len(asked) > 1:
                sock.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
                return
            with socket.create_connection(("127.0.0.1", secure.port)) as far:
                sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                while ready := select.select([sock, far], [], [], 10)[0]:
                    data = ready[0].recv(65536)
                    if not data:
                        return
                    (far if ready[0] is sock else sock).sendall(data)

        with secure, RawServer(serve) as proxy:
            monkeypatch.setenv("https_proxy", proxy.url)
            for name in ("no_proxy", "NO_PROXY"):
                monkeypatch.delenv(name, raising=False)
            transport = RestTransport(Settings(egress_proxy=True))
            url = secure.url.replace("127.0.0.1", "localhost")
            assert send(transport, url, options={"ca_file": authority.file}).body == "through"
            assert asked[0].startswith(f"CONNECT localhost:{secure.port} HTTP/1.1\r\n".encode())
            with pytest.raises(ConnectError, match=r"proxy does not connect .* HTTP 403"):
                send(transport, url, options={"ca_file": authority.file}, version=2)
            with pytest.raises(EgressRefusedError):
                send(transport, "https://169.254.169.254")
            transport.close()


def test_the_adapter_serves_a_session_too(target: HttpTarget) -> None:
    """SOAP's library wants a `requests` session."""
    target.default = Reply(200, "<ok/>", {"Content-Type": "text/xml"})
    with requests.Session() as session:
        session.mount("http://", HubAdapter(Settings()))
        answer = session.post(f"{target.url}/soap?wsdl", data="<é/>".encode(), headers={"SOAPAction": '"x"'}, timeout=5)
    assert (answer.status_code, answer.text, answer.headers["content-type"]) == (200, "<ok/>", "text/xml")
    assert (target.seen[0].body, target.seen[0].query) == ("<é/>".encode(), "wsdl")
