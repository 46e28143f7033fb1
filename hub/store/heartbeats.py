"""Heartbeats of the components of the hub."""

from __future__ import annotations

from hub.store.database import Database

_BEAT = """
INSERT INTO heartbeats (component, instance, at) VALUES (%s, %s, now())
ON CONFLICT (component, instance) DO UPDATE SET at = now()
"""
_LEAVE = "DELETE FROM heartbeats WHERE component = %s AND instance = %s"


class Heartbeats:
    """Writes heartbeats of the components worker, scheduler, web, releaser (the outbox relay) and broker (the relay
    reached it).

    Args:
        instance: the name of this process.
    """

    def __init__(self, db: Database, instance: str) -> None:
        self._db = db
        self._instance = instance

    def beat(self, component: str) -> None:
        """Record a heartbeat of `component`."""
        self._db.run(_BEAT, [component, self._instance])

    def leave(self, component: str) -> None:
        """Delete the heartbeat of `component`: it has stopped in order."""
        self._db.run(_LEAVE, [component, self._instance])
