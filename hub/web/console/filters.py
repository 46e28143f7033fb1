"""How values look on a page."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from hub.codec import readable


def when(value: datetime | None) -> Markup:
    """A time; the script shows it in the reader's zone, with how long ago."""
    if value is None:
        return Markup('<span class="none">–</span>')
    at = value.astimezone(UTC)
    shown = at.strftime("%Y-%m-%d %H:%M:%S")
    return Markup('<time datetime="{}">{} UTC</time>').format(at.isoformat(), shown)


def number(value: float | None) -> str:
    """12 345."""
    return "–" if value is None else f"{value:,.0f}".replace(",", "\u202f")


def plain(value: float | str | None) -> str:
    """A number as short as it can be: 5, 0.5."""
    return "" if value is None else f"{value:g}" if isinstance(value, int | float) else value


def of(count: int, word: str, words: str = "") -> str:
    """1 rule, 2 rules."""
    return f"{number(count)} {word if count == 1 else words or word + 's'}"


def moment(text: str) -> datetime | None:
    """A time from a form or an address, in UTC unless it says its zone; what is none is none."""
    try:
        at = datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
    return at.replace(tzinfo=UTC) if at and at.tzinfo is None else at


def digits(text: str) -> int | None:
    """A number of a row from a form or an address; what is none is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def beginning(event: str) -> str | None:
    """A filter by an event's beginning, whether or not the star was typed."""
    return event if event.endswith("*") else f"{event}*" if event else None


def ms(value: float | None) -> str:
    """Milliseconds with their unit."""
    if value is None:
        return "–"
    if value >= 10_000:
        return f"{value / 1000:.0f} s"
    if value >= 1000:
        return f"{value / 1000:.1f} s"
    return f"{value:.0f} ms" if value >= 10 else f"{value:.1f} ms"


def pretty(value: Any) -> str:
    """JSON over several lines; text that is none as it is."""
    if value is None:
        return ""
    if isinstance(value, str):
        text, value = value, readable(value)
        if value == text:
            return text
    return json.dumps(value, ensure_ascii=False, indent=2)


def cut(value: Any, length: int = 80) -> str:
    """One line of at most so many characters."""
    text = " ".join(str("" if value is None else value).split())
    return text if len(text) <= length else text[: length - 1] + "…"


def state(value: str | None) -> Markup:
    """A state as a badge; the word says it, the colour helps."""
    kind = {
        "closed": "good", "delivered": "good", "ok": "good", "enabled": "good", "success": "good", "open": "bad",
        "dead": "bad", "error": "bad", "failed": "bad", "lost": "bad", "half_open": "warn", "delayed": "warn",
        "held": "warn", "skipped": "warn", "disabled": "muted", "cancelled": "muted", "revoked": "muted",
        "expired": "muted", "running": "busy", "pending": "info",
    }.get(value or "", "muted")  # fmt: skip
    return Markup('<span class="badge {}">{}</span>').format(kind, (value or "–").replace("_", " "))


def segment(value: object) -> str:
    """A part of a path."""
    return quote(str(value), safe="")


ALL: dict[str, Callable[..., Any]] = {
    "when": when, "number": number, "plain": plain, "of": of, "moment": moment, "ms": ms,
    "pretty": pretty, "cut": cut, "state": state, "segment": segment,
}  # fmt: skip
