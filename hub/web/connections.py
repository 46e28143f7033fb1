"""HTTP connections with limits: how many, how long each phase may last, how large a request's head may be.

Every connection is in one phase. `IDLE`: no request has begun, or its head is not complete. `BUSY`: a request is being
read or handled. `CLOSING`: the response is sent, the rest of the request is read and dropped so that the client gets to
read the response. `STALLED`: the client does not read its response. All but `BUSY` end by themselves after a time-out,
and earlier when their place is needed: a client that sends its request at once is served however many wait.
"""

from __future__ import annotations

import asyncio
import resource
from collections import Counter
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from hub.web.addresses import Networks, client_key

HEAD_LIMIT = 16 * 1024
"""Most bytes of a request's head, and of anything else that is not body (chunk extensions, trailers)."""
_MOST_HEADERS = 100
_TOO_LARGE_TEXT = b"The head of the request is larger than 16 KiB, or has more than 100 headers."
_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"content-length: %d\r\nconnection: close\r\n\r\n%s"
) % (len(_TOO_LARGE_TEXT), _TOO_LARGE_TEXT)
_MOST_PIPELINED = 16
_SWEEP = 0.5  # seconds between two looks at the time-outs


class Phase(Enum):
    """What a connection is doing."""

    IDLE = "idle"
    BUSY = "busy"
    CLOSING = "closing"
    STALLED = "stalled"


class Limits:
    """The connections of one server and their limits. Used on the event loop's thread only.

    Args:
        most: connections in all.
        per_address: connections of one address; addresses of `trusted` proxies are only bounded by `most`.
        idle: seconds in which the head of a request has to arrive, and that a connection may stay unused.
        stall: seconds in which a client has to read what fits its receive window.
    """

    def __init__(self, most: int, per_address: int, trusted: Sequence[str], *, idle: float, stall: float) -> None:
        self.most = most
        self.per_address = per_address
        self.idle = idle
        self.stall = stall
        self._trusted = Networks(trusted)
        self._open: dict[Connection, None] = {}  # oldest first
        self._by_address: Counter[str] = Counter()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._open)

    def trusts(self, address: str) -> bool:
        """Whether an address is one of a trusted proxy."""
        return address in self._trusted

    def add(self, connection: Connection) -> bool:
        """Count a new connection; False: there is no place, not even by closing another."""
        address = connection.address
        if not connection.trusted and self._by_address[address] >= self.per_address:
            if not self._evict(lambda other: other.address == address):
                return False
        elif len(self._open) >= self.most and not self._evict(lambda _: True):
            return False
        self._open[connection] = None
        self._by_address[address] += 1
        if self._timer is None:
            self._timer = connection.loop.call_later(_SWEEP, self._sweep, connection.loop)
        return True

    def remove(self, connection: Connection) -> None:
        """Count a connection no more."""
        if connection in self._open:
            del self._open[connection]
            self._by_address[connection.address] -= 1
            if not self._by_address[connection.address]:
                del self._by_address[connection.address]

    def _evict(self, which: Callable[[Connection], bool]) -> bool:
        """Close the connection that has been longest in a phase in which nothing is lost."""
        found = min((c for c in self._open if c.phase is not Phase.BUSY and which(c)), key=_since, default=None)
        if found is None:
            return False
        self.remove(found)
        found.transport.abort()
        return True

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for connection in [c for c in self._open if now - c.since > self._longest(c.phase)]:
            connection.transport.abort()
        self._timer = loop.call_later(_SWEEP, self._sweep, loop) if self._open else None

    def _longest(self, phase: Phase) -> float:
        if phase is Phase.BUSY:
            return float("inf")
        return self.stall if phase is Phase.STALLED else self.idle


def _since(connection: Connection) -> float:
    return connection.since


def most_connections(wanted: int) -> int:
    """`wanted`, but not more than half of the file descriptors that this process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if soft == resource.RLIM_INFINITY else max(8, min(wanted, soft // 2))


class Connection(HttpToolsProtocol):
    """One connection: uvicorn's protocol on llhttp, with `Limits` and a strict reading of requests."""

    def __init__(self, limits: Limits, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._limits = limits
        self._unread = 0  # bytes since something of the request was last complete
        self._in_message = False  # the head is complete, the body is not
        self._count = 0  # headers, and their bytes
        self._size = 0
        self._stalled = False
        self._head_too_large = False
        self.address = "?"
        self.trusted = False
        self.phase = Phase.IDLE
        self.since = self.loop.time()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self.client is not None:
            self.trusted = self._limits.trusts(self.client[0])
            self.address = client_key(self.client[0])
        if not self._limits.add(self):
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._limits.remove(self)
        super().connection_lost(exc)
        self._unset_keepalive_if_required()

    def data_received(self, data: bytes) -> None:
        if self.parser is None or self.transport.is_closing():
            return
        self._unread += len(data)
        super().data_received(data)
        if self._unread > HEAD_LIMIT and self.parser is not None and not self.transport.is_closing():
            self._head_too_large = not self._in_message
            self.send_400_response("Too many bytes that are not body.")

    def send_400_response(self, msg: str) -> None:
        """Refuse with 400, or 431 for a head over the limits, and close.

        Only closes when the response could be taken as that to another request.
        """
        started = self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete
        if self.pipeline or started:
            self.transport.abort()
            return
        if self._head_too_large:
            self.transport.write(_TOO_LARGE)
            self.transport.close()
        else:
            super().send_400_response(msg)
        self._enter(Phase.CLOSING)

    def _unsupported_upgrade_warning(self) -> None:
        """An upgrade is ignored, as HTTP allows; a stranger must not fill the log."""

    # The parser's callbacks. What they raise refuses the request with 400 or 431.

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._count = self._size = 0

    def on_url(self, url: bytes) -> None:
        self._add(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count += 1
        self._add(len(name) + len(value))
        if not self._in_message:  # a trailer is no header: it comes after everything was decided
            super().on_header(name, value)

    def _add(self, size: int) -> None:
        self._size += size
        if self._count > _MOST_HEADERS or self._size > HEAD_LIMIT:
            self._head_too_large = not self._in_message
            raise ValueError("too many headers")

    def on_headers_complete(self) -> None:
        self._unread = 0
        version = self.parser.get_http_version()
        names = Counter(name for name, _ in self.headers)
        if version not in ("1.1", "1.0") or (version == "1.1" and names[b"host"] != 1) or names[b"host"] > 1:
            raise ValueError("no HTTP/1 request with one Host")
        if b"transfer-encoding" in names:
            coding = [value.lower() for name, value in self.headers if name == b"transfer-encoding"]
            # With a length beside it, or in HTTP/1.0, two readers may see two different ends of the request.
            if coding != [b"chunked"] or b"content-length" in names or version == "1.0":
                raise ValueError("only chunked is understood")
        if len(self.pipeline) >= _MOST_PIPELINED:
            raise ValueError("too many requests at once")
        self._in_message = True
        super().on_headers_complete()
        self._enter(Phase.BUSY)

    def on_body(self, body: bytes) -> None:
        self._unread = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unread = 0
        self._in_message = False
        super().on_message_complete()
        if self.phase is Phase.CLOSING and not self.transport.is_closing():
            self._enter(Phase.IDLE)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.pipeline and (self.cycle is None or self.cycle.response_complete):
            self._enter(Phase.CLOSING if self._in_message or self.transport.is_closing() else Phase.IDLE)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled = True
        self._enter(self.phase)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stalled = False
        if self.cycle is not None and not self.cycle.response_complete:
            self._enter(Phase.BUSY)
        else:
            self._enter(Phase.CLOSING if self._in_message or self.transport.is_closing() else Phase.IDLE)

    def _enter(self, phase: Phase) -> None:
        self.phase = Phase.STALLED if self._stalled else phase
        self.since = self.loop.time()
