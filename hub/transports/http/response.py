"""Read an HTTP/1.1 response from an open connection; each read has only the time that is left.

It is parsed for a fraction of what `http.client` spends. Nothing an answer says makes the hub read without bound,
or take part of one answer for another. Small pieces cost little: after some small reads the reader waits a moment
before the next one, so that more comes in at once, and the number of chunks is bounded.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

from hub.errors import ConnectError, TimedOutError
from hub.transports.base import Deadline
from hub.transports.http.wire import Wire, reason

HEAD_LIMIT = 65_536  # bytes of an answer's status line and headers
_CHUNK = 65_536
_MOST_CHUNKS = 10_000  # of one body; what comes after them is not read
_MOST_LINES = 1_000  # of a head
_SMALL = 512  # bytes; a read of fewer is a small one
_FREE_READS = 16  # small reads of one answer without a pause
_PAUSES = (0.001, 0.05)  # seconds before a read: after the first small read too many, growing up to the last
_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")
_STATUS = re.compile(rb"HTTP/1\.([01]) +([1-9][0-9]{2})(?: .*)?\r?")
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;[^\r\n]*)?\r")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


@dataclass(slots=True)
class Incoming:
    """An answer as it came. `cut`: the body was longer than the limit; `reusable`: the connection may serve again."""

    status: int
    headers: dict[str, str]
    body: bytes = b""
    cut: bool = False
    reusable: bool = False


class Reader:
    """What came in and is not yet used up; every read gets only the time that is left."""

    __slots__ = ("_at", "_data", "_deadline", "_small", "_started", "_where", "_wire")

    def __init__(self, wire: Wire, deadline: Deadline, where: str) -> None:
        self._wire = wire
        self._deadline = deadline
        self._where = where
        self._started: int | None = None  # status, once known
        self._data = b""
        self._at = 0  # what stands before it is used up
        self._small = 0  # small reads so far

    @property
    def rest(self) -> bool:
        """Whether something came in that was not asked for."""
        return self._at < len(self._data)

    def receive(self, most: int = _CHUNK) -> bytes:
        """Some bytes; empty at the end of the stream."""
        if self._small > _FREE_READS:
            pause = min(_PAUSES[0] * (self._small - _FREE_READS), _PAUSES[1])
            time.sleep(min(pause, self._deadline.remaining))
        try:
            got = self._wire.receive(most, self._deadline)
            if len(got) < _SMALL:
                self._small += 1
            return got
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
        """At least one byte more."""
        got = self.receive()
        if not got:
            raise self.lost("connection closed" if self._started is not None else "connection closed without an answer")
        self._data = self._data[self._at :] + got
        self._at = 0

    def read_head(self) -> tuple[Incoming, int]:
        """Status and headers (names in lower case), and the minor HTTP version."""
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
            raise self.lost("the answer is not HTTP")
        headers: dict[str, str] = {}
        name = ""
        for line in lines[1:]:
            text = line.decode("latin-1")
            if text[:1] in " \t":  # an old way to continue a value
                if name:
                    headers[name] += " " + text.strip(" \t\r")
                continue
            name, colon, value = text.partition(":")
            name = name.lower()
            value = value.strip(" \t\r")
            if not colon or not _NAME.fullmatch(name) or "\r" in value:
                raise self.lost("the answer's headers are malformed")
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        answer = Incoming(int(status[2]), headers)
        if answer.status >= 200:
            self._started = answer.status
        return answer, int(status[1])

    def take(self, count: int) -> bytes:
        """Exactly `count` bytes."""
        taken = self._data[self._at : self._at + count]
        self._at += len(taken)
        if len(taken) == count:
            return taken
        parts, missing = [taken], count - len(taken)
        while missing:
            got = self.receive()
            if not got:
                raise self.lost("connection closed")
            if len(got) > missing:
                self._data, self._at, got = got, missing, got[:missing]
            parts.append(got)
            missing -= len(got)
        return b"".join(parts)

    def line(self) -> bytes:
        """One line without its LF, the CR included; at most 4 KiB."""
        while (end := self._data.find(b"\n", self._at)) < 0:
            if len(self._data) - self._at > 4096:
                raise self.lost("the answer is malformed")
            self.more()
        taken = self._data[self._at : end]
        self._at = end + 1
        return taken

    def to_end(self, limit: int) -> bytes:
        """All there is until the peer closes, or a little more than `limit` bytes."""
        parts = [self._data[self._at :]]
        size = len(parts[0])
        self._at = len(self._data)
        while size <= limit and (got := self.receive()):
            parts.append(got)
            size += len(got)
        return b"".join(parts)


def read_body(reader: Reader, answer: Incoming, method: str, version: int, limit: int) -> None:
    headers, status = answer.headers, answer.status
    connection = headers.get("connection", "").lower()
    keep = "close" not in connection if version else "keep-alive" in connection
    if method == "HEAD" or status in (101, 204, 304):
        answer.reusable = keep and status != 101 and not reader.rest
        return
    if (coding := headers.get("transfer-encoding")) is not None:
        codings = [part.strip(" \t").lower() for part in coding.split(",")]
        if "" in codings or "chunked" in codings[:-1]:
            raise reader.lost("the answer's transfer encoding is malformed")
        if codings[-1] == "chunked":
            _read_chunks(reader, answer, limit)
            answer.reusable = keep and not answer.cut and not reader.rest and "content-length" not in headers
        else:
            _read_to_end(reader, answer, limit)
    elif (length := headers.get("content-length")) is not None:
        sizes = {part.strip(" \t") for part in length.split(",")}
        size = sizes.pop()
        if sizes or not (size.isascii() and size.isdigit()) or len(size) > 18:
            raise reader.lost("the answer's length is malformed")
        answer.cut = int(size) > limit
        answer.body = reader.take(min(int(size), limit))
        answer.reusable = keep and not answer.cut and not reader.rest
    else:
        _read_to_end(reader, answer, limit)


def _read_chunks(reader: Reader, answer: Incoming, limit: int) -> None:
    parts: list[bytes] = []
    left = limit
    while True:
        match = _SIZE.fullmatch(reader.line())
        if not match:
            raise reader.lost("the answer's chunks are malformed")
        size = int(match[1], 16)
        if not size:
            break
        answer.cut = size > left or len(parts) >= _MOST_CHUNKS
        parts.append(reader.take(min(size, left)))
        if answer.cut:
            break
        left -= size
        if reader.line() != b"\r":
            raise reader.lost("the answer's chunks are malformed")
    answer.body = b"".join(parts)
    for _ in range(100) if not answer.cut else ():
        if reader.line() in (b"\r", b""):
            return
    if not answer.cut:
        raise reader.lost("too many trailers")


def _read_to_end(reader: Reader, answer: Incoming, limit: int) -> None:
    body = reader.to_end(limit)
    answer.body, answer.cut = body[:limit], len(body) > limit
