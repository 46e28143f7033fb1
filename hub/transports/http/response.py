"""Read an HTTP/1.1 response from an open connection before a deadline.

Parsing costs a fraction of the CPU time of `http.client`. Head, body and number of chunks are bounded, and bytes after
the end of a response make the connection not reusable. After some small reads the reader pauses before each read,
so that a service that sends single bytes costs few system calls.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

from hub.errors import ConnectError, TimedOutError
from hub.transports.base import Deadline
from hub.transports.http.connection import HttpConnection, reason

HEAD_LIMIT = 65_536  # bytes of the status line and headers
_CHUNK = 65_536
_MOST_CHUNKS = 10_000  # of one body; later ones are not read
_MOST_LINES = 1_000  # of a head
_SMALL = 512  # bytes; a read of fewer is a small one
_FREE_READS = 16  # small reads per response without a pause
_PAUSES = (0.001, 0.05)  # seconds before a small read: the increment for each, and the maximum
_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")
_STATUS = re.compile(rb"HTTP/1\.([01]) +([1-9][0-9]{2})(?: .*)?\r?")
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;[^\r\n]*)?\r")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


@dataclass(slots=True)
class RawResponse:
    """A response as received. `cut`: the body was longer than the limit; `reusable`: the connection may be reused."""

    status: int
    headers: dict[str, str]
    body: bytes = b""
    cut: bool = False
    reusable: bool = False


class ResponseReader:
    """Buffers what was received and not yet parsed; each read has the time that the deadline leaves."""

    __slots__ = ("_at", "_connection", "_data", "_deadline", "_small", "_started", "_where")

    def __init__(self, connection: HttpConnection, deadline: Deadline, where: str) -> None:
        self._connection = connection
        self._deadline = deadline
        self._where = where
        self._started: int | None = None  # status, once known
        self._data = b""
        self._at = 0  # bytes before it are consumed
        self._small = 0  # small reads so far

    @property
    def rest(self) -> bool:
        """Whether received bytes are left over."""
        return self._at < len(self._data)

    def receive(self, most: int = _CHUNK) -> bytes:
        """Receive some bytes; empty at the end of the stream."""
        if self._small > _FREE_READS:
            pause = min(_PAUSES[0] * (self._small - _FREE_READS), _PAUSES[1])
            time.sleep(min(pause, self._deadline.remaining))
        try:
            got = self._connection.receive(most, self._deadline)
            if len(got) < _SMALL:
                self._small += 1
            return got
        except TimeoutError:
            pass
        except OSError as e:
            raise self.lost(reason(e)) from None
        if self._started is not None:
            text = f"{self._where} began to respond (HTTP {self._started}) but did not finish in time"
            raise TimedOutError(text, status=self._started)
        raise TimedOutError(f"{self._where} did not respond in time")

    def lost(self, why: str) -> ConnectError:
        """The error for a response that ended early or is malformed."""
        began = f" in the middle of the response (HTTP {self._started})" if self._started is not None else ""
        return ConnectError(f"the connection to {self._where} ended{began}: {why}", status=self._started)

    def more(self) -> None:
        """Receive at least one more byte."""
        got = self.receive()
        if not got:
            raise self.lost("closed" if self._started is not None else "closed without a response")
        self._data = self._data[self._at :] + got
        self._at = 0

    def read_head(self) -> tuple[RawResponse, int]:
        """Read the head. Returns status and headers (names in lower case), and the minor HTTP version."""
        while not (end := _END_OF_HEAD.search(self._data, self._at)):
            if len(self._data) - self._at > HEAD_LIMIT:
                raise self.lost("headers too long")
            self.more()
        lines = self._data[self._at : end.start()].split(b"\n", _MOST_LINES + 1)
        if len(lines) > _MOST_LINES:
            raise self.lost("too many headers")
        self._at = end.end()
        status = _STATUS.fullmatch(lines[0])
        if not status:
            raise self.lost("the response is not HTTP")
        headers: dict[str, str] = {}
        name = ""
        for line in lines[1:]:
            text = line.decode("latin-1")
            if text[:1] in " \t":  # obsolete line folding, RFC 9112 section 5.2
                if name:
                    headers[name] += " " + text.strip(" \t\r")
                continue
            name, colon, value = text.partition(":")
            name = name.lower()
            value = value.strip(" \t\r")
            if not colon or not _NAME.fullmatch(name) or "\r" in value:
                raise self.lost("the response's headers are malformed")
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        response = RawResponse(int(status[2]), headers)
        if response.status >= 200:
            self._started = response.status
        return response, int(status[1])

    def take(self, count: int) -> bytes:
        """Read exactly `count` bytes."""
        taken = self._data[self._at : self._at + count]
        self._at += len(taken)
        if len(taken) == count:
            return taken
        parts, missing = [taken], count - len(taken)
        while missing:
            got = self.receive()
            if not got:
                raise self.lost("closed")
            if len(got) > missing:
                self._data, self._at, got = got, missing, got[:missing]
            parts.append(got)
            missing -= len(got)
        return b"".join(parts)

    def line(self) -> bytes:
        """Read one line of at most 4 KiB; returned without its LF, with its CR."""
        while (end := self._data.find(b"\n", self._at)) < 0:
            if len(self._data) - self._at > 4096:
                raise self.lost("the response is malformed")
            self.more()
        taken = self._data[self._at : end]
        self._at = end + 1
        return taken

    def to_end(self, limit: int) -> bytes:
        """Read until the peer closes, or until more than `limit` bytes are there."""
        parts = [self._data[self._at :]]
        size = len(parts[0])
        self._at = len(self._data)
        while size <= limit and (got := self.receive()):
            parts.append(got)
            size += len(got)
        return b"".join(parts)


def read_body(reader: ResponseReader, response: RawResponse, method: str, version: int, limit: int) -> None:
    """Read the body into `response`, at most `limit` bytes (RFC 9112 section 6.3)."""
    headers, status = response.headers, response.status
    connection = headers.get("connection", "").lower()
    keep = "close" not in connection if version else "keep-alive" in connection
    if method == "HEAD" or status in (101, 204, 304):
        response.reusable = keep and status != 101 and not reader.rest
        return
    if (coding := headers.get("transfer-encoding")) is not None:
        codings = [part.strip(" \t").lower() for part in coding.split(",")]
        if "" in codings or "chunked" in codings[:-1]:
            raise reader.lost("the response's transfer encoding is malformed")
        if codings[-1] == "chunked":
            _read_chunks(reader, response, limit)
            response.reusable = keep and not response.cut and not reader.rest and "content-length" not in headers
        else:
            _read_to_end(reader, response, limit)
    elif (length := headers.get("content-length")) is not None:
        sizes = {part.strip(" \t") for part in length.split(",")}
        size = sizes.pop()
        if sizes or not (size.isascii() and size.isdigit()) or len(size) > 18:
            raise reader.lost("the response's length is malformed")
        response.cut = int(size) > limit
        response.body = reader.take(min(int(size), limit))
        response.reusable = keep and not response.cut and not reader.rest
    else:
        _read_to_end(reader, response, limit)


def _read_chunks(reader: ResponseReader, response: RawResponse, limit: int) -> None:
    parts: list[bytes] = []
    left = limit
    while True:
        match = _SIZE.fullmatch(reader.line())
        if not match:
            raise reader.lost("the response's chunks are malformed")
        size = int(match[1], 16)
        if not size:
            break
        response.cut = size > left or len(parts) >= _MOST_CHUNKS
        parts.append(reader.take(min(size, left)))
        if response.cut:
            break
        left -= size
        if reader.line() != b"\r":
            raise reader.lost("the response's chunks are malformed")
    response.body = b"".join(parts)
    for _ in range(100) if not response.cut else ():
        if reader.line() in (b"\r", b""):
            return
    if not response.cut:
        raise reader.lost("too many trailers")


def _read_to_end(reader: ResponseReader, response: RawResponse, limit: int) -> None:
    body = reader.to_end(limit)
    response.body, response.cut = body[:limit], len(body) > limit
