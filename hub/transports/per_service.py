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
    """One object per service, replaced when the service has changed. Thread-safe.

    Args:
        make: builds the object of a service.
        close: called for an object that is no longer used.
        sweep: called for each object every `SWEEP_EVERY` seconds, by a thread that calls `get`.
    """

    def __init__(self, make: Callable[[Service], T], close: Callable[[T], None], sweep: Callable[[T], None]) -> None:
        self._make, self._close, self._sweep = make, close, sweep
        self._kept: dict[int, tuple[Service, T]] = {}
        self._lock = threading.Lock()
        self._next_sweep = time.monotonic() + SWEEP_EVERY

    def get(self, service: Service) -> T:
        """The object for this version of the service."""
        if time.monotonic() > self._next_sweep:
            self._next_sweep = time.monotonic() + SWEEP_EVERY
            for _, item in list(self._kept.values()):
                self._sweep(item)
        kept = self._kept.get(service.id)
        if kept is not None and kept[0] is service:
            return kept[1]
        with self._lock:
            kept = self._kept.get(service.id)
            if kept is not None and kept[0] == service:
                item = kept[1]
            else:
                item = self._make(service)
                if kept is not None:
                    self._close(kept[1])
            self._kept[service.id] = (service, item)
            return item

    def close(self) -> None:
        """Close all objects."""
        with self._lock:
            for _, item in self._kept.values():
                self._close(item)
            self._kept.clear()
