"""The delivery log: by service, direction, result, status, time, task."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString, TypeAlias

from hub.store.database import Database, Row
from hub.store.views.filters import bounded, found, in_range, like, service_ids
from hub.store.views.masks import COLUMNS, RowMasks

_DISORDER = timedelta(minutes=2)  # most that ids and times disagree: transactions commit out of order

_DELIVERY: LiteralString = """
SELECT d.id, d.task_id, d.direction, d.service, d.event, d.endpoint, d.method, d.attempt, d.tries, d.status,
       d.latency_ms, d.success, d.error, d.request_body, d.response_body, d.created_at, d.outcome, d.host, d.pid,
       r.name AS rule
"""
_DELIVERY_FROM: LiteralString = (
    " FROM deliveries d LEFT JOIN rules r ON r.id = d.rule_id LEFT JOIN services s ON s.id = d.service_id "
)
_GET = _DELIVERY + COLUMNS + ", d.properties" + _DELIVERY_FROM + "WHERE d.id = %s"
_OF_EVENT = _DELIVERY + COLUMNS + _DELIVERY_FROM + "WHERE d.event_id = %s ORDER BY d.id DESC LIMIT %s"
_RESPONSES = (
    _DELIVERY
    + COLUMNS
    + _DELIVERY_FROM
    + "WHERE d.task_id = ANY(%s) AND d.direction = 'inbound' ORDER BY d.id DESC LIMIT %s"
)
_RAW = "SELECT raw FROM deliveries WHERE id = %s AND raw IS NOT NULL"
_ENDS = "SELECT min(id) AS low, max(id) AS high FROM deliveries"
_AT = "SELECT id, created_at FROM deliveries WHERE id >= %s ORDER BY id LIMIT 1"


Rows: TypeAlias = list[Row]  # within the class, `list` is a method


class DeliveryViews:
    """Reads deliveries."""

    def __init__(self, db: Database, masks: RowMasks) -> None:
        self._db = db
        self._masks = masks

    def list(
        self,
        *,
        service: str | None = None,
        direction: str | None = None,
        failed: bool | None = None,
        task: int | None = None,
        of_tasks: bool = False,
        event: str | None = None,
        status: int | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        before: int | None = None,
        after: int | None = None,
        limit: int = 50,
    ) -> list[Row]:
        """The log, newest first; with `after` (an id, to follow the log) oldest first.

        Args:
            failed: True only failures, False only successes.
            of_tasks: only attempts of tasks, not what `hub.request()` sent.
        """
        where: list[LiteralString] = ["true"]
        params: dict[str, Any] = {"limit": bounded(limit)}
        if service is not None:
            ids = service_ids(self._db, service)
            where.append("d.service_id = %(service_id)s" if len(ids) == 1 else "d.service_id = ANY(%(services)s)")
            params |= {"service_id": ids[0] if ids else None, "services": ids}
        if direction is not None:
            where.append("d.direction = 'inbound'" if direction == "inbound" else "d.direction = 'outbound'")
        if failed is not None:
            where.append("NOT d.success" if failed else "d.success")
        if task is not None:
            where.append("d.task_id = %(task)s")
            params["task"] = task
        if of_tasks:
            where.append("d.task_id IS NOT NULL")
        if status is not None:
            where.append("d.status = %(status)s")
            params["status"] = status
        like(where, params, "d.event", event)
        if since is not None:
            where.append("d.id >= %(first)s")
            params["first"] = self.first_id_since(since)
        if until is not None:
            where.append("d.id < %(last)s")
            params["last"] = self.first_id_since(until + _DISORDER * 2)
        if after is not None:
            where.append("d.id > %(after)s")
            params["after"] = after
        in_range(where, params, since, until, before)
        order: LiteralString = "" if after is not None else "DESC"
        rows = self._db.all(
            _DELIVERY
            + COLUMNS
            + _DELIVERY_FROM
            + "WHERE "
            + " AND ".join(where)
            + f" ORDER BY d.id {order} LIMIT %(limit)s",
            params,
        )
        return [self._masks.hide_row(row) for row in rows]

    def get(self, delivery_id: int) -> Row:
        """One delivery; raises `NotFoundError`."""
        return self._masks.hide_row(found(self._db.one(_GET, [delivery_id]), "delivery", delivery_id))

    def of_event(self, number: int, *, limit: int = 200) -> Rows:
        """Attempts of the tasks of an event, by its number in the ledger; oldest first, the latest `limit` of them."""
        return [self._masks.hide_row(row) for row in self._db.all(_OF_EVENT, [number, bounded(limit)])][::-1]

    def responses(self, tasks: Sequence[int], *, limit: int = 200) -> Rows:
        """Responses and webhook calls that answer to these tasks; oldest first, the latest `limit` of them."""
        if not tasks:
            return []
        return [self._masks.hide_row(row) for row in self._db.all(_RESPONSES, [[*tasks], bounded(limit)])][::-1]

    def raw_message(self, delivery_id: int) -> bytes:
        """The bytes of an inbound message that is not JSON or over the limit, not masked; raises `NotFoundError`."""
        row = self._db.one(_RAW, [delivery_id])
        return bytes(found(row, "message kept as bytes with delivery", delivery_id)["raw"])

    def first_id_since(self, since: datetime) -> int:
        """An id such that every delivery at or after `since` has this id or a higher one.

        A binary search over ids: there is no index on the time.
        """
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
