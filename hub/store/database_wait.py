"""Repeats a statement while the database is unavailable, for results that must not be lost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from hub.errors import UnavailableError

T = TypeVar("T")
_FIRST, _LONGEST = 0.1, 1.0  # seconds between two tries


class DatabaseWait:
    """Runs `act(again)` until the database responds; `again` says that an earlier try may have committed."""

    def __init__(self) -> None:
        self._draining, self._stopping = threading.Event(), threading.Event()

    def drain(self) -> None:
        """End the waits of `until_draining`."""
        self._draining.set()

    def stop(self) -> None:
        """End all waits."""
        self._draining.set()
        self._stopping.set()

    def until_draining(self, act: Callable[[bool], T]) -> T:
        """Run `act`; raises `UnavailableError` after `drain`."""
        return _repeat(act, self._draining)

    def until_stopped(self, act: Callable[[bool], T]) -> T:
        """Run `act`; raises `UnavailableError` after `stop`."""
        return _repeat(act, self._stopping)


def _repeat(act: Callable[[bool], T], end: threading.Event) -> T:
    pause, again = _FIRST, False
    while True:
        try:
            return act(again)
        except UnavailableError:
            if end.wait(pause):
                raise
            pause, again = min(pause * 2, _LONGEST), True
