"""The search language of the event log: terms separated by blanks, all of which must hold. Pure.

| Term | Finds events |
|---|---|
| `relateduserid:42`, `other.email:"a@b.c"` | whose data has this value at this path |
| `data.status:open` | the same, for a path that begins with a word of this table |
| `event:\\core\\event\\user_*`, `\\core\\event\\user_created` | of this name; `*` at the end: any that begins so |
| `service:crm` | with a task for this service |
| `status:dead` | with a task that is pending, delivered, failed, dead or cancelled; unmatched: without any |
| `status:503` | with a delivery of this HTTP status |
| `error:"timed out"` | with this text in an error of theirs |
| `since:7d`, `until:2026-03-01` | of this time: ISO 8601, or so long ago |
| `task:7`, `dead-letter:7`, `delivery:7`, `id:order-7`, `order-7` | that this id leads to |
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from hub.domain.paths import split_path
from hub.errors import PayloadError

STATUSES: Final = ("pending", "delivered", "failed", "dead", "cancelled", "unmatched")
"""Words that `status` takes beside HTTP statuses."""

_LONGEST = 2000  # characters of a query
_MOST = 10  # values of data in one query
_TERM = re.compile(r'\s*(?:([^\s":]+):)?(?:"((?:[^"\\]|\\.)*)"|([^\s"]\S*))(?=\s|$)')
_AGO = re.compile(r"(\d{1,6})([smhdw])", re.ASCII)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_HTTP = re.compile(r"[1-5]\d\d", re.ASCII)
_IDS = ("task", "dead-letter", "delivery")


@dataclass(frozen=True, slots=True)
class Query:
    """What is wanted; a member that is None or empty does not matter.

    Attributes:
        id: an id of any kind, as `EventLog.find` takes it.
        values: (path, text) of event data.
        event: a name, or its beginning and `*`.
        status: one of `STATUSES`.
        http_status: of a delivery.
        until: exclusive.
    """

    id: str | None = None
    values: tuple[tuple[str, str], ...] = ()
    event: str | None = None
    service: str | None = None
    status: str | None = None
    http_status: int | None = None
    error: str | None = None
    since: datetime | None = None
    until: datetime | None = None


def parse_query(text: str, now: datetime) -> Query:
    """Parse a search.

    Args:
        now: what `since:7d` counts from; timezone-aware.

    Raises:
        PayloadError: says which term is wrong.
    """
    if len(text) > _LONGEST:
        raise PayloadError(f"the search has more than {_LONGEST} characters")
    if "\0" in text:
        raise PayloadError("a search cannot hold NUL")
    query, at, text = Query(), 0, text.rstrip()
    while at < len(text):
        term = _TERM.match(text, at)
        if term is None or (not term[1] and (term[3] or "").endswith(":")):
            raise PayloadError(f'{text[at:].strip()[:60]!r}: a term is a word, path:value or path:"a longer value"')
        value = re.sub(r"\\(.)", r"\1", term[2]) if term[2] is not None else term[3]
        query = _with(query, term[1], value, now)
        at = term.end()
    if query.since and query.until and query.since >= query.until:
        raise PayloadError("since: must lie before until")
    return query


def _with(query: Query, word: str | None, value: str, now: datetime) -> Query:
    if word is None:
        word = "event" if value.startswith("\\") or value.endswith("*") else "id"
    if not value:
        raise PayloadError(f"{word}: give a value")
    if word in _IDS:
        word, value = "id", f"{word}:{value}"
    if word in ("id", "event", "service", "error"):
        return _once(query, word, value)
    if word in ("since", "until"):
        return _once(query, word, _time(word, value, now))
    if word == "status":
        if _HTTP.fullmatch(value):
            return _once(query, "http_status", int(value))
        if value not in STATUSES:
            raise PayloadError(f"status: {value!r} is neither an HTTP status nor one of {', '.join(STATUSES)}")
        return _once(query, "status", value)
    path = word.removeprefix("data.")
    split_path(path)
    if len(query.values) == _MOST:
        raise PayloadError(f"{word}: a search takes at most {_MOST} values of data")
    return replace(query, values=(*query.values, (path, value)))


def _once(query: Query, field: str, value: Any) -> Query:
    if getattr(query, field) is not None:
        raise PayloadError(f"{field.replace('http_', '')}: given twice")
    return replace(query, **{field: value})


def _time(word: str, value: str, now: datetime) -> datetime:
    if ago := _AGO.fullmatch(value):
        return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    try:
        at = datetime.fromisoformat(value)
        at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        at = datetime.min.replace(tzinfo=UTC)
    if not 1970 <= at.year < 9000:
        raise PayloadError(f"{word}: {value!r} is no time such as 2026-03-01T12:00 or 7d")
    return at
