"""Limits on wrong passwords and wrong login links."""

from __future__ import annotations

import ipaddress
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from hub.web.rate_limits import RateLimiter, fixed

NAME_LIMIT = 100  # characters; no user has a longer name
# Actions per second in the long run, and at once.
_BY_ADDRESS = (1 / 3, 100)  # many people may share an address
_BY_PAIR = (1 / 30, 10)
_BY_NAME = (1 / 15, 50)  # more than one address can use up, so that one stranger cannot lock a user out
_LINKS = (1 / 3, 30)
_KNOWN = 10_000


class FailedLogins:
    """Says how long to wait before the next password may be tried.

    Three limits apply, in this order: by address, by name and address, by name. An address from which the user has
    logged in since this process started is exempt from the third, so that no number of strangers locks it out.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._addresses = RateLimiter(*_BY_ADDRESS, clock=clock)
        self._pairs = RateLimiter(*_BY_PAIR, clock=clock)
        self._names = RateLimiter(*_BY_NAME, clock=clock)
        self._links = RateLimiter(*_LINKS, clock=clock)
        self._known: OrderedDict[object, None] = OrderedDict()
        self._lock = threading.Lock()

    def address(self, address: str) -> float:
        """Take one try of an address; returns 0, or the seconds to wait."""
        return self._addresses.take(network(address))

    def name(self, name: str, address: str) -> float:
        """Take one try of a name from an address, after `address`; returns 0, or the seconds to wait.

        Raises:
            ValueError: the name is longer than `NAME_LIMIT`; nothing of it is kept.
        """
        if len(name) > NAME_LIMIT:
            raise ValueError("name too long")
        pair = (name.lower(), network(address))
        if wait := self._pairs.take(pair):
            return wait
        return 0.0 if fixed(pair) in self._known else self._names.take(pair[0])

    def right(self, name: str, address: str) -> None:
        """The password was right: the try counts no more."""
        pair = (name.lower(), network(address))
        self._addresses.give(pair[1])
        self._pairs.forget(pair)
        with self._lock:
            if fixed(pair) not in self._known:
                self._names.give(pair[0])
            self._known[fixed(pair)] = None
            self._known.move_to_end(fixed(pair))
            while len(self._known) > _KNOWN:
                self._known.popitem(last=False)

    def link(self, address: str) -> float:
        """Take one try of a login link; returns 0, or the seconds to wait."""
        return self._links.take(network(address))

    def right_link(self, address: str) -> None:
        """The link was good: the try counts no more."""
        self._links.give(network(address))


def network(address: str) -> str:
    """What counts as one address: an IPv4 address, or the /64 of an IPv6 one, which a single customer has."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:NAME_LIMIT]
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)
