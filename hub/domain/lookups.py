"""Placeholders that name what an event only refers to: `{{user.email}}`, `{{course.category.name}}`. Pure.

A Moodle event holds ids. A lookup reads the rows behind them from the site's database, by a fixed list of columns.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from hub.domain.template_compiler import PLACEHOLDER
from hub.models import JSON

USERS: Final = {"user": "userid", "relateduser": "relateduserid"}
"""Names of users in templates, and the event's key that holds the id."""
ROOTS: Final = frozenset({*USERS, "course", "cohorts"})
"""First steps of placeholders that a lookup may resolve. A member of that name in the event's data wins."""
_CACHED_TEXT = 16_384  # characters of a text that may be the key of a cache


def named(*texts: str | None) -> frozenset[str]:
    """Placeholders of these templates that a lookup may resolve, as dotted paths."""
    found: frozenset[str] = frozenset()
    for text in texts:
        if text and "{{" in text:
            found |= _named(text) if len(text) <= _CACHED_TEXT else _named.__wrapped__(text)
    return found


@lru_cache(1024)
def _named(text: str) -> frozenset[str]:
    names = (name.strip() for name in PLACEHOLDER.findall(text))
    return frozenset(name for name in names if name.partition(".")[0] in ROOTS)


def wanted(paths: frozenset[str], data: JSON) -> frozenset[str]:
    """Those of the paths whose first step is not in the event's data."""
    if not paths or not isinstance(data, dict):
        return frozenset()
    return frozenset(path for path in paths if path.partition(".")[0] not in data)


def number(value: JSON) -> int | None:
    """An id of an event: an integer, or a text of digits; None for 0 and everything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19:
        value = int(value)
    return value if isinstance(value, int) and 0 < value < 2**63 else None
