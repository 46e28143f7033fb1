"""HTTP framing: what is understood, what is refused, what counts as a lost connection."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any

import pytest

from hub.errors import (
    ConnectError,
    RejectedError,
    TimedOutError,
)
from hub.models import Request
from hub.transports.base import Deadline
from hub.transports.http import connection as http_connection
from hub.transports.rest import RestTransport
from tests.integration.rest.calls import PATIENCE, send
from tests.support.raw_server import RawServer


class TestWire:
    """Answers as they come from servers that are old, odd or broken."""

    def answered(
        self, transport: RestTransport, *pieces: bytes, method: str = "POST", seconds: float = PATIENCE
    ) -> Any:
        def serve(sock: socket.socket) -> None:
            sock.recv(65536)
            for piece in pieces:
                sock.sendall(piece)

        with RawServer(serve) as server:
            return send(transport, server.url, Request(method=method), seconds=seconds)

    @pytest.mark.parametrize(
        ("pieces", "body"),
        [
            (
                (
                    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                    b"5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nT: 1\r\n\r\n",
                ),
                "hello world",
            ),
            ((b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r", b"\nhel", b"lo\r\n0\r\n\r\n"), "hello"),
            ((b"HTTP/1.0 200 OK\r\n\r\n", b"until ", b"the end"), "until the end"),
            (
                (
                    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n",
                    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
                ),
                "ok",
            ),
            ((b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok",), "ok"),
            ((b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",), "ok"),
            ((b"HTTP/1.1 200 OK\r\nX-Folded: a\r\n b\r\nContent-Length: 2, 2\r\n\r\nok",), "ok"),
        ],
        ids=["chunks", "split", "http10", "interim", "no-phrase", "bare-newlines", "folded"],
    )
    def test_it_is_understood(self, transport: RestTransport, pieces: tuple[bytes, ...], body: str) -> None:
        assert self.answered(transport, *pieces).body == body

    @pytest.mark.parametrize(
        "framing",
        [
            b"Transfer-Encoding: chunked\r\n\r\n2 \r\nok\r\n0\r\n\r\n",
            b"Transfer-Encoding: chunked\r\n\r\n2\t\r\nok\r\n0\r\n\r\n",
            b"Transfer-Encoding: chunked\r\n\r\n 2\r\nok\r\n0\r\n\r\n",
            b"Transfer-Encoding: chunked\r\n\r\n2 ;x\r\nok\r\n0\r\n\r\n",
            b"Transfer-Encoding: chunked\r\n\r\n2\nok\n0\n\n",
            b"Transfer-Encoding: chunked\r\n\r\n2\r\r\nok\r\n0\r\n\r\n",
            b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\r\n0\r\n\r\n",
            b"Transfer-Encoding: chunked\r\n\r\n0x2\r\nok\r\n0\r\n\r\n",
            b"Transfer-Encoding:\r\nContent-Length: 2\r\n\r\nok",
            b"Transfer-Encoding: ,\r\nContent-Length: 2\r\n\r\nok",
            b"Transfer-Encoding: chunked, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            b"Transfer-Encoding\x0b: chunked\r\nContent-Length: 2\r\n\r\nok",
            b"Content-Length : 2\r\n\r\nok",
            b"Content-Length: 2\xa0\r\n\r\nok",
            b"Content-Length: +2\r\n\r\nok",
            b"Content-Length:\r\n\r\nok",
            b"X: a\rContent-Length: 9\r\nContent-Length: 2\r\n\r\nok",
            b"X: y\r\n" * 2000 + b"Content-Length: 2\r\n\r\nok",
        ],
        ids=repr,
    )
    def test_framing_that_two_readers_may_take_differently_is_refused(
        self, transport: RestTransport, framing: bytes
    ) -> None:
        """What a proxy in between reads otherwise would become the next request's answer."""
        with pytest.raises(ConnectError):
            self.answered(transport, b"HTTP/1.1 200 OK\r\n" + framing)

    def test_an_extension_of_a_chunk_is_skipped(self, transport: RestTransport) -> None:
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert self.answered(transport, head + b"2;x=y\r\nok\r\n0\r\n\r\n").body == "ok"

    def test_too_many_chunks_are_cut(self, transport: RestTransport) -> None:
        """Each costs as much as a long one. The status counts all the same: the service has done its work."""
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        body = self.answered(transport, head + b"1\r\na\r\n" * 200_000 + b"0\r\n\r\n").body
        assert body is not None and "too many chunks" in body and body.count("a") < 20_000

    def test_small_pieces_are_read_together(self, transport: RestTransport, monkeypatch: pytest.MonkeyPatch) -> None:
        """Byte by byte, each read costs as much as one of 64 kB, and the process has only one core for all services."""
        reads, sent = [0], [0]
        receive = http_connection.HttpConnection.receive

        def counted(wire: http_connection.HttpConnection, most: int, deadline: Deadline) -> bytes:
            reads[0] += 1
            return receive(wire, most, deadline)

        def serve(sock: socket.socket) -> None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.recv(65536)
            sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            with suppress(OSError):
                while not server.closing.is_set():
                    sock.send(b"a")
                    sent[0] += 1

        monkeypatch.setattr(http_connection.HttpConnection, "receive", counted)
        with RawServer(serve) as server, pytest.raises(TimedOutError):
            send(transport, server.url, seconds=2)
        assert sent[0] > 5000 and reads[0] < 1000, (sent, reads)

    @pytest.mark.parametrize(
        "pieces",
        [
            (),
            (b"SSH-2.0-OpenSSH_9.2\r\n\r\n",),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",),
            (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nabc",),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello!!\r\n",),
            (b"HTTP/1.1 100 Continue\r\n\r\n" * 1000,),
            (b"HTTP/1.1 200 OK\r\nbroken\r\n\r\n",),
            (b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 100_000,),
        ],
        ids=[
            "nothing",
            "ssh",
            "short",
            "lengths",
            "negative",
            "no-chunk",
            "half-chunk",
            "long-chunk",
            "interim",
            "no-colon",
            "endless-head",
        ],
    )
    def test_a_broken_answer_is_a_lost_connection(self, transport: RestTransport, pieces: tuple[bytes, ...]) -> None:
        with pytest.raises(ConnectError) as caught:
            self.answered(transport, *pieces)
        assert not isinstance(caught.value, TimedOutError)

    def test_a_head_request_waits_for_no_body(self, transport: RestTransport) -> None:
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
        assert self.answered(transport, answer, method="HEAD").status == 200

    def test_an_answer_that_comes_before_the_body_was_read_is_heard(self, transport: RestTransport) -> None:
        """Servers refuse a body that is too large and hang up."""

        def serve(sock: socket.socket) -> None:
            sock.recv(1024)
            sock.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(65536):
                pass

        with RawServer(serve) as server, pytest.raises(RejectedError, match="413"):
            send(transport, server.url, Request(body="x" * 5_000_000))
