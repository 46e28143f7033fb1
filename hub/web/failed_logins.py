"""Limits on wrong passwords and wrong login links."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from hub.web.addresses import client_key
from hub.web.rate_limits import RateLimiter, fixed

NAME_LIMIT = 100  # characters; no user has a longer name
# (actions per second in the long run, actions at once)
_BY_ADDRESS = (1 / 3, 100)  # many people may share an address
_BY_PAIR = (1 / 30, 10)
_BY_NAME = (1 / 15, 50)  # more than one address can use up, so that one client cannot lock a user out
_LINKS = (1 / 3, 30)
_KNOWN = 10_000


class FailedLogins:
    """Limits on log-in attempts: how long to wait before the next password may be tried.

    Three limits apply, in this order: by address, by name and address, by name. An address from which the user has
    logged in since this process started is exempt from the third, so that other clients cannot lock the user out.
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
        return self._addresses.take(client_key(address))

    def name(self, name: str, address: str) -> float:
        """Take one try of a name from an address, after `address`; returns 0, or the seconds to wait.

        Raises:
            ValueError: the name is longer than `NAME_LIMIT`; nothing is stored.
        """
        if len(name) > NAME_LIMIT:
            raise ValueError("name too long")
        pair = (name.lower(), client_key(address))
        if wait := self._pairs.take(pair):
            return wait
        return 0.0 if fixed(pair) in self._known else self._names.take(pair[0])

    def right(self, name: str, address: str) -> None:
        """Uncount a try: the password was right."""
        pair = (name.lower(), client_key(address))
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
        return self._links.take(client_key(address))

    def right_link(self, address: str) -> None:
        """Uncount a try: the link was valid."""
        self._links.give(client_key(address))
