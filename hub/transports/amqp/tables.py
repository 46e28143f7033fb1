"""Tolerant decoding of AMQP header tables: headers that pika cannot decode must not stop a queue.

A header with a time after the year 9999 (milliseconds instead of AMQP's seconds, as some Java clients write) makes
pika raise while it reads, which ends the connection. The message is then redelivered and ends the next connection.
`be_tolerant()` decodes such a value to a text, keeps the fractions of numbers, which pika drops, and decodes an
unreadable table to its bytes. Other values are unchanged.
"""

from __future__ import annotations

import math
import struct
from typing import Any

from pika import data

_decode_value = data.decode_value
_decode_table = data.decode_table
_NUMBERS = {b"f": (">f", 5), b"d": (">d", 9)}  # struct format, and bytes including the type


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
    """Make pika decode every header in this process. Idempotent."""
    data.decode_value = _value
    data.decode_table = _table
