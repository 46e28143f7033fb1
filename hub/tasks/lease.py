"""The lease of this worker process: a row in the ledger that a thread renews.

A process that has not renewed its lease for 80 % of its duration stops sending. So none of its sends is in progress
when other workers recover its tasks.
"""

from __future__ import annotations

import os
import socket
import threading
import time

import structlog

from hub.errors import HubError, UnavailableError
from hub.store.leases import Leases

log = structlog.get_logger("hub.tasks.lease")


class Lease:
    """Renews the lease of this worker until stopped.

    Args:
        seconds: the duration of the lease after a renewal.
    """

    def __init__(self, leases: Leases, *, seconds: float) -> None:
        self._leases = leases
        self._seconds = seconds
        self._renewed = float("-inf")
        self._taken = False
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Take the lease and renew it in a thread."""
        self._taken = True
        self._renew()
        self._thread = threading.Thread(target=self._run, name="hub-lease", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(self._seconds / 5):
            try:
                self._renew()
            except UnavailableError as e:
                log.warning("lease not renewed", error=str(e))
            except Exception:
                log.exception("lease not renewed; tried again")  # without this thread the process would stop sending

    def _renew(self) -> None:
        before = time.monotonic()
        self._leases.renew(self._seconds, host=socket.gethostname(), pid=os.getpid())
        self._renewed = before

    def check(self) -> None:
        """Raise `UnavailableError` when the lease has expired. A process that never took one may send."""
        if self._taken and time.monotonic() - self._renewed > self._seconds * 0.8:
            raise UnavailableError("this worker's lease has expired: the database did not respond")

    def stop(self) -> None:
        """Stop renewing and release the lease."""
        self._stop.set()
        self._renewed = float("-inf")  # attempts in progress send nothing more
        if self._thread is None:
            return  # never taken, or released already
        self._thread.join(timeout=5)
        self._thread = None
        try:
            self._leases.end()
        except HubError:
            pass  # it expires
