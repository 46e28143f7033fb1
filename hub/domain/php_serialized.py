"""Decodes what PHP's `serialize()` writes, as far as it is data: Moodle keeps an event's `other` so. Pure.

Scalars and arrays only. Objects, references and everything else are refused: nothing is ever instantiated. Size,
depth and count of values are bounded.
"""

from __future__ import annotations

import math
import re
from typing import Final

from hub.errors import PayloadError
from hub.models import JSON

MAX_BYTES: Final = 1_048_576
MAX_VALUES: Final = 50_000
MAX_DEPTH: Final = 50
_INTEGER = re.compile(rb"([+-]?[0-9]{1,19});")
_DOUBLE = re.compile(rb"([+-]?[0-9]{1,40}(?:\.[0-9]{1,60})?(?:[eE][+-]?[0-9]{1,4})?);")
_LENGTH = re.compile(rb"([0-9]{1,7}):")
_LOOKS = re.compile(r"N;|(?:[bi]:[+-]?[0-9]+|d:[0-9.eE+-]+);|s:[0-9]+:\"|a:[0-9]+:\{")


def looks_serialized(text: str) -> bool:
    """Whether a text begins as serialized data does; cheap."""
    return _LOOKS.match(text) is not None


def loads(text: str) -> JSON:
    """The value of a serialized text.

    An array whose keys are 0, 1, 2, ... is a list, every other one an object; its integer keys become text.

    Raises:
        PayloadError: the text is malformed or too large, or it holds an object or a reference.
    """
    data = text.encode("utf-8", "surrogatepass")
    if len(data) > MAX_BYTES:
        raise PayloadError(f"PHP data: more than {MAX_BYTES} bytes")
    reader = _Reader(data)
    value = reader.value(0)
    if reader.at != len(data):
        raise PayloadError(f"PHP data: something follows at byte {reader.at}")
    return value


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._values = 0
        self.at = 0

    def value(self, depth: int) -> JSON:
        """The value at the current place."""
        self._values += 1
        if depth > MAX_DEPTH or self._values > MAX_VALUES:
            raise PayloadError(f"PHP data: more than {MAX_VALUES} values, or nested over {MAX_DEPTH} deep")
        kind = self._data[self.at : self.at + 2]
        start = self.at
        self.at += 2
        if kind == b"N;":
            return None
        if kind == b"b:":
            number = self._integer()
            if number not in (0, 1):
                raise self._wrong(start)
            return number == 1
        if kind == b"i:":
            return self._integer()
        if kind == b"d:":
            found = float(self._match(_DOUBLE))  # INF and NAN do not match: JSON has none
            if not math.isfinite(found):
                raise self._wrong(start)
            return found
        if kind == b"s:":
            text = self._string()
            self._expect(b";")
            return text
        if kind == b"a:":
            return self._array(depth)
        raise self._wrong(start)

    def _array(self, depth: int) -> JSON:
        count = int(self._match(_LENGTH))
        self._expect(b"{")
        found: dict[str | int, JSON] = {}
        for _ in range(count):
            start = self.at
            key = self.value(depth + 1)
            if isinstance(key, bool) or not isinstance(key, str | int) or key in found:
                raise self._wrong(start)
            found[key] = self.value(depth + 1)
        self._expect(b"}")
        if list(found) == list(range(count)):
            return list(found.values())
        return {str(key): value for key, value in found.items()}

    def _string(self) -> str:
        length = int(self._match(_LENGTH))  # in bytes
        self._expect(b'"')
        end = self.at + length
        if end >= len(self._data):
            raise self._wrong(self.at)
        text = self._data[self.at : end]
        self.at = end
        self._expect(b'"')
        try:
            return text.decode()
        except UnicodeDecodeError:
            raise self._wrong(end - length) from None

    def _integer(self) -> int:
        return int(self._match(_INTEGER))

    def _match(self, pattern: re.Pattern[bytes]) -> bytes:
        match = pattern.match(self._data, self.at)
        if match is None:
            raise self._wrong(self.at)
        self.at = match.end()
        return match[1]

    def _expect(self, text: bytes) -> None:
        if not self._data.startswith(text, self.at):
            raise self._wrong(self.at)
        self.at += len(text)

    @staticmethod
    def _wrong(at: int) -> PayloadError:
        return PayloadError(f"PHP data: neither a scalar nor an array at byte {at}")
