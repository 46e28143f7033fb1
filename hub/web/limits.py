"""Rate limits, kept in memory: per process, bounded, and forgotten at a restart."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

_KEYS = 10_000


class Busy(Exception):  # noqa: N818 - a state
    """Every place is taken."""


class Places:
    """So many at once, and no queue: what could only wait in memory is refused.

    Args:
        count: how many places there are.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._taken = 0
        self._lock = threading.Lock()

    @contextmanager
    def one(self) -> Iterator[None]:
        """Hold a place; raises `Busy`."""
        with self._lock:
            if self._taken >= self.count:
                raise Busy
            self._taken += 1
        try:
            yield
        finally:
            with self._lock:
                self._taken -= 1


class Limiter:
    """Token buckets by key.

    Args:
        rate: actions per second in the long run.
        burst: actions at once.
    """

    def __init__(self, rate: float, burst: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._buckets: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, key: Hashable) -> float:
        """Take one; returns 0, or the seconds to wait until there is one."""
        return self._look(key, 1.0)

    def wait(self, key: Hashable) -> float:
        """Seconds until there is one, 0 when there is; takes nothing."""
        return self._look(key, 0.0)

    def _look(self, key: Hashable, cost: float) -> float:
        now = self._clock()
        with self._lock:
            left, at = self._buckets.get(key, (self._burst, now))
            left = min(self._burst, left + (now - at) * self._rate)
            if left < 1:
                self._buckets[key] = (left, now)
                return (1 - left) / self._rate
            self._buckets[key] = (left - cost, now)
            self._buckets.move_to_end(key)
            while len(self._buckets) > _KEYS:
                self._buckets.popitem(last=False)
            return 0.0

    def forget(self, key: Hashable) -> None:
        """Fill a key's bucket again."""
        with self._lock:
            self._buckets.pop(key, None)
