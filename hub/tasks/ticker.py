"""Triggers the schedule in embedded mode, instead of periodiq."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime

import structlog

from hub.errors import HubError

log = structlog.get_logger("hub.tasks.ticker")


class Ticker:
    """Calls `tick` at once and then at every full minute, in a thread. The next tick replaces a failed one."""

    def __init__(self, tick: Callable[[], object], *, now: Callable[[], datetime]) -> None:
        self._tick = tick
        self._now = now
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hub-ticker", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._tick()
            except HubError as e:
                log.warning("tick failed; the next one replaces it", error=str(e))
            except Exception:
                log.exception("tick failed; the next one replaces it")
            self._stop.wait(60 - self._now().timestamp() % 60 + 0.05)

    def stop(self) -> None:
        """Stop after the current tick."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)
