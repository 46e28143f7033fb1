"""A thread that emits events in this process, for tests that take servers away from it."""

from __future__ import annotations

import threading

from hub.app.lifecycle import Hub
from hub.errors import UnavailableError
from hub.models import Event

BATCH = 3


class Source:
    """Emits batches of `BATCH` until told to stop; one that was refused is sent again, the same.

    Args:
        text: makes each event as large as it is.
    """

    def __init__(self, hub: Hub, text: str = "") -> None:
        self.accepted = 0
        self.refusals: list[str] = []
        self._hub, self._text = hub, text
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(0.01):
            numbers = range(self.accepted, self.accepted + BATCH)
            try:
                self._hub.intake.handle_events([Event("e", {"n": n, "text": self._text}, f"k{n}") for n in numbers])
                self.accepted += BATCH
            except UnavailableError as e:
                self.refusals.append(str(e))

    def stop(self) -> None:
        """No more; what is under way ends first."""
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive()
