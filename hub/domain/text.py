"""Texts that are logged or stored: the mask, a bounded length, and the characters that PostgreSQL accepts. Pure."""

from __future__ import annotations

from typing import Final, overload

MASK: Final = "***"
"""What is shown in place of a secret or a masked value."""


@overload
def bounded(text: str, limit: int) -> str: ...
@overload
def bounded(text: str | None, limit: int) -> str | None: ...
def bounded(text: str | None, limit: int) -> str | None:
    """Cut a text to `limit` characters, with a note of how many are missing."""
    if text is None or len(text) <= limit:
        return text
    return f"{text[:limit]}… [{len(text) - limit} more characters]"


def storable(text: str | None) -> str | None:
    """Replace what PostgreSQL does not accept in a text: NUL and half surrogate pairs."""
    if text is None:
        return None
    if "\x00" in text:
        text = text.replace("\x00", "\ufffd")
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-8", "replace").decode()
    return text
