"""How it went lately, for people: outcomes and latency by minute and by service.

Bounded: of a busy hour an even sample of deliveries is read, by id, and counted up.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

from hub.store.clock import Clock
from hub.store.database import Database, Row
from hub.store.view_deliveries import DeliveryViews

_SAMPLE = 20_000  # deliveries looked at
_FROM: LiteralString = """
FROM deliveries WHERE {} AND direction = 'outbound' AND created_at >= %(since)s
"""
_TIMES: LiteralString = """
count(*) FILTER (WHERE success) AS ok, count(*) FILTER (WHERE NOT success) AS failed,
percentile_cont(0.5) WITHIN GROUP (ORDER BY latency_ms) AS p50,
percentile_cont(0.95) WITHIN GROUP (ORDER BY latency_ms) AS p95
"""
_RANGE: LiteralString = "id BETWEEN %(low)s AND %(high)s"
_PICKED: LiteralString = "id = ANY(%(ids)s)"


class Activity:
    """Reads the log in the large."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._log = DeliveryViews(db)

    def _range(self, since: datetime) -> tuple[LiteralString, dict[str, Any], int]:
        """(condition, its parameters, how many deliveries one that is read stands for)."""
        low = self._log.first_delivery_since(since)
        row = self._db.one("SELECT coalesce(max(id), 0) AS high FROM deliveries")
        high = row["high"] if row else 0
        step = max(1, (high - low) // _SAMPLE + 1)
        params: dict[str, Any] = {"since": since, "low": low, "high": high}
        if step == 1:
            return _RANGE, params, 1
        return _PICKED, params | {"ids": list(range(low, high + 1, step))}, step

    def minutes(self, count: int = 60, *, service: str | None = None, now: datetime | None = None) -> list[Row]:
        """`at ok failed p50 p95` of each of the last minutes, oldest first; milliseconds, None where nothing was."""
        now = now or self._clock.now()
        first = now.replace(second=0, microsecond=0) - timedelta(minutes=count - 1)
        where, params, step = self._range(first)
        rows = self._db.all(
            "SELECT date_trunc('minute', created_at) AS at, " + _TIMES + _FROM.format(where)
            + "AND (%(service)s::text IS NULL OR service = %(service)s) GROUP BY 1",
            params | {"service": service},
        )  # fmt: skip
        found = {row["at"].astimezone(UTC): row for row in rows}
        empty = {"ok": 0, "failed": 0, "p50": None, "p95": None}
        minutes = []
        for i in range(count):
            at = first + timedelta(minutes=i)
            row = dict(found.get(at, empty), at=at)
            minutes.append(row | {"ok": row["ok"] * step, "failed": row["failed"] * step})
        return minutes

    def services(self, seconds: float = 3600) -> dict[str, Row]:
        """`ok failed p50 p95` by service."""
        where, params, step = self._range(self._clock.now() - timedelta(seconds=seconds))
        sql = "SELECT service, " + _TIMES + _FROM.format(where) + "GROUP BY 1"
        return {
            row["service"]: row | {"ok": row["ok"] * step, "failed": row["failed"] * step}
            for row in self._db.all(sql, params)
        }

    def failing(self, seconds: float = 900, *, limit: int = 20) -> list[Row]:
        """`service error count last_at` of what failed lately, most recent first; the last 1,000 failures."""
        since = self._clock.now() - timedelta(seconds=seconds)
        return self._db.all(
            "SELECT service, error, count(*) AS count, max(created_at) AS last_at, max(id) AS id FROM"
            " (SELECT id, service, left(error, 300) AS error, created_at FROM deliveries"
            "  WHERE NOT success ORDER BY id DESC LIMIT 1000) f"
            " WHERE created_at >= %s GROUP BY 1, 2 ORDER BY max(id) DESC LIMIT %s",
            [since, limit],
        )
