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


class SearchKeys:
    """Computes the keys of events for fixed paths; it runs for every accepted event."""

    def __init__(self, paths: Sequence[str]) -> None:
        # CRC-32 goes on where it stopped: the part of the path is computed once.
        self._plain = [(path, key_of(path, "")) for path in paths if "." not in path]
        self._deep = [(split_path(path), path) for path in paths if "." in path]

    def of(self, data: JSON, strings: JsonStrings | None = None) -> list[int]:
        """The keys of an event's data. Values that are null, missing, no scalars or longer than 255 have none.

        Args:
            strings: the JSON in the strings of this event, if others read it too.
        """
        keys = []
        if type(data) is dict:
            for name, prefix in self._plain:
                value = data.get(name)
                if type(value) is int:
                    keys.append(zlib.crc32(b"%d" % value, prefix))
                elif value is not None and (text := _short(value)) is not None:
                    keys.append(zlib.crc32(text.encode("utf-8", "surrogatepass"), prefix))
        for steps, path in self._deep:
            if (text := _short(dig(data, steps, strings))) is not None:
                keys.append(key_of(path, text))
        return keys


def _short(value: JSON) -> str | None:
    text = text_of(value)
    return text if text is not None and len(text) <= _LONGEST else None


def stored(key: int, block: int) -> int:
    """The key as the ledger stores it for an event of that block."""
    return block << 32 | key
