"""Limits on HTTP connections: their number, and how long each phase may last.

Each connection is in one phase. `IDLE`: no request has begun, or its head is incomplete. `BUSY`: a request is being
read or handled. `CLOSING`: the response is sent; the rest of the request is read and dropped, so that the client reads
the response before a reset. `STALLED`: the client does not read its response. All but `BUSY` end after a time-out, or
earlier when their place is needed, so a client that sends its request at once is served.
"""

from __future__ import annotations

import asyncio
import resource
from collections import Counter
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Protocol

from hub.web.addresses import Networks

_SWEEP = 0.5  # seconds between two checks of the time-outs


class Phase(Enum):
    """What a connection is doing."""

    IDLE = "idle"
    BUSY = "busy"
    CLOSING = "closing"
    STALLED = "stalled"


class Limited(Protocol):
    """A connection, as `Limits` sees it. `since`: the event loop's time at which `phase` began."""

    phase: Phase
    since: float
    address: str
    trusted: bool
    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport


class Limits:
    """The connections of one server and their limits. Used on the event loop's thread only.

    Args:
        most: connections in all.
        per_address: connections of one address; addresses of `trusted` proxies are only bounded by `most`.
        idle: seconds within which the head of a request must arrive, and that a connection may stay unused.
        stall: seconds within which a client must read some of a response.
    """

    def __init__(self, most: int, per_address: int, trusted: Sequence[str], *, idle: float, stall: float) -> None:
        self.most = most
        self.per_address = per_address
        self.idle = idle
        self.stall = stall
        self._trusted = Networks(trusted)
        self._open: dict[Limited, None] = {}  # oldest first
        self._by_address: Counter[str] = Counter()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._open)

    def trusts(self, address: str) -> bool:
        """Whether an address is that of a trusted proxy."""
        return address in self._trusted

    def add(self, connection: Limited) -> bool:
        """Count a new connection; False if the limit is reached and no other connection can be closed."""
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

    def remove(self, connection: Limited) -> None:
        """Uncount a connection."""
        if connection in self._open:
            del self._open[connection]
            self._by_address[connection.address] -= 1
            if not self._by_address[connection.address]:
                del self._by_address[connection.address]

    def _evict(self, which: Callable[[Limited], bool]) -> bool:
        """Close the connection that has been longest in a phase other than `BUSY`."""
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


def _since(connection: Limited) -> float:
    return connection.since


def most_connections(wanted: int) -> int:
    """`wanted`, at most half of the process's limit of file descriptors."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if soft == resource.RLIM_INFINITY else max(8, min(wanted, soft // 2))
