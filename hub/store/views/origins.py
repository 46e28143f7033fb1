"""Where tasks came from that a person asked for: resends, replays, backfills."""

from __future__ import annotations

from hub.store.database import Database, Row
from hub.store.views.masks import COLUMNS, RowMasks

_GET = (
    """
SELECT o.kind, o.delivery_id, o.dead_letter_id, o.backfill_id, o.payload, o.endpoint, o.actor, o.actor_kind,
       o.created_at
"""
    + COLUMNS
    + """
FROM task_origins o LEFT JOIN rules r ON r.id = o.rule_id LEFT JOIN services s ON s.id = r.service_id
WHERE o.task_id = %s
"""
)


class OriginViews:
    """Reads origins."""

    def __init__(self, db: Database, masks: RowMasks) -> None:
        self._db = db
        self._masks = masks

    def get(self, task_id: int | None) -> Row | None:
        """Who asked for the task and from what it was made; None: an event made it.

        `payload` and `endpoint`: what the person gave for this one task, masked; None: what the rule makes.
        """
        row = self._db.one(_GET, [task_id]) if task_id is not None else None
        return None if row is None else self._masks.hide_row(row)
