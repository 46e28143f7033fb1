"""State that a transport keeps for each service between requests."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from hub.models import Service

SWEEP_EVERY = 5.0  # seconds

T = TypeVar("T")


class PerService(Generic[T]):
    """What a transport keeps for each service; made anew when the service has changed.

    Args:
        make: builds it for a service; close: what to do with one that is no longer used;
        sweep: called for each of them every few seconds, by a thread that happens to come along.
    """

    def __init__(self, make: Callable[[Service], T], close: Callable[[T], None], sweep: Callable[[T], None]) -> None:
        self._make, self._close, self._sweep = make, close, sweep
        self._kept: dict[int, tuple[Service, T]] = {}
        self._lock = threading.Lock()
        self._next_sweep = time.monotonic() + SWEEP_EVERY

    def get(self, service: Service) -> T:
        """The one for this version of the service."""
        if time.monotonic() > self._next_sweep:
            self._next_sweep = time.monotonic() + SWEEP_EVERY
            for _, thing in list(self._kept.values()):
                self._sweep(thing)
        kept = self._kept.get(service.id)
        if kept is not None and kept[0] is service:
            return kept[1]
        with self._lock:
            kept = self._kept.get(service.id)
            if kept is not None and kept[0] == service:
                thing = kept[1]
            else:
                thing = self._make(service)
                if kept is not None:
                    self._close(kept[1])
            self._kept[service.id] = (service, thing)
            return thing

    def close(self) -> None:
        """Let go of all of them."""
        with self._lock:
            for _, thing in self._kept.values():
                self._close(thing)
            self._kept.clear()
