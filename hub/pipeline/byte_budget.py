"""Bounds the memory of rendered request bodies in one process. Thread-safe."""

from __future__ import annotations

import random
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from hub.errors import NotSentError


class ByteBudget:
    """A number of bytes that bodies in flight share.

    One service may hold at most half of it, so that a service that does not respond leaves room for the others. A
    body that is larger than what may be held is admitted alone. Small bodies are not counted.

    Args:
        total: bytes.
    """

    SMALL: Final = 65_536
    """Bytes up to which a body is not counted: the number of threads bounds those."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._lock = threading.Lock()
        self._held: Counter[int] = Counter()
        self._sum = 0

    def check(self, service_id: int, size: int) -> None:
        """Raises `NotSentError` when a body of `size` bytes would find no room now."""
        with self._lock:
            if size > self.SMALL and not self._fits(service_id, size):
                raise _no_room()

    @contextmanager
    def hold(self, service_id: int, *bodies: str | None) -> Iterator[None]:
        """Hold the room that bodies take; raises `NotSentError` when there is none: try again after its time."""
        size = sum(sys.getsizeof(body) for body in bodies if body is not None)
        if size <= self.SMALL:
            yield
            return
        with self._lock:
            if not self._fits(service_id, size):
                raise _no_room()
            self._held[service_id] += size
            self._sum += size
        try:
            yield
        finally:
            with self._lock:
                self._sum -= size
                self._held[service_id] -= size
                if not self._held[service_id]:
                    del self._held[service_id]

    def _fits(self, service_id: int, size: int) -> bool:
        mine = self._held.get(service_id, 0)
        if mine and mine + size > self._total // 2:
            return False
        return not self._sum or self._sum + size <= self._total


def _no_room() -> NotSentError:
    why = "the bodies in flight leave no room for this one (HUB_BODIES_IN_FLIGHT)"
    return NotSentError(why, retry_after=random.uniform(1, 3))  # noqa: S311 - spreads load
