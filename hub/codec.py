"""JSON at the edges: strict in, compact out.

Standard library on purpose: it keeps integers of any size, which faster parsers turn into floats.
"""

from __future__ import annotations

import json
import sys
from typing import Any, NoReturn

from hub.errors import PayloadError


def _no_constant(name: str) -> NoReturn:
    raise PayloadError(f"{name} is not JSON")


NESTED = 200
"""Most levels of nesting. Deeper JSON could be read here, but not by code that runs deeper in the stack."""

INT_DIGITS = sys.get_int_max_str_digits() or 4300
"""Most digits of an integer: Python converts longer ones neither from text nor to text."""
TOO_LONG = f"an integer has more than {INT_DIGITS} digits"

_decoder = json.JSONDecoder(parse_constant=_no_constant)
_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_canonical = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":"), sort_keys=True)


def loads(text: str | bytes) -> Any:
    """Parse JSON text (UTF-8 when bytes).

    Raises:
        PayloadError: not UTF-8, not JSON, NaN or Infinity, nested too deeply, lone surrogates.
    """
    try:
        if isinstance(text, bytes | bytearray | memoryview):
            text = bytes(text).decode().removeprefix("\ufeff")
        value = _decoder.decode(text)
        if "\\ud" in text or "\\uD" in text:
            dumps(value).encode()  # a lone surrogate escape can be parsed, but not encoded
        return value
    except UnicodeEncodeError:
        raise PayloadError("the text holds half a surrogate pair (\\ud800-\\udfff)") from None
    except UnicodeDecodeError as e:
        raise PayloadError(f"not UTF-8 at byte {e.start}") from None
    except json.JSONDecodeError as e:
        raise PayloadError(f"not JSON: {e.msg} at line {e.lineno} column {e.colno}") from None
    except RecursionError:
        raise PayloadError("nested too deeply") from None
    except ValueError as e:
        raise PayloadError(f"not usable: {_reason(e)}") from None


def dumps(value: Any) -> str:
    """Compact JSON text; raises `PayloadError` for what JSON cannot say (NaN, sets, cycles)."""
    try:
        return _encoder.encode(value)
    except (TypeError, ValueError, RecursionError) as e:
        raise PayloadError(f"cannot be written as JSON: {_reason(e)}") from None


def _reason(e: Exception) -> str:
    """Why a value cannot be converted; Python's text about long integers names a function of the interpreter."""
    return TOO_LONG if "integer string conversion" in str(e) else str(e)


def readable(text: str | None) -> Any:
    """The value of stored JSON, for display; the text itself where it has no value that can be shown.

    A page must not fail because of one row. Code that acts on a row uses `loads`.
    """
    if text is None:
        return None
    try:
        value = loads(text)
        dumps(value)  # 1e999 is read as infinity, which JSON cannot express
    except PayloadError:
        return text
    return text if deeper_than(value, NESTED) else value


def deeper_than(value: Any, levels: int) -> bool:
    """Whether there are more than so many objects and arrays inside each other."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(levels):
        if not level:
            return False
        level = [
            v
            for parent in level
            for v in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(v, dict | list)
        ]
    return bool(level)


def canonical(value: Any) -> bytes:
    """The same bytes for the same JSON value, whatever the order of its keys."""
    try:
        return _canonical.encode(value).encode()
    except (TypeError, ValueError, RecursionError) as e:
        raise PayloadError(f"cannot be written as JSON: {_reason(e)}") from None
