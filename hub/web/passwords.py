"""Passwords of console users: argon2id hashes, a strength check, and a bounded thread pool that computes both."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

import argon2

from hub.errors import ConfigError
from hub.web.rate_limits import Busy

SHORTEST = 10  # characters
_LONGEST = 1000
_SCORE = 3  # of zxcvbn, 0 to 4: more than 10^8 guesses
_CHECKED = 72  # characters; zxcvbn's time grows with the square of the length
_THREADS = 2  # each hash takes 64 MiB while it is computed
_WAITING = 16
_WAIT = 2.0  # seconds
_hasher = argon2.PasswordHasher()
T = TypeVar("T")


def check_password(password: str, *, about: Iterable[str] = ()) -> None:
    """Refuse a password that is short, long or easy to guess.

    Args:
        about: words that are easy to guess here, such as the user's name.

    Raises:
        ConfigError: names the reason.
    """
    if len(password) < SHORTEST:
        raise ConfigError(f"must have at least {SHORTEST} characters", field="password")
    if len(password) > _LONGEST:
        raise ConfigError(f"must have at most {_LONGEST} characters", field="password")
    from zxcvbn import zxcvbn  # late: its word lists take 60 ms to load

    found = zxcvbn(password[:_CHECKED], user_inputs=[word[:100] for word in about if word] + ["integration", "hub"])
    if found["score"] < _SCORE:
        why = found["feedback"]["warning"] or "Add a few more words that do not belong together."
        raise ConfigError(f"is easy to guess. {why}", field="password")


def hash_password(password: str, *, about: Iterable[str] = ()) -> str:
    """The argon2id hash of a new password; raises `ConfigError` as `check_password` does."""
    check_password(password, about=about)
    try:
        return _hasher.hash(password)
    except UnicodeEncodeError:
        raise ConfigError("has characters that cannot be typed", field="password") from None


def verify_password(stored: str | None, password: str) -> bool:
    """Whether `password` matches the stored hash. Takes equally long without one, so that names cannot be guessed."""
    try:
        _hasher.verify(stored or _dummy_hash(), password[:_LONGEST])
    except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError, UnicodeEncodeError):
        return False
    return stored is not None


@lru_cache(1)
def _dummy_hash() -> str:
    return _hasher.hash("nobody has this password")


class HashPool:
    """Threads that only compute password hashes: hashing has bounded memory and delays no other request.

    Args:
        threads: hashes at a time.
        waiting: requests that may wait for a thread.
        wait: seconds that a request may wait.
    """

    def __init__(self, threads: int = _THREADS, *, waiting: int = _WAITING, wait: float = _WAIT) -> None:
        self._most = threads + waiting
        self._wait = wait
        self._under_way = 0
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(threads, "hub-password")

    async def run(self, work: Callable[[], T]) -> T:
        """Run `work` and return its result; raises `Busy` if no thread is free in time."""
        with self._lock:
            if self._under_way >= self._most:
                raise Busy
            self._under_way += 1
        future = self._threads.submit(work)
        future.add_done_callback(lambda _: self._finished())
        result = asyncio.wrap_future(future)
        done, _ = await asyncio.wait([result], timeout=self._wait)
        if not done and future.cancel():
            raise Busy
        return await result

    def close(self) -> None:
        """Stop the threads and drop waiting work."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _finished(self) -> None:
        with self._lock:
            self._under_way -= 1
