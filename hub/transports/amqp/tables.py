"""Tolerant decoding of AMQP header tables: headers that pika cannot decode must not stop a queue.

A header with a time beyond the year 9999 (milliseconds where AMQP has seconds, as some Java clients write)
makes pika raise in the middle of reading, which ends the connection: the message comes back and ends the
next one too, for ever. `be_tolerant()` makes such a value a text, keeps the fractions of numbers, which pika
cuts off, and makes a table that cannot be read at all its bytes; the rest stays as it is.
"""

from __future__ import annotations

import math
import struct
from typing import Any

from pika import data

_decode_value = data.decode_value
_decode_table = data.decode_table
_NUMBERS = {b"f": (">f", 5), b"d": (">d", 9)}  # format, and bytes with the type's own


def _value(encoded: bytes, offset: int) -> tuple[Any, int]:
    kind = encoded[offset : offset + 1]
    if kind in _NUMBERS:
        form, width = _NUMBERS[kind]
        number = struct.unpack_from(form, encoded, offset + 1)[0]
        return (number if math.isfinite(number) else str(number)), offset + width
    try:
        return _decode_value(encoded, offset)
    except (ValueError, OverflowError, OSError):
        if kind != b"T":
            raise
        return str(struct.unpack_from(">Q", encoded, offset + 1)[0]), offset + 9


def _table(encoded: bytes, offset: int) -> tuple[dict[Any, Any], int]:
    try:
        return _decode_table(encoded, offset)
    except Exception:
        end = offset + 4 + struct.unpack_from(">I", encoded, offset)[0]
        return {"undecodable": encoded[offset + 4 : end]}, end


def be_tolerant() -> None:
    """Make pika decode every header, in this process. Calling it again changes nothing."""
    data.decode_value = _value
    data.decode_table = _table
