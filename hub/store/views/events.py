"""Stored events and the names of events that were accepted."""

from __future__ import annotations

from hub.store.database import Database, Row
from hub.store.views.filters import bounded, found
from hub.store.views.masks import RowMasks

_NAMES = "SELECT name, last_seen FROM event_names ORDER BY last_seen DESC LIMIT %s"
_EVENT = "SELECT name, data FROM events WHERE uid = %s LIMIT 1"
_LATEST = """
SELECT uid, name, data, created_at FROM events WHERE erased_at IS NULL ORDER BY id DESC LIMIT %s
"""
_SAMPLE = "SELECT sample FROM event_names WHERE name = %s"


class EventViews:
    """Reads events."""

    def __init__(self, db: Database, masks: RowMasks) -> None:
        self._db = db
        self._masks = masks

    def names(self, *, limit: int = 500) -> list[Row]:
        """`name last_seen` of accepted events, the latest first."""
        return self._db.all(_NAMES, [bounded(limit)])

    def get(self, uid: str) -> Row:
        """`name data` (JSON text) of a stored event, by its public id; raises `NotFoundError`."""
        row = found(self._db.one(_EVENT, [uid]), "stored event", uid)
        return row | {"data": self._masks.hide_event(row["name"], row["data"])}

    def sample(self, name: str) -> str | None:
        """The data (JSON text) of the latest event of that name; None: none was accepted."""
        row = self._db.one(_SAMPLE, [name])
        return self._masks.hide_event(name, row["sample"]) if row and row["sample"] is not None else None

    def latest(self, limit: int) -> list[Row]:
        """`uid name data created_at` of the latest events, newest first; the data is not masked."""
        return self._db.all(_LATEST, [limit])

    def masked(self, name: str, data: str) -> str:
        """The data (JSON text) of an event of that name as it may be shown."""
        return self._masks.hide_event(name, data)
