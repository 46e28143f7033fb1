"""The deadline of a try holds against slow and silent servers."""

from __future__ import annotations

import select
import socket
import threading
from pathlib import Path

import pytest

from hub.errors import (
    TimedOutError,
)
from hub.models import Request
from hub.settings import Settings
from hub.transports.rest import RestTransport
from tests.integration.rest.calls import send
from tests.support.certificates import Authority
from tests.support.http_target import HttpTarget
from tests.support.raw_server import RawServer


def _never_read(sock: socket.socket) -> None:
    """Holds the connection, reading nothing, until the other side or the test hangs up."""
    poll = select.poll()
    poll.register(sock, select.POLLHUP | select.POLLRDHUP | select.POLLERR)
    poll.poll(30_000)


class TestDeadline:
    """One deadline for everything: a service that sends a byte now and then must not hold a worker."""

    @pytest.mark.parametrize(
        ("opening", "drip"),
        [
            (b"", b""),
            (b"", b"H"),
            (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"a"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n"),
            (b"HTTP/1.1 200 OK\r\n\r\n", b"a"),
        ],
        ids=["silent", "status", "headers", "body", "chunks", "no-length"],
    )
    @pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
    def test_it_holds_against_slow_answers(self, tmp_path: Path, opening: bytes, drip: bytes, secure: bool) -> None:
        released = threading.Event()

        def serve(sock: socket.socket) -> None:
            sock.recv(65536)
            sock.sendall(opening)
            while not server.closing.wait(0.02):  # each read succeeds within the timeout
                sock.sendall(drip)
            released.set()

        authority = Authority(tmp_path) if secure else None
        transport = RestTransport(Settings())
        with RawServer(serve, tls=authority.server() if authority else None) as server:
            with pytest.raises(TimedOutError) as caught:
                send(transport, server.url, seconds=0.3, options={"ca_file": authority.file} if authority else {})
            assert caught.value.status == (200 if b"\r\n\r\n" in opening else None)
            assert not released.is_set()
        transport.close()

    @pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
    def test_it_holds_against_a_service_that_does_not_read(self, tmp_path: Path, secure: bool) -> None:
        authority = Authority(tmp_path) if secure else None
        transport = RestTransport(Settings())
        options = {"ca_file": authority.file} if authority else {}
        with (
            RawServer(_never_read, tls=authority.server() if authority else None) as server,
            pytest.raises(TimedOutError, match="did not receive"),
        ):
            send(transport, server.url, Request(body="x" * 20_000_000), seconds=0.4, options=options)
        transport.close()

    def test_it_holds_against_a_handshake_that_never_ends(self, transport: RestTransport, tmp_path: Path) -> None:
        options = {"ca_file": Authority(tmp_path).file}
        with RawServer(_never_read) as server, pytest.raises(TimedOutError, match="TLS"):
            send(transport, server.url.replace("http:", "https:"), seconds=0.3, options=options)

    def test_a_deadline_that_has_passed_sends_nothing(self, transport: RestTransport, target: HttpTarget) -> None:
        with pytest.raises(TimedOutError):
            send(transport, target.url, seconds=0.0)
        assert not target.seen
