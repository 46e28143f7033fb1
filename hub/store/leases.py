"""Leases of worker processes: a row that a worker renews while it lives."""

from __future__ import annotations

from hub.store.database import Database

_RENEW = """
INSERT INTO workers (id, host, pid, lease_until) VALUES (%s, %s, %s, now() + make_interval(secs => %s))
ON CONFLICT (id) DO UPDATE SET lease_until = excluded.lease_until
"""
_END = "DELETE FROM workers WHERE id = %s"


class Leases:
    """Writes the lease of one worker.

    Args:
        worker: the name of this process in the ledger.
    """

    def __init__(self, db: Database, worker: str) -> None:
        self._db = db
        self._worker = worker

    def renew(self, seconds: float, *, host: str, pid: int) -> None:
        """Renew the lease for `seconds` from now."""
        self._db.run(_RENEW, [self._worker, host, pid, seconds])

    def end(self) -> None:
        """End the lease: other workers may recover the tasks that this one still has claimed."""
        self._db.run(_END, [self._worker])
