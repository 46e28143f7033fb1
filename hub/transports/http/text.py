"""Interpret parts of an HTTP response: `Retry-After` and the text of the body."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_CHARSET = re.compile(r"charset=\"?([A-Za-z0-9._-]{1,40})", re.IGNORECASE)
_TEXT_CODECS = re.compile(
    r"utf-?(8|16|32)([-_]?[bl]e)?|(us-)?ascii|latin-?1|iso-?8859-\d+|(windows-|cp)125\d|koi8-[ru]"
    r"|gb(k|2312|18030)|big5|shift_jis|euc-(jp|kr)",
    re.IGNORECASE,
)


def retry_after(value: str | None, now: datetime | None = None, date: str | None = None) -> float | None:
    """The seconds of a `Retry-After` header (seconds or an HTTP date); None when it is absent or invalid.

    Args:
        now: the time from which a date is counted when the response has no `Date`.
        date: the response's `Date` header. It is preferred: both dates are then of one clock.
    """
    if not value:
        return None
    value = value.strip()
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", value, re.ASCII):
        return float(value)
    if (at := _moment(value)) is None:
        return None
    since = _moment(date) or now or datetime.now(UTC)  # noqa: TID251 - a transport by itself knows no other clock
    return max(0.0, (at - since).total_seconds())


def _moment(value: str | None) -> datetime | None:
    """Parse an HTTP date; None when it is invalid."""
    try:
        at = parsedate_to_datetime(value or "")
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def decode(body: bytes, content_type: str) -> str:
    """Decode a body to text that PostgreSQL stores: no NUL, no incomplete characters."""
    named = _CHARSET.search(content_type)
    codec = named[1] if named and _TEXT_CODECS.fullmatch(named[1]) else "utf-8"
    try:
        text = body.decode(codec, "replace")
    except (LookupError, ValueError):
        text = body.decode("utf-8", "replace")
    return text.replace("\x00", "\ufffd")
