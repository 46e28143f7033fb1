"""Heartbeats of the components of the hub."""

from __future__ import annotations

from hub.store.database import Database

BEAT = """
INSERT INTO heartbeats (component, instance, at, clock_offset) VALUES (%s, %s, now(), %s)
ON CONFLICT (component, instance) DO UPDATE SET at = now(), clock_offset = excluded.clock_offset
"""
LEAVE = "DELETE FROM heartbeats WHERE component = %s AND instance = %s"


class Heartbeats:
    """Writes heartbeats of the components worker, scheduler, web, releaser (the outbox relay) and broker (the relay
    reached it).

    Args:
        instance: the name of this process.
    """

    def __init__(self, db: Database, instance: str) -> None:
        self._db = db
        self._instance = instance

    def beat(self, component: str, clock_offset: float | None = None) -> None:
        """Record a heartbeat of `component`.

        Args:
            clock_offset: seconds by which the clock of this machine is ahead of the database's, if known.
        """
        self._db.run(BEAT, [component, self._instance, clock_offset])

    def leave(self, component: str) -> None:
        """Delete the heartbeat of `component`: it has stopped in order."""
        self._db.run(LEAVE, [component, self._instance])

    def probe(self) -> None:
        """Write and delete a row.

        Raises:
            UnavailableError: the database cannot be reached or accepts no writes.
        """
        with self._db.transaction() as conn:
            conn.execute(BEAT, ["probe", self._instance, None])
            conn.execute(LEAVE, ["probe", self._instance])
