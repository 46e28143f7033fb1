"""Dead letters: listed, one by one, counted."""

from __future__ import annotations

from datetime import datetime
from typing import Any, LiteralString

from hub.store.database import Database, Row
from hub.store.views.filters import bounded, found, in_range, like, service_ids
from hub.store.views.masks import COLUMNS, RowMasks

_MAX_COUNT = 10_000  # more dead letters than these are not counted
_DEAD_LETTER: LiteralString = """
SELECT d.id, d.task_id, d.event, r.name AS rule, s.name AS service, d.attempts, d.reason, d.error, d.payload,
       d.created_at, d.status, d.event_uid AS event_id, d.accepted_at,
       r.id IS NULL OR s.id IS NULL OR r.deleted_at IS NOT NULL OR s.deleted_at IS NOT NULL AS orphan,
       CASE WHEN d.ordering_key IS NOT NULL THEN (
           SELECT count(*) FROM (
               SELECT FROM tasks b
               WHERE b.rule_id = d.rule_id AND b.ordering_key = d.ordering_key AND b.state = 'blocked' LIMIT 1000
           ) w
       ) + (
           SELECT count(*) FROM tasks h WHERE h.rule_id = d.rule_id AND h.ordering_key = d.ordering_key AND h.holds_key
       ) END AS waiting
"""
_DEAD_LETTER_MORE: LiteralString = ", d.event_data, d.response_body"
_DEAD_LETTER_FROM: LiteralString = """
FROM dead_letters d LEFT JOIN rules r ON r.id = d.rule_id LEFT JOIN services s ON s.id = d.service_id
"""
_GET = _DEAD_LETTER + COLUMNS + _DEAD_LETTER_MORE + _DEAD_LETTER_FROM + "WHERE d.id = %s"
_OF_EVENT = _DEAD_LETTER + COLUMNS + _DEAD_LETTER_FROM + "WHERE d.event_id = %s ORDER BY d.id LIMIT 1000"
_PRESENT = "SELECT id FROM dead_letters WHERE id = ANY(%s)"
_COUNT = "SELECT count(*) AS n FROM (SELECT 1 FROM dead_letters LIMIT %s) d"


class DeadLetterViews:
    """Reads dead letters."""

    def __init__(self, db: Database, masks: RowMasks) -> None:
        self._db = db
        self._masks = masks

    def get(self, dead_letter_id: int) -> Row:
        """One dead letter with `event_data` and `response_body`; raises `NotFoundError`."""
        return self._masks.hide_row(found(self._db.one(_GET, [dead_letter_id]), "dead letter", dead_letter_id))

    def of_event(self, number: int) -> list[Row]:
        """The dead letters of an event, by its number in the ledger; oldest first."""
        return [self._masks.hide_row(row) for row in self._db.all(_OF_EVENT, [number])]

    def missing(self, ids: list[int]) -> list[int]:
        """Those of `ids` that are not dead letters, or no longer."""
        rows = self._db.all(_PRESENT, [ids])
        return sorted(set(ids) - {row["id"] for row in rows})

    def count(self) -> int:
        """How many dead letters there are; more than 10,000 count as 10,000."""
        row = self._db.one(_COUNT, [_MAX_COUNT])
        return int(row["n"]) if row else 0

    def list(
        self,
        *,
        service: str | None = None,
        rule: str | None = None,
        event: str | None = None,
        reason: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        before: int | None = None,
        limit: int = 50,
        full: bool = False,
    ) -> list[Row]:
        """Dead letters, newest first; `payload` is the text of the last request body, None if there was none.

        Args:
            full: include `event_data` and `response_body`, as exports do.
        """
        where: list[LiteralString] = ["true"]
        params: dict[str, Any] = {"limit": bounded(limit)}
        if service is not None:
            where.append("d.service_id = ANY(%(services)s)")
            params["services"] = service_ids(self._db, service)
        if rule is not None:
            where.append("r.name = %(rule)s")
            params["rule"] = rule
        if reason is not None:
            where.append("d.reason = %(reason)s")
            params["reason"] = reason
        like(where, params, "d.event", event)
        in_range(where, params, since, until, before)
        columns = _DEAD_LETTER + COLUMNS + (_DEAD_LETTER_MORE if full else "")
        rows = self._db.all(
            columns + _DEAD_LETTER_FROM + "WHERE " + " AND ".join(where) + " ORDER BY d.id DESC LIMIT %(limit)s",
            params,
        )
        return [self._masks.hide_row(row) for row in rows]
