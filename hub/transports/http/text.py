"""Describe an HTTP response in the hub's terms."""

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
    """Seconds to wait by a `Retry-After` header (seconds or an HTTP date); None when there is none to be read.

    Args:
        now: what a date is counted from, when the answer does not say what time it is where it comes from.
        date: the answer's `Date`: both dates are then of one clock, and ours does not matter.
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
    """An HTTP date; None when it is none."""
    try:
        at = parsedate_to_datetime(value or "")
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def decode(body: bytes, content_type: str) -> str:
    """Bytes of an answer as text that PostgreSQL and a page can take: no NUL, no half characters."""
    named = _CHARSET.search(content_type)
    codec = named[1] if named and _TEXT_CODECS.fullmatch(named[1]) else "utf-8"
    try:
        text = body.decode(codec, "replace")
    except (LookupError, ValueError):
        text = body.decode("utf-8", "replace")
    return text.replace("\x00", "\ufffd")
