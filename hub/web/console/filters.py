"""Jinja filters: values as text or markup."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from hub.codec import readable

_SEPARATED = re.compile(r"[^\\/._-]*[\\/._-]+|[^\\/._-]+")


def when(value: datetime | None) -> Markup:
    """A time element in UTC; the script shows it in the reader's time zone."""
    if value is None:
        return Markup('<span class="none">–</span>')
    at = value.astimezone(UTC)
    shown = at.strftime("%Y-%m-%d %H:%M:%S")
    return Markup('<time datetime="{}">{} UTC</time>').format(at.isoformat(), shown)


def number(value: float | None) -> str:
    """12 345."""
    return "–" if value is None else f"{value:,.0f}".replace(",", "\u202f")


def plain(value: float | str | None) -> str:
    """The shortest form of a number: 5, 0.5."""
    return "" if value is None else f"{value:g}" if isinstance(value, int | float) else value


def of(count: int, word: str, words: str = "") -> str:
    """1 rule, 2 rules."""
    return f"{number(count)} {word if count == 1 else words or word + 's'}"


def moment(text: str) -> datetime | None:
    """Parse a time from a form or URL, in UTC unless it has an offset; None if it is not a time."""
    try:
        at = datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
    return at.replace(tzinfo=UTC) if at and at.tzinfo is None else at


def digits(text: str) -> int | None:
    """Parse an id from a form or URL; None if it is not a number."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def beginning(event: str) -> str | None:
    """An event name filter by prefix: appends `*` unless it is there."""
    return event if event.endswith("*") else f"{event}*" if event else None


def ms(value: float | None) -> str:
    """Milliseconds as text with a unit."""
    if value is None:
        return "–"
    if value >= 10_000:
        return f"{value / 1000:.0f} s"
    if value >= 1000:
        return f"{value / 1000:.1f} s"
    return f"{value:.0f} ms" if value >= 10 else f"{value:.1f} ms"


def pretty(value: Any) -> str:
    """Indented JSON; text that is not JSON is returned unchanged."""
    if value is None:
        return ""
    if isinstance(value, str):
        text, value = value, readable(value)
        if value == text:
            return text
    return json.dumps(value, ensure_ascii=False, indent=2)


def cut(value: Any, length: int = 80) -> str:
    """One line of at most `length` characters."""
    text = " ".join(str("" if value is None else value).split())
    return text if len(text) <= length else text[: length - 1] + "…"


def state(value: str | None) -> Markup:
    """A state as a coloured badge."""
    kind = {
        "closed": "good",
        "delivered": "good",
        "ok": "good",
        "active": "good",
        "enabled": "good",
        "success": "good",
        "up_to_date": "good",
        "open": "bad",
        "failing": "bad",
        "dead": "bad",
        "error": "bad",
        "failed": "bad",
        "lost": "bad",
        "half_open": "warn",
        "delayed": "warn",
        "held": "warn",
        "blocked": "warn",
        "skipped": "warn",
        "waiting": "warn",
        "disabled": "muted",
        "cancelled": "muted",
        "revoked": "muted",
        "expired": "muted",
        "unmatched": "muted",
        "replayed": "muted",
        "running": "busy",
        "reading": "busy",
        "starting": "info",
        "pending": "info",
    }.get(value or "", "muted")
    return Markup('<span class="badge {}">{}</span>').format(kind, (value or "–").replace("_", " "))


def words(value: str | None) -> str:
    """An identifier such as `worker_lost` as words."""
    return (value or "").replace("_", " ")


def reason(letter: Mapping[str, Any]) -> str:
    """Why a task became a dead letter, with its number of attempts."""
    attempts = of(letter["attempts"], "attempt")
    if letter["reason"] == "attempts":
        return f"{attempts} failed"
    return f"{words(letter['reason'])} after {attempts}"


def soft(value: str | None) -> Markup:
    """A name that may be broken after its separators, not inside of a word."""
    pieces = _SEPARATED.findall(value or "–")
    return Markup("<wbr>").join(pieces)


def segment(value: object) -> str:
    """A percent-encoded path segment."""
    return quote(str(value), safe="")


ALL: dict[str, Callable[..., Any]] = {
    "when": when,
    "number": number,
    "plain": plain,
    "of": of,
    "moment": moment,
    "ms": ms,
    "pretty": pretty,
    "cut": cut,
    "state": state,
    "segment": segment,
    "words": words,
    "reason": reason,
    "soft": soft,
}
