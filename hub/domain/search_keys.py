"""Search keys: numbers under which an event is found by values of its data. Pure.

A key is the CRC-32 of a path and the value there, such as `userid=42`. The ledger stores it below the number of the
event's block (`BLOCK` consecutive events). So one index entry names a value within a block: new entries lie together
at the end of the index, and a search goes block by block, newest first. CRC-32 may collide, so whoever searches
compares the values of what was found.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Final

from hub.codec import dumps
from hub.domain.paths import (
    MISSING,
    JsonStrings,
    dig,
    split_path,
)
from hub.models import JSON

BLOCK_BITS: Final = 14
BLOCK: Final = 1 << BLOCK_BITS
"""Events of one block, by their numbers in the ledger."""

_LONGEST = 255  # characters of a value that has a key: longer ones are no ids


def text_of(value: JSON) -> str | None:
    """A scalar as it is searched for: 42 and "42" are the same. None: an object, a list, null, or nothing there."""
    if type(value) is str:
        return value
    if type(value) is int:
        return str(value)
    if value is None or value is MISSING or isinstance(value, dict | list):
        return None
    return dumps(value)


def key_of(path: str, text: str) -> int:
    """The key of a value at a path, below 2^32."""
    return zlib.crc32(f"{path}={text}".encode("utf-8", "surrogatepass"))


def keys_of(paths: Sequence[str], data: JSON, strings: JsonStrings | None = None) -> list[int]:
    """The keys of an event's data; values that are null, missing, no scalars or longer than 255 characters have none.

    Args:
        strings: the JSON in the strings of this event, if others read it too.
    """
    keys = []
    for path in paths:
        value = data.get(path) if type(data) is dict and "." not in path else dig(data, split_path(path), strings)
        text = text_of(value)
        if text is not None and len(text) <= _LONGEST:
            keys.append(key_of(path, text))
    return keys


def stored(key: int, block: int) -> int:
    """The key as the ledger stores it for an event of that block."""
    return block << 32 | key
