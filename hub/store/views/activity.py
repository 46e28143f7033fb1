"""Outcomes and latency of recent deliveries, by minute and by service.

The cost is bounded: of a busy hour an even sample of deliveries is read, by id, and the counts are multiplied.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

from hub.store.clock import Clock
from hub.store.database import Database, Row
from hub.store.views.deliveries import DeliveryViews

_SAMPLE = 20_000  # most deliveries that are read
_FROM: LiteralString = "FROM deliveries WHERE {} AND direction = 'outbound' AND created_at >= %(since)s"
_TIMES: LiteralString = """
count(*) FILTER (WHERE success) AS ok, count(*) FILTER (WHERE NOT success) AS failed,
percentile_cont(0.5) WITHIN GROUP (ORDER BY latency_ms) AS p50,
percentile_cont(0.95) WITHIN GROUP (ORDER BY latency_ms) AS p95
"""
_BY_MINUTE: LiteralString = f"""
SELECT date_trunc('minute', created_at) AS at, {_TIMES} {_FROM}
AND (%(service)s::text IS NULL OR service = %(service)s) GROUP BY 1
"""
_BY_SERVICE: LiteralString = f"SELECT service, {_TIMES} {_FROM} GROUP BY 1"
_EVERY: LiteralString = "id BETWEEN %(low)s AND %(high)s"
_SAMPLED: LiteralString = "id = ANY(%(ids)s)"
_NEWEST: LiteralString = "SELECT coalesce(max(id), 0) AS high FROM deliveries"
_FAILING: LiteralString = """
SELECT service, error, count(*) AS count, max(created_at) AS last_at, max(id) AS id FROM (
    SELECT id, service, left(error, 300) AS error, created_at FROM deliveries
    WHERE NOT success ORDER BY id DESC LIMIT 1000
) f
WHERE created_at >= %s GROUP BY 1, 2 ORDER BY max(id) DESC LIMIT %s
"""


class Activity:
    """Summarizes the delivery log."""

    def __init__(self, db: Database, clock: Clock, deliveries: DeliveryViews) -> None:
        self._db = db
        self._clock = clock
        self._deliveries = deliveries

    def _range(self, since: datetime) -> tuple[LiteralString, dict[str, Any], int]:
        """Return a condition, its parameters, and how many deliveries each one that is read stands for."""
        low = self._deliveries.first_id_since(since)
        row = self._db.one(_NEWEST)
        high = row["high"] if row else 0
        step = max(1, (high - low) // _SAMPLE + 1)
        params: dict[str, Any] = {"since": since, "low": low, "high": high}
        if step == 1:
            return _EVERY, params, 1
        return _SAMPLED, params | {"ids": list(range(low, high + 1, step))}, step

    def minutes(self, count: int = 60, *, service: str | None = None, now: datetime | None = None) -> list[Row]:
        """`at ok failed p50 p95` of each of the last minutes, oldest first. Milliseconds; None: no deliveries."""
        now = now or self._clock.now()
        first = now.replace(second=0, microsecond=0) - timedelta(minutes=count - 1)
        where, params, step = self._range(first)
        rows = self._db.all(_BY_MINUTE.format(where), params | {"service": service})
        found = {row["at"].astimezone(UTC): row for row in rows}
        empty = {"ok": 0, "failed": 0, "p50": None, "p95": None}
        minutes = []
        for i in range(count):
            at = first + timedelta(minutes=i)
            minutes.append(_multiplied(found.get(at, empty), step) | {"at": at})
        return minutes

    def services(self, seconds: float = 3600) -> dict[str, Row]:
        """`ok failed p50 p95` by service, of the last `seconds`."""
        where, params, step = self._range(self._clock.now() - timedelta(seconds=seconds))
        return {row["service"]: _multiplied(row, step) for row in self._db.all(_BY_SERVICE.format(where), params)}

    def failing(self, seconds: float = 900, *, limit: int = 20) -> list[Row]:
        """`service error count last_at id` of recent failures, latest first, among the last 1,000 failures."""
        return self._db.all(_FAILING, [self._clock.now() - timedelta(seconds=seconds), limit])


def _multiplied(row: Row, step: int) -> Row:
    return row | {"ok": row["ok"] * step, "failed": row["failed"] * step}
