"""Hides what the `mask` of a service covers in rows that are read for people.

The ledger stores event data unmasked: deliveries and replays need it. Rows of the log are masked when they are written,
and again here, so that a mask also covers what was logged before it was set.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import LiteralString

from hub.codec import readable
from hub.domain import rules
from hub.domain.masks import event_paths, hide, masked, source_paths, texts
from hub.domain.paths import mask_body
from hub.models import JSON, Event, Rule
from hub.store.database import Database, Row

COLUMNS: LiteralString = ", s.options->'mask' AS _mask, r.payload AS _template"
"""What a query selects for `hide_row`; `s` is the service, `r` the rule."""
_MASKS = "SELECT name, options->'mask' AS mask FROM services WHERE options ? 'mask' AND deleted_at IS NULL"
_RULES = """
SELECT r.event, r.payload, s.options->'mask' AS mask FROM rules r JOIN services s ON s.id = r.service_id
WHERE s.options ? 'mask' AND r.deleted_at IS NULL AND s.deleted_at IS NULL
"""


class RowMasks:
    """Masks rows that are read for people."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def hide_row(self, row: Row) -> Row:
        """Mask a delivery, dead letter or task of a query with `COLUMNS`."""
        mask, template = row.pop("_mask") or [], row.pop("_template")
        seen: list[JSON] = []
        if (data := row.get("event_data")) is not None:
            paths = event_paths(mask, template) + self._source(row["event"], data)
            row["event_data"] = mask_body(data, paths, seen)
        if not mask and not seen:
            return row
        for body in ("request_body", "payload"):
            if row.get(body):
                mask_body(row[body], mask, seen)
        hidden = texts(seen)
        for body in ("request_body", "payload", "response_body"):
            if row.get(body):
                row[body] = masked(row[body], mask, hidden)
        for text in ("endpoint", "error", "last_error"):
            if row.get(text):
                row[text] = hide(row[text], hidden)
        return row

    def hide_event(self, name: str, data: str) -> str:
        """Mask the data (JSON text) of an event for every service that a rule sends events of that name to."""
        return self.of_event(name)(data)

    def of_event(self, name: str) -> Callable[[str], str]:
        """What `hide_event` does for events of that name: one look-up for many of them."""
        event = Event(name, {})
        paths = {
            path
            for row in self._db.all(_RULES)
            if rules.matches(Rule(0, "", row["event"], 0, ""), event)
            for path in event_paths(row["mask"], row["payload"])
        }
        always = sorted(paths)
        return lambda data: mask_body(data, always + self._source(name, data))

    def _source(self, event: str, data: str) -> list[str]:
        return source_paths(event, readable(data), self._mask_of) if event.startswith("hub.") else []

    def _mask_of(self, name: str) -> list[str]:
        return next((row["mask"] for row in self._db.all(_MASKS) if row["name"] == name), [])
