"""Stage 9: HTTP/1.1 on an open socket: one request out, one answer in, all of it before the deadline.

Written for the hub because `http.client` gives every read the whole timeout again (a service that sends a byte
a second holds a worker for ever), sends head and body as two packets, and costs several times the CPU.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass

from hub.errors import ConnectError, InvalidPayloadError, TimedOutError
from hub.transports.base import Deadline

HEAD_LIMIT = 65_536  # bytes of an answer's status line and headers
_CHUNK = 65_536
_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")
_STATUS = re.compile(rb"HTTP/1\.([01]) +([1-9][0-9]{2})(?: .*)?\r?")
_SIZE = re.compile(rb"[0-9A-Fa-f]{1,15}")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FORBIDDEN = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_FRAMING = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "expect"}
)
_BODY_EXPECTED = frozenset({"POST", "PUT", "PATCH"})


@dataclass(slots=True)
class Incoming:
    """An answer as it came. `cut`: the body was longer than the limit; `reusable`: the connection may serve again."""

    status: int
    headers: dict[str, str]
    body: bytes = b""
    cut: bool = False
    reusable: bool = False


def head(method: str, target: str, authority: str, headers: Mapping[str, str], body: bytes | None) -> bytes:
    """Request line and headers, with the framing that fits the body.

    Raises:
        InvalidPayloadError: a header would smuggle in another one, or frames the message itself.
    """
    lines = [f"{method} {target} HTTP/1.1\r\nHost: {authority}"]
    for name, value in headers.items():
        if not _NAME.fullmatch(name) or name.lower() in _FRAMING:
            raise InvalidPayloadError(f"header {name[:100]!r} may not be set")
        if _FORBIDDEN.search(value):
            raise InvalidPayloadError(f"header {name!r} holds a control character")
        lines.append(f"{name}: {value}")
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    elif method in _BODY_EXPECTED:
        lines.append("Content-Length: 0")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "replace")


def exchange(sock: socket.socket, method: str, request_head: bytes, body: bytes | None, deadline: Deadline,
             limit: int, where: str) -> Incoming:  # fmt: skip
    """Send a request and read its answer.

    Args:
        limit: most bytes of the body that are read; the rest is left, and the connection not reusable.
        where: names the peer in error texts.

    Raises:
        TimedOutError: no complete answer before the deadline; ConnectError: the peer broke off or speaks no HTTP.
    """
    reader = _Reader(sock, deadline, where)
    try:
        _send(sock, request_head + body if body else request_head, deadline)
    except TimeoutError:
        raise TimedOutError(f"{where} did not take the request in time") from None
    except (BrokenPipeError, ConnectionResetError):
        pass  # it may have answered before it had read everything
    except OSError as e:
        raise ConnectError(f"connection to {where} lost: {reason(e)}") from None
    while True:
        answer, version = reader.read_head()
        if answer.status >= 200 or answer.status == 101:
            break
    _read_body(reader, answer, method, version, limit)
    return answer


def reason(error: OSError) -> str:
    """An OS or TLS error in words, without the numbers."""
    if isinstance(error, ssl.SSLError):
        return (error.reason or "protocol error").replace("_", " ").lower()
    return (error.strerror or type(error).__name__).lower()


def _send(sock: socket.socket, data: bytes, deadline: Deadline) -> None:
    sock.settimeout(deadline.remaining or 0.001)
    sent = sock.send(data)
    if sent == len(data):
        return
    rest = memoryview(data)[sent:]
    while rest:
        left = deadline.remaining
        if left <= 0:
            raise TimeoutError
        sock.settimeout(left)
        rest = rest[sock.send(rest) :]


class _Reader:
    """What came in and is not yet used up; every read gets only the time that is left."""

    __slots__ = ("_deadline", "_sock", "_started", "_where", "data")

    def __init__(self, sock: socket.socket, deadline: Deadline, where: str) -> None:
        self._sock = sock
        self._deadline = deadline
        self._where = where
        self._started: int | None = None  # status, once known
        self.data = b""

    def receive(self, most: int = _CHUNK) -> bytes:
        """Some bytes; empty at the end of the stream."""
        left = self._deadline.remaining
        try:
            if left > 0:
                self._sock.settimeout(left)
                return self._sock.recv(most)
        except TimeoutError:
            pass
        except OSError as e:
            raise self.lost(reason(e)) from None
        if self._started is not None:
            text = f"{self._where} began to answer (HTTP {self._started}) but did not end in time"
            raise TimedOutError(text, status=self._started)
        raise TimedOutError(f"{self._where} did not answer in time")

    def lost(self, why: str) -> ConnectError:
        began = f" in the middle of its answer (HTTP {self._started})" if self._started is not None else ""
        return ConnectError(f"{self._where} broke off{began}: {why}", status=self._started)

    def more(self) -> None:
        """At least one byte more in `data`."""
        got = self.receive()
        if not got:
            raise self.lost("connection closed" if self._started is not None else "connection closed without an answer")
        self.data = self.data + got if self.data else got

    def read_head(self) -> tuple[Incoming, int]:
        """Status and headers (names in lower case), and the minor HTTP version."""
        start = 0
        while not (end := _END_OF_HEAD.search(self.data, start)):
            start = max(0, len(self.data) - 3)
            if len(self.data) > HEAD_LIMIT:
                raise self.lost("headers too long")
            self.more()
        lines = self.data[: end.start()].split(b"\n")
        self.data = self.data[end.end() :]
        status = _STATUS.fullmatch(lines[0])
        if not status:
            raise self.lost("the answer is not HTTP")
        headers: dict[str, str] = {}
        name = ""
        for line in lines[1:]:
            text = line.decode("latin-1")
            if text[:1] in " \t":  # an old way to continue a value
                if name:
                    headers[name] += " " + text.strip()
                continue
            name, colon, value = text.partition(":")
            name = name.lower()
            if not colon or not _NAME.fullmatch(name):
                raise self.lost("the answer's headers are malformed")
            value = value.strip()
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        answer = Incoming(int(status[2]), headers)
        if answer.status >= 200:
            self._started = answer.status
        return answer, int(status[1])

    def take(self, count: int) -> bytes:
        """Exactly `count` bytes."""
        if len(self.data) >= count:
            taken, self.data = self.data[:count], self.data[count:]
            return taken
        parts, missing = [self.data], count - len(self.data)
        self.data = b""
        while missing:
            got = self.receive(min(missing, _CHUNK))
            if not got:
                raise self.lost("connection closed")
            parts.append(got)
            missing -= len(got)
        return b"".join(parts)

    def line(self) -> bytes:
        """One line without its end; at most 4 KiB."""
        while (end := self.data.find(b"\n")) < 0:
            if len(self.data) > 4096:
                raise self.lost("the answer is malformed")
            self.more()
        taken, self.data = self.data[:end], self.data[end + 1 :]
        return taken.rstrip(b"\r")


def _read_body(reader: _Reader, answer: Incoming, method: str, version: int, limit: int) -> None:
    headers, status = answer.headers, answer.status
    connection = headers.get("connection", "").lower()
    keep = "close" not in connection if version else "keep-alive" in connection
    if method == "HEAD" or status in (101, 204, 304):
        answer.reusable = keep and status != 101 and not reader.data
        return
    if coding := headers.get("transfer-encoding"):
        if coding.rpartition(",")[2].strip().lower() == "chunked":
            _read_chunks(reader, answer, limit)
            answer.reusable = keep and not answer.cut and not reader.data and "content-length" not in headers
        else:
            _read_to_end(reader, answer, limit)
    elif (length := headers.get("content-length")) is not None:
        sizes = {part.strip() for part in length.split(",")}
        size = sizes.pop()
        if sizes or not (size.isascii() and size.isdigit()) or len(size) > 18:
            raise reader.lost("the answer's length is malformed")
        answer.cut = int(size) > limit
        answer.body = reader.take(min(int(size), limit))
        answer.reusable = keep and not answer.cut and not reader.data
    else:
        _read_to_end(reader, answer, limit)


def _read_chunks(reader: _Reader, answer: Incoming, limit: int) -> None:
    parts: list[bytes] = []
    left = limit
    while True:
        match = _SIZE.match(line := reader.line())
        if not match or line[match.end() : match.end() + 1].strip(b" \t;"):
            raise reader.lost("the answer's chunks are malformed")
        size = int(match[0], 16)
        if not size:
            break
        parts.append(reader.take(min(size, left)))
        if size > left:
            answer.cut = True
            break
        left -= size
        if reader.line():
            raise reader.lost("the answer's chunks are malformed")
    answer.body = b"".join(parts)
    for _ in range(100) if not answer.cut else ():
        if not reader.line():
            return
    if not answer.cut:
        raise reader.lost("too many trailers")


def _read_to_end(reader: _Reader, answer: Incoming, limit: int) -> None:
    parts, size = [reader.data], len(reader.data)
    while size <= limit and (got := reader.receive()):
        parts.append(got)
        size += len(got)
    reader.data = b""
    answer.body = b"".join(parts)[:limit]
    answer.cut = size > limit
