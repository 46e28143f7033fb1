"""Search in the event log, newest first, in steps that a caller can stop.

Values at indexed paths are found by their search keys, block by block. Anything else reads the events of the time range
one after another. Either way a page ends when it is full, when the range is at its end, or when its time is up; the
caller goes on from `next`. Values are compared with the data as it may be shown: nobody finds out a masked value by
searching for it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, LiteralString

from hub.codec import readable
from hub.domain.paths import MISSING, JsonStrings, dig, split_path
from hub.domain.search_keys import BLOCK_BITS, key_of, stored, text_of
from hub.domain.search_query import Query
from hub.errors import ConflictError
from hub.models import JSON
from hub.store.audit import actor
from hub.store.bounded_reads import STATEMENT_SECONDS, BoundedReads
from hub.store.database import Database, Row
from hub.store.views.event_log import EventLog
from hub.store.views.filters import bounded, like, service_ids
from hub.store.views.masks import RowMasks

_LOCK_CLASS = 0x48554253
_BLOCKS = 256  # most blocks that one statement looks up
_FIRST_SPAN, _MOST_SPAN = 4096, 262_144  # ids that one statement reads
_FAST = 0.2  # seconds; after a faster statement the next one covers twice as much

_NEWEST = "SELECT coalesce(max(id), 0) + 1 AS high, coalesce(min(id), 0) AS low FROM events"
_INDEXED = "SELECT path, since_id FROM search_paths WHERE path = ANY(%s)"
# Materialized: else the planner may walk the primary key, for it knows nothing about keys of new blocks.
_BY_KEYS: LiteralString = """
WITH hits AS MATERIALIZED (SELECT d.id FROM events d WHERE {keys} AND {conditions}),
picked AS (SELECT id FROM hits WHERE id >= %(low)s AND id < %(high)s ORDER BY id DESC LIMIT %(limit)s)
SELECT d.id, d.name, d.data FROM picked JOIN events d USING (id) ORDER BY d.id DESC
"""
_BY_RANGE: LiteralString = """
SELECT d.id, d.name, d.data FROM events d WHERE d.id >= %(low)s AND d.id < %(high)s AND {conditions}
ORDER BY d.id DESC LIMIT %(limit)s
"""
# What a status, a service, an error and an HTTP status are looked up in. A scalar subquery stays a look-up by event.
_OUTCOMES: dict[str, LiteralString] = {
    "pending": "(SELECT true FROM tasks t WHERE t.event_id = d.id{} LIMIT 1)",
    "delivered": "(SELECT true FROM deliveries t WHERE t.event_id = d.id AND t.success{} LIMIT 1)",
    "failed": "(SELECT true FROM deliveries t WHERE t.event_id = d.id AND NOT t.success{} LIMIT 1)",
    "dead": "(SELECT true FROM dead_letters t WHERE t.event_id = d.id{} LIMIT 1)",
    "cancelled": "(SELECT true FROM cancellations t WHERE t.event_id = d.id{} LIMIT 1)",
}
_ERROR: dict[str, LiteralString] = {
    "pending": "t.last_error",
    "delivered": "t.error",
    "failed": "t.error",
    "dead": "t.error",
    "cancelled": "t.reason",
}
_NONE = 2**63 - 1  # below this number no path is indexed
_PLAIN = re.compile(r"[A-Za-z0-9@._+-]+")


@dataclass(slots=True)
class Found:
    """A page of a search.

    Attributes:
        rows: events as `EventLog.list` has them, newest first.
        next: give it as `before` to go on; None: the range is at its end.
        indexed: whether search keys found them.
        read: events that were read one after another, for progress; `low` and `high` bound the range of numbers.
    """

    rows: list[Row] = field(default_factory=list)
    next: int | None = None
    indexed: bool = False
    read: int = 0
    low: int = 0
    high: int = 0


class EventSearch:
    """Finds events."""

    def __init__(self, db: Database, log: EventLog, masks: RowMasks) -> None:
        self._db = db
        self._log = log
        self._masks = masks

    def search(
        self,
        query: Query,
        *,
        before: int | None = None,
        limit: int = 50,
        seconds: float = 10.0,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Found:
        """One page.

        Args:
            before: only numbers below this one.
            seconds: after which the page ends, full or not.
            cancelled: asked before each statement; True ends the page.

        Raises:
            ConflictError: a search of the same person that reads events one after another is in progress.
            UnavailableError: the database is away.
        """
        if query.id is not None:
            return self._by_id(query, before, bounded(limit))
        with BoundedReads(self._db, seconds=seconds, cancelled=cancelled) as step:
            ends = step.all(_NEWEST, {})[0]
            high = min(before or ends["high"], ends["high"])
            if query.until is not None:
                high = min(high, self._log.first_not_before(query.until))
            low = ends["low"] if query.since is None else max(ends["low"], self._log.first_since(query.since))
            page = Found(next=high, low=low, high=high)
            keys, floor = self._keys(query)
            want = _Wanted(query, self._masks)
            numbers: list[int] = []
            conditions, params = self._conditions(query)
            limit = bounded(limit)
            if keys:
                page.indexed = True
                params |= {"limit": limit}
                self._walk(step, page, max(low, floor), keys, conditions, params, want, numbers, limit)
            if page.next is not None and page.next > low and len(numbers) < limit and page.next <= max(low, floor):
                if query.values or query.error or query.service or query.status or query.http_status:
                    self._alone(step)
                self._scan(step, page, low, conditions, params, want, numbers, limit)
            if page.next is not None and page.next <= low:
                page.next = None
        page.rows = self._log.many(numbers)
        return page

    @staticmethod
    def _alone(step: BoundedReads) -> None:
        """Take the right to read events one after another: one search per person."""
        who = actor()
        if not step.lock(_LOCK_CLASS, f"{who.kind}:{who.name}"):
            raise ConflictError("a search of yours reads the event log already: wait for it, or cancel it")

    def _by_id(self, query: Query, before: int | None, limit: int) -> Found:
        """Events of an id; other terms of the query are checked, too."""
        assert query.id is not None
        numbers = [n for n in self._log.find_all(query.id, limit=1000) if before is None or n < before]
        conditions, params = self._conditions(query)
        want = _Wanted(query, self._masks)
        kept: list[int] = []
        with BoundedReads(self._db, seconds=STATEMENT_SECONDS) as step:
            for number in numbers:
                span = params | {"low": number, "high": number + 1, "limit": 1}
                kept += [row["id"] for row in step.all(_BY_RANGE.format(conditions=conditions), span) if want(row)]
                if len(kept) > limit:
                    break
        rows = [row for row in self._log.many(kept[:limit]) if _within(row, query)]
        return Found(rows, kept[limit - 1] if len(kept) > limit else None, indexed=True)

    def _keys(self, query: Query) -> tuple[list[int], int]:
        """(keys of values at indexed paths, the event since which all of these paths are indexed)."""
        values = [(path, text) for path, text in query.values if text != "null" and len(text) <= 255]
        rows = self._db.all(_INDEXED, [[path for path, _ in values]]) if values else []
        since = {row["path"]: row["since_id"] for row in rows}
        keys = [key_of(path, text) for path, text in values if path in since]
        return keys, max(since.values()) if keys else _NONE

    def _conditions(self, query: Query) -> tuple[LiteralString, dict[str, Any]]:
        where: list[LiteralString] = ["true"]
        params: dict[str, Any] = {}
        like(where, params, "d.name", query.event)
        if query.since is not None:
            where.append("d.created_at >= %(since)s")
            params["since"] = query.since
        if query.until is not None:
            where.append("d.created_at < %(until)s")
            params["until"] = query.until
        for i, (_, text) in enumerate(query.values):
            if _PLAIN.fullmatch(text):  # JSON has it as it is: most events need not be sent here
                where.append(("strpos(d.data, %(text0)s) > 0", "strpos(d.data, %(text1)s) > 0")[i] if i < 2 else "true")
                params[f"text{i}"] = text
        if query.status == "unmatched":
            where.append("d.matched = 0")
        elif query.status or query.service or query.error or query.http_status:
            where.append(self._outcome(query, params))
        return " AND ".join(where), params

    def _outcome(self, query: Query, params: dict[str, Any]) -> LiteralString:
        """One task, delivery or dead letter to which all of status, service, error and HTTP status apply."""
        found: list[LiteralString] = []
        for status, sql in _OUTCOMES.items():
            if query.status not in (None, status):
                continue
            more: LiteralString = ""
            if query.service is not None:
                more += " AND t.service_id = ANY(%(services)s)"
            if query.error is not None:
                more += " AND strpos(lower(" + _ERROR[status] + "), %(error)s) > 0"
            if query.http_status is not None:
                if status in ("pending", "cancelled"):
                    continue
                more += " AND t.status = %(http_status)s"
            found.append(sql.format(more))
        params["services"] = service_ids(self._db, query.service) if query.service is not None else []
        params["error"], params["http_status"] = (query.error or "").lower(), query.http_status
        return "coalesce(" + ", ".join(found) + ", false)" if found else "false"

    def _walk(
        self,
        step: BoundedReads,
        page: Found,
        low: int,
        keys: list[int],
        conditions: LiteralString,
        params: dict[str, Any],
        want: _Wanted,
        numbers: list[int],
        limit: int,
    ) -> None:
        """Look up blocks of events, from `page.next` down to `low`; one block first, then more at a time."""
        each: LiteralString = " AND ".join(_KEY[: len(keys)])
        sql = _BY_KEYS.format(keys=each, conditions=conditions)
        blocks = 1
        while page.next is not None and page.next > low and len(numbers) < limit and step.goes_on():
            last = (page.next - 1) >> BLOCK_BITS
            first = max(last - blocks + 1, low >> BLOCK_BITS)
            span = {f"key{i}": [stored(key, b) for b in range(first, last + 1)] for i, key in enumerate(keys)}
            bottom = max(first << BLOCK_BITS, low)
            rows = step.try_all(sql, {**params, **span, "low": bottom, "high": page.next})
            if rows is None:
                blocks = max(1, blocks // 4)
                continue
            page.next = bottom if len(rows) < params["limit"] else rows[-1]["id"]
            _take(rows, want, numbers, limit, page)
            blocks = min(blocks * 4, _BLOCKS) if len(rows) < params["limit"] else 1

    def _scan(
        self,
        step: BoundedReads,
        page: Found,
        low: int,
        conditions: LiteralString,
        params: dict[str, Any],
        want: _Wanted,
        numbers: list[int],
        limit: int,
    ) -> None:
        """Read the events of the range, from `page.next` down to `low`."""
        sql = _BY_RANGE.format(conditions=conditions)
        span = _FIRST_SPAN
        while page.next is not None and page.next > low and len(numbers) < limit and step.goes_on():
            bottom = max(low, page.next - span)
            begun = time.monotonic()
            rows = step.try_all(sql, {**params, "low": bottom, "high": page.next, "limit": 1000})
            if rows is None:
                span = max(64, span // 8)
                continue
            top = page.next
            page.next = bottom if len(rows) < 1000 else rows[-1]["id"]
            _take(rows, want, numbers, limit, page)
            page.read += top - page.next
            took = time.monotonic() - begun
            span = min(span * 2, _MOST_SPAN) if took < _FAST else max(span // 2, 256)
            if page.next > low and len(numbers) < limit:
                time.sleep(min(took, _FAST))  # at most half of the time of one core of the database


_KEY: tuple[LiteralString, ...] = (
    "d.search_keys && %(key0)s::bigint[]",
    "d.search_keys && %(key1)s::bigint[]",
    "d.search_keys && %(key2)s::bigint[]",
    "d.search_keys && %(key3)s::bigint[]",
    "d.search_keys && %(key4)s::bigint[]",
    "d.search_keys && %(key5)s::bigint[]",
    "d.search_keys && %(key6)s::bigint[]",
    "d.search_keys && %(key7)s::bigint[]",
    "d.search_keys && %(key8)s::bigint[]",
    "d.search_keys && %(key9)s::bigint[]",
)


def _take(rows: list[Row], want: _Wanted, numbers: list[int], limit: int, page: Found) -> None:
    """Add the rows that fit; a full page goes on below its last row."""
    for row in rows:
        if want(row):
            numbers.append(row["id"])
            if len(numbers) == limit:
                page.next = row["id"]
                return


def _within(row: Row, query: Query) -> bool:
    at = row["created_at"]
    return (query.since is None or at >= query.since) and (query.until is None or at < query.until)


class _Wanted:
    """Whether the shown data of a row has all values of the query."""

    def __init__(self, query: Query, masks: RowMasks) -> None:
        self._values = [(split_path(path), text) for path, text in query.values]
        self._masks = masks
        self._hide: dict[str, Callable[[str], str]] = {}

    def __call__(self, row: Row) -> bool:
        if not self._values:
            return True
        hide = self._hide.get(row["name"])
        if hide is None:
            hide = self._hide[row["name"]] = self._masks.of_event(row["name"])
        data = readable(hide(row["data"]))
        strings = JsonStrings()
        return all(_shows(data, steps, text, strings) for steps, text in self._values)


def _shows(data: JSON, steps: tuple[str, ...], text: str, strings: JsonStrings) -> bool:
    value = dig(data, steps, strings)
    return text == "null" if value is None else value is not MISSING and text_of(value) == text
