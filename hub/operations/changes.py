"""What applying a file changes of one thing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Change:
    """One thing the file changes. `fields`: name -> (before, after), secrets masked."""

    kind: str
    name: str
    action: str  # add, change, same, delete
    fields: dict[str, tuple[Any, Any]] = field(default_factory=dict)


def compare(kind: str, name: str, exists: bool, before: dict[str, Any], after: dict[str, Any]) -> Change:
    """The change of one thing: what differs of its fields."""
    if not exists:
        return Change(kind, name, "add", {k: (None, v) for k, v in after.items() if v not in (None, {}, [], "")})
    fields = {
        key: (before.get(key), after.get(key)) for key in sorted({*before, *after}) if before.get(key) != after.get(key)
    }
    return Change(kind, name, "change" if fields else "same", fields)
