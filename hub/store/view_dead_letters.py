"""Dead letters, read for people: listed, one by one, counted."""

from __future__ import annotations

from datetime import datetime
from typing import Any, LiteralString

from hub.store.database import Row
from hub.store.filters import (
    bounded,
    found,
    like,
    service_ids,
    window,
)
from hub.store.view_masks import COLUMNS, MaskedReads

_DEAD_SHOWN = 10_000  # counted exactly up to here
_DEAD_LETTER: LiteralString = """
SELECT d.id, d.task_id, d.event, r.name AS rule, s.name AS service, d.attempts, d.reason, d.error, d.payload,
       d.created_at, d.status, d.event_uid AS event_id, d.accepted_at,
       r.id IS NULL OR s.id IS NULL OR r.deleted_at IS NOT NULL OR s.deleted_at IS NOT NULL AS orphan
"""
_DEAD_LETTER_MORE: LiteralString = ", d.event_data, d.response_body"
_DEAD_LETTER_FROM: LiteralString = """
FROM dead_letters d LEFT JOIN rules r ON r.id = d.rule_id LEFT JOIN services s ON s.id = d.service_id
"""


class DeadLetterViews(MaskedReads):
    """Reads dead letters; writes nothing."""

    def list_dead_letters(
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
        """Dead letters, newest first; `payload` is the last request body as text, None if none was made.

        Args:
            full: with `event_data` and `response_body`, as exports have them.
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
        window(where, params, since, until, before)
        columns = _DEAD_LETTER + COLUMNS + (_DEAD_LETTER_MORE if full else "")
        rows = self._db.all(
            columns + _DEAD_LETTER_FROM + "WHERE " + " AND ".join(where) + " ORDER BY d.id DESC LIMIT %(limit)s",
            params,
        )
        return [self._hide_row(row) for row in rows]

    def dead_letter(self, dead_letter_id: int) -> Row:
        """One dead letter with `event_data` and `response_body`; raises `NotFoundError`."""
        sql = _DEAD_LETTER + COLUMNS + _DEAD_LETTER_MORE + _DEAD_LETTER_FROM + "WHERE d.id = %s"
        return self._hide_row(found(self._db.one(sql, [dead_letter_id]), "dead letter", dead_letter_id))

    def missing_dead_letters(self, ids: list[int]) -> list[int]:
        """Those of `ids` that are no dead letters (any more)."""
        rows = self._db.all("SELECT id FROM dead_letters WHERE id = ANY(%s)", [ids])
        return sorted(set(ids) - {row["id"] for row in rows})

    def dead_letter_count(self) -> int:
        """How many dead letters there are; more than 10,000 count as 10,000."""
        row = self._db.one("SELECT count(*) AS n FROM (SELECT 1 FROM dead_letters LIMIT %s) d", [_DEAD_SHOWN])
        return int(row["n"]) if row else 0
