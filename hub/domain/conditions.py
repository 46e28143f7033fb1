"""The conditions of rules, evaluated on event data. Pure.

Conditions are JSON, and all of their members must hold::

    {"courseid": 10, "crud": {"in": ["c", "u"]}, "not": {"other.username": {"prefix": "test"}}}

A field is a dotted path into the event's data. A plain value means `eq`. Numbers and numeric strings are equal, because
Moodle's ids may be either; true and false equal only themselves. A missing field counts as null, except for `exists`.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from hub.codec import dumps
from hub.domain.paths import MISSING, JsonStrings, dig, split_path
from hub.errors import PayloadError
from hub.models import JSON

_NUMERIC = re.compile(r"[+-]?\d{1,300}(\.\d{1,300})?([eE][+-]?\d{1,3})?", re.ASCII)
_DEPTH = 50  # most levels of nested conditions


def check_conditions(conditions: JSON) -> None:
    """Raise `PayloadError` with the path of what is wrong. None and {} mean no conditions."""
    if conditions is not None:
        _check(conditions, "", 0)


def holds(conditions: JSON, data: JSON, strings: JsonStrings) -> bool:
    """Whether all members of `conditions` hold for an event's data."""
    for key, wanted in conditions.items():
        if key == "and":
            held = all(holds(c, data, strings) for c in wanted)
        elif key == "or":
            held = any(holds(c, data, strings) for c in wanted)
        elif key == "not":
            held = not holds(wanted, data, strings)
        else:
            value = dig(data, split_path(key), strings)
            if type(wanted) is dict:
                held = all(_operator(name)(value, operand) for name, operand in wanted.items())
            else:
                held = _equal(value, wanted)
        if not held:
            return False
    return True


def _operator(name: str) -> Callable[[JSON, JSON], bool]:
    try:
        return _OPERATORS[name]
    except KeyError:
        raise PayloadError(f"{name!r} is not an operator; known: {', '.join(_OPERATORS)}") from None


def _number(value: JSON) -> int | float | None:
    if type(value) is int or type(value) is float:
        return value
    if type(value) is str and (m := _NUMERIC.fullmatch(value)):
        return float(value) if m[1] or m[2] else int(value)
    return None


def _equal(a: JSON, b: JSON) -> bool:
    if a is MISSING:
        a = None
    if type(a) is type(b):
        if type(a) is dict:
            return a.keys() == b.keys() and all(_equal(v, b[k]) for k, v in a.items())
        if type(a) is list:
            return len(a) == len(b) and all(map(_equal, a, b))
        return bool(a == b)
    x, y = _number(a), _number(b)
    return x is not None and x == y


def _compare(a: JSON, b: JSON) -> int | None:
    """-1, 0 or 1; None where the two have no order. Texts that are not numbers are ordered as texts."""
    x, y = _number(a), _number(b)
    if x is not None and y is not None:
        return (x > y) - (x < y)
    if type(a) is str and type(b) is str:
        return (a > b) - (a < b)
    return None


def _as_text(value: JSON) -> str:
    """The text that `prefix`, `suffix` and `contains` compare. Ids may be numbers."""
    return value if type(value) is str else str(value) if type(value) is int else ""


def _contains(value: JSON, wanted: JSON) -> bool:
    if type(value) is list:
        return any(_equal(item, wanted) for item in value)
    return type(wanted) is str and wanted in _as_text(value)


_OPERATORS: dict[str, Callable[[JSON, JSON], bool]] = {
    "eq": _equal,
    "ne": lambda value, wanted: not _equal(value, wanted),
    "in": lambda value, wanted: any(_equal(value, item) for item in wanted),
    "nin": lambda value, wanted: not any(_equal(value, item) for item in wanted),
    "exists": lambda value, wanted: (value is not MISSING) is wanted,
    "prefix": lambda value, wanted: _as_text(value).startswith(wanted),
    "suffix": lambda value, wanted: _as_text(value).endswith(wanted),
    "contains": _contains,
    "gt": lambda value, wanted: _compare(value, wanted) == 1,
    "gte": lambda value, wanted: _compare(value, wanted) in (0, 1),
    "lt": lambda value, wanted: _compare(value, wanted) == -1,
    "lte": lambda value, wanted: _compare(value, wanted) in (0, -1),
}


def _check(conditions: JSON, where: str, depth: int) -> None:
    if depth > _DEPTH:
        raise PayloadError(f"{where}: nested more than {_DEPTH} deep")
    if type(conditions) is not dict:
        raise PayloadError(f'{where or "conditions"}: must be an object such as {{"courseid": 10}}')
    for key, wanted in conditions.items():
        here = f"{where}.{key}" if where else key
        if key in ("and", "or"):
            if type(wanted) is not list or not wanted:
                raise PayloadError(f"{here}: must be a list of conditions, not empty")
            for i, item in enumerate(wanted):
                _check(item, f"{here}[{i}]", depth + 1)
        elif key == "not":
            _check(wanted, here, depth + 1)
        else:
            _check_field(key, wanted, here)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_field(key: str, wanted: JSON, here: str) -> None:
    try:
        split_path(key)
    except PayloadError as e:
        raise PayloadError(f"{here}: {e}") from None
    try:
        text = dumps(wanted)
    except PayloadError as e:
        raise PayloadError(f"{here}: {e}") from None
    if "\\u0000" in text or not _encodable(text):
        raise PayloadError(f"{here}: must not hold NUL or half a surrogate pair")  # PostgreSQL stores neither
    if type(wanted) is not dict:
        return
    if not wanted:
        raise PayloadError(f"{here}: holds no operator; known: {', '.join(_OPERATORS)}")
    for name, operand in wanted.items():
        if name not in _OPERATORS:
            raise PayloadError(f"{here}.{name}: no such operator; known: {', '.join(_OPERATORS)}")
        if name in ("in", "nin") and type(operand) is not list:
            raise PayloadError(f"{here}.{name}: must be a list")
        if name == "exists" and type(operand) is not bool:
            raise PayloadError(f"{here}.{name}: must be true or false")
        if name in ("prefix", "suffix") and type(operand) is not str:
            raise PayloadError(f"{here}.{name}: must be a text")
        if name in ("gt", "gte", "lt", "lte") and type(operand) not in (int, float, str):
            raise PayloadError(f"{here}.{name}: must be a number or a text")
