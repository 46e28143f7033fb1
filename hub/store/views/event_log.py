"""The event log: accepted events, listed and found by an id of any kind.

An event's `number` is its id in the ledger, in the order of acceptance; its `id` is the one that the sender gave or
`emit` printed. Numbers page; ids may repeat, for different senders or after a day.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

from hub.errors import NotFoundError
from hub.store.database import Database, Row
from hub.store.views.filters import bounded, in_range, like
from hub.store.views.masks import RowMasks

_DISORDER = timedelta(minutes=2)  # how far numbers and times may disagree: transactions commit out of order
_KINDS = "event|task|dead-letter|delivery"
_TYPED = re.compile(rf"({_KINDS}):(\d{{1,18}})", re.ASCII)
_NUMBER = re.compile(r"\d{1,18}", re.ASCII)

EVENT: LiteralString = """
SELECT d.id AS number, d.uid AS id, d.name, d.created_at, d.source, d.depth, d.matched, d.cause_task_id,
       (SELECT count(*) FROM tasks t WHERE t.event_id = d.id) AS pending,
       (SELECT count(DISTINCT o.task_id) FROM deliveries o
        WHERE o.event_id = d.id AND o.success AND o.direction = 'outbound') AS delivered,
       (SELECT count(*) FROM dead_letters l WHERE l.event_id = d.id) AS dead,
       (SELECT count(*) FROM cancellations c WHERE c.event_id = d.id) AS cancelled
"""
"""Columns of a listed event; `d` is the event."""
_LIST: LiteralString = EVENT + " FROM events d WHERE "
_ONE: LiteralString = EVENT + ", d.data FROM events d WHERE d.id = %s"
# An event that was purged lives on in its dead letters.
_OF_DEAD_LETTER = """
SELECT event_id AS number, event_uid AS id, event AS name, accepted_at AS created_at, NULL AS source,
       event_depth AS depth, NULL AS matched, NULL AS cause_task_id, event_data AS data,
       0 AS pending, 0 AS delivered, count(*) OVER () AS dead, 0 AS cancelled
FROM dead_letters WHERE event_id = %s ORDER BY id DESC LIMIT 1
"""
_BY_UID = """
SELECT id AS number FROM events WHERE uid = %(id)s
UNION SELECT event_id FROM dead_letters WHERE event_uid = %(id)s
ORDER BY number DESC LIMIT %(limit)s
"""
_BY_TASK = """
SELECT event_id AS number FROM tasks WHERE id = %(id)s
UNION ALL SELECT event_id FROM dead_letters WHERE task_id = %(id)s
UNION ALL SELECT event_id FROM deliveries WHERE task_id = %(id)s AND event_id IS NOT NULL
UNION ALL SELECT event_id FROM cancellations WHERE task_id = %(id)s AND event_id IS NOT NULL
LIMIT 1
"""
_BY_DEAD_LETTER = """
SELECT event_id AS number FROM dead_letters WHERE id = %(id)s
UNION ALL SELECT event_id FROM cancellations WHERE dead_letter_id = %(id)s AND event_id IS NOT NULL
LIMIT 1
"""
_BY_DELIVERY = """
SELECT event_id AS number, task_id FROM deliveries WHERE id = %(id)s
"""
_ENDS = "SELECT min(id) AS low, max(id) AS high FROM events"
_AT = "SELECT id, created_at FROM events WHERE id >= %s ORDER BY id LIMIT 1"


class EventLog:
    """Reads events."""

    def __init__(self, db: Database, masks: RowMasks) -> None:
        self._db = db
        self._masks = masks

    def many(self, numbers: Sequence[int]) -> list[Row]:
        """These events, as `list` has them, newest first."""
        sql: LiteralString = _LIST + "d.id = ANY(%s) ORDER BY d.id DESC"
        return [with_state(row) for row in self._db.all(sql, [list(numbers)])]

    def one(self, number: int) -> Row:
        """One event with its `data` (JSON text); raises `NotFoundError`."""
        row = self.unmasked(number)
        return row | {"data": self._masks.hide_event(row["name"], row["data"])}

    def unmasked(self, number: int) -> Row:
        """As `one`, with the data as it came: not to be shown."""
        row = self._db.one(_ONE, [number]) or self._db.one(_OF_DEAD_LETTER, [number])
        if row is None:
            raise NotFoundError(f"event {number} is no longer kept (HUB_EVENT_RETENTION)")
        return with_state(row)

    def find(self, ident: str) -> int:
        """The number of the newest event that the id leads to.

        Args:
            ident: the event's own id; `task:7`, `dead-letter:7`, `delivery:7`, `event:7` (a number of the ledger); or
                a bare number, which is an event's own id if there is one, else a task's, else a dead letter's.

        Raises:
            NotFoundError: nothing has this id, or its event is not known any more.
        """
        found = self.find_all(ident, limit=1)
        if not found:
            raise NotFoundError(f"no event, task or dead letter {ident!r}")
        return found[0]

    def find_all(self, ident: str, *, limit: int = 50) -> list[int]:
        """As `find`, the numbers of all events of that id, newest first; none: []."""
        if typed := _TYPED.fullmatch(ident):
            return self._of(typed[1], int(typed[2]))
        rows = self._db.all(_BY_UID, {"id": ident.replace("\0", ""), "limit": limit})
        if rows or not _NUMBER.fullmatch(ident):
            return [row["number"] for row in rows]
        return self._of("task", int(ident)) or self._of("dead-letter", int(ident))

    def _of(self, kind: str, id_: int) -> list[int]:
        if kind == "event":
            return [id_]
        if kind == "delivery":
            row = self._db.one(_BY_DELIVERY, {"id": id_})
            if row is None or row["number"] is None:
                return self._of("task", row["task_id"]) if row and row["task_id"] is not None else []
        else:
            row = self._db.one(_BY_TASK if kind == "task" else _BY_DEAD_LETTER, {"id": id_})
        return [row["number"]] if row else []

    def first_not_before(self, until: datetime) -> int:
        """A number that no event before `until` lies at or above."""
        return self.first_since(until + 2 * _DISORDER)

    def first_since(self, since: datetime) -> int:
        """A number that no event at or after `since` lies below. A few look-ups, no index on time."""
        since = (since if since.tzinfo else since.replace(tzinfo=UTC)) - _DISORDER
        ends = self._db.one(_ENDS)
        if ends is None or ends["low"] is None:
            return 0
        low, high = ends["low"], ends["high"] + 1
        while low < high:
            middle = (low + high) // 2
            row = self._db.one(_AT, [middle])
            if row is None or row["created_at"] >= since:
                high = middle
            else:
                low = row["id"] + 1
        return int(low)

    def list(
        self,
        *,
        name: str | None = None,
        matched: bool | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        before: int | None = None,
        limit: int = 50,
    ) -> list[Row]:
        """Events, newest first: columns of `EVENT` and `state`.

        Args:
            name: a whole name, or a beginning of it that ends in `*`.
            matched: True: only those that a rule matched when they were accepted; False: only the others.
            until: exclusive.
            before: only numbers below this one: the last number of the page before.
        """
        where: list[LiteralString] = ["true"]
        params: dict[str, Any] = {"limit": bounded(limit)}
        like(where, params, "d.name", name)
        if matched is not None:
            where.append("coalesce(d.matched, 1) > 0" if matched else "d.matched = 0")
        if since is not None:
            where.append("d.id >= %(first)s")
            params["first"] = self.first_since(since)
        in_range(where, params, since, until, before)
        sql: LiteralString = _LIST + " AND ".join(where) + " ORDER BY d.id DESC LIMIT %(limit)s"
        return [with_state(row) for row in self._db.all(sql, params)]


def with_state(row: Row) -> Row:
    """The row with `state`: dead, pending, delivered, cancelled, or unmatched where no task of it is known."""
    states = ("dead", "pending", "delivered", "cancelled")
    return row | {"state": next((state for state in states if row[state]), "unmatched")}
