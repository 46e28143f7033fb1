"""Tokens in memory, for requests that are too frequent to ask the database for each."""

from __future__ import annotations

import time
from collections.abc import Callable

from hub.store.tokens import Token, Tokens, hashed

_SECONDS = 5.0  # bounds what a lost connection to the listener can hide
_MOST = 10_000


class TokenCache:
    """Valid tokens that were read at most 5 s ago, with no change announced since.

    A changed or deleted token is announced with `NOTIFY hub_config`, as services and rules are. A token that expires
    within a minute is not cached.

    Args:
        generation: increases with every announcement; None: this process does not listen, so nothing is cached.
        clock: monotonic seconds.
    """

    def __init__(
        self, tokens: Tokens, generation: Callable[[], int | None], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._tokens = tokens
        self._generation = generation
        self._clock = clock
        self._cached: dict[bytes, tuple[tuple[int, int], float, Token]] = {}

    def get(self, secret: str) -> Token | None:
        """The token from memory, None if it is not there. Never waits."""
        entry = self._cached.get(hashed(secret))
        if entry is None or entry[0] != self._version() or entry[1] < self._clock():
            return None
        return entry[2]

    def use(self, secret: str) -> Token | None:
        """The valid token with that secret, from memory or the database; None when there is none."""
        token = self.get(secret)
        if token is not None:
            return token
        version = self._version()  # before the query: a change during it makes the entry stale
        found = self._tokens.find(secret)
        if found is None:
            return None
        token, lasting = found
        if version is not None and lasting:
            if len(self._cached) >= _MOST:
                self._cached.clear()
            self._cached[hashed(secret)] = (version, self._clock() + _SECONDS, token)
        return token

    def _version(self) -> tuple[int, int] | None:
        """What entries must have been read under; this process's own changes count before they are announced."""
        generation = self._generation()
        return None if generation is None else (generation, self._tokens.revocations)
