"""A process's signs of life: its heartbeat, and how busy its database pool is."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from hub.errors import HubError

log = structlog.get_logger("hub.heartbeat")
_EVERY = 5.0  # seconds


class Heartbeat:
    """Calls `beat` every few seconds until stopped; a database that is away is waited for."""

    def __init__(self, beat: Callable[[], None]) -> None:
        self._beat = beat
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hub-heartbeat", daemon=True)

    def start(self) -> None:
        """Beat now and then in a thread."""
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                self._beat()
            except HubError as e:
                log.debug("no heartbeat", error=str(e))
            except Exception:
                log.exception("no heartbeat; tried again")
            if self._stop.wait(_EVERY):
                return

    def stop(self) -> None:
        """Beat no more."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)
