"""Rate and concurrency limits in memory: per process, bounded, reset by a restart."""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

_KEYS = 10_000
_SALT = secrets.token_bytes(16)


class Busy(Exception):  # noqa: N818 - a state
    """A concurrency limit is reached."""


class ConcurrencyLimiter:
    """Concurrency limiter without a queue: beyond the limit, work is refused.

    Args:
        count: how many at once.
        each: how many of one key at once; None sets no limit per key.
    """

    def __init__(self, count: int, each: int | None = None) -> None:
        self.count = count
        self._each = count if each is None else each
        self._taken: Counter[Hashable] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def acquire(self, key: Hashable = None) -> Iterator[None]:
        """Hold a place; raises `Busy`."""
        with self._lock:
            if self._taken.total() >= self.count or self._taken[key] >= self._each:
                raise Busy
            self._taken[key] += 1
        try:
            yield
        finally:
            with self._lock:
                self._taken[key] -= 1
                if not self._taken[key]:
                    del self._taken[key]


class RateLimiter:
    """Token buckets by key. At most 10,000 buckets are kept; a blocked one is never dropped.

    A key that is text is kept as a hash, so that its length costs no memory. When only blocked buckets are kept,
    all new keys share one bucket.

    Args:
        rate: actions per second in the long run.
        burst: actions at once.
    """

    def __init__(self, rate: float, burst: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        # Both oldest first. A bucket is blocked when it holds less than one action.
        self._free: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()
        self._blocked: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, key: Hashable) -> float:
        """Take one action; returns 0, or the seconds to wait until one is available."""
        return self._look(fixed(key), 1.0)

    def wait(self, key: Hashable) -> float:
        """Seconds until an action is available, 0 if one is; takes nothing."""
        return self._look(fixed(key), 0.0)

    def give(self, key: Hashable) -> None:
        """Return the action of one `take`."""
        self._look(fixed(key), -1.0)

    def forget(self, key: Hashable) -> None:
        """Fill a key's bucket again."""
        key = fixed(key)
        with self._lock:
            self._free.pop(key, None)
            self._blocked.pop(key, None)

    def _look(self, key: Hashable, cost: float) -> float:
        now = self._clock()
        with self._lock:
            if key not in self._free and key not in self._blocked and not self._room(now):
                key = None
            full = (self._burst, now)
            left, at = self._blocked.pop(key, full) if key in self._blocked else self._free.pop(key, full)
            left = min(self._burst, left + (now - at) * self._rate)
            wait = (1 - left) / self._rate if left < 1 and cost >= 0 else 0.0
            if not wait:
                left = min(self._burst, left - cost)
            if left < self._burst:
                # The shared bucket must not make room for a new one.
                (self._blocked if left < 1 or key is None else self._free)[key] = (left, now)
            return wait

    def _room(self, now: float) -> bool:
        """Whether one more bucket may be kept; drops the least recently used bucket that is not blocked."""
        if len(self._free) + len(self._blocked) < _KEYS:
            return True
        if self._free:
            self._free.popitem(last=False)
            return True
        key, (left, at) = next(iter(self._blocked.items()))
        if left + (now - at) * self._rate < 1:
            return False
        del self._blocked[key]
        return True


def fixed(key: Hashable) -> Hashable:
    """A key of fixed size."""
    if isinstance(key, int):
        return key
    return hashlib.blake2b(repr(key).encode("utf-8", "backslashreplace"), digest_size=16, key=_SALT).digest()
