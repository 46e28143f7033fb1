"""Records a heartbeat of this process at regular intervals."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from hub.errors import HubError

log = structlog.get_logger("hub.tasks.heartbeat")
_EVERY = 5.0  # seconds


class Heartbeat:
    """Calls `beat` every few seconds in a thread until stopped. Errors are logged, not raised."""

    def __init__(self, beat: Callable[[], None]) -> None:
        self._beat = beat
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hub-heartbeat", daemon=True)

    def start(self) -> None:
        """Start the thread; the first heartbeat is recorded at once."""
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                self._beat()
            except HubError as e:
                log.debug("no heartbeat", error=str(e))
            except Exception:
                log.exception("no heartbeat; the next one follows")
            if self._stop.wait(_EVERY):
                return

    def stop(self) -> None:
        """Stop the thread."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)
