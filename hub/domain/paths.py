"""Dotted paths into JSON values: look one up, mask some. Pure.

`other.username` is the member `username` of the member `other`; a number is a list index. A string on the
way is read as JSON where it holds an object or a list: Moodle's `other` may come as one. `JsonStrings` reads
each string of an event at most once, within limits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from hub.codec import (
    NESTED,
    deeper_than,
    dumps,
    loads,
)
from hub.domain.text import MASK
from hub.errors import PayloadError
from hub.models import JSON

_LONGEST = 1000  # characters of a path
_FIRST = re.compile(r"\s*[{[]").match
MISSING: Final = object()
"""What `dig` returns where the path leads nowhere; null is a value."""


@lru_cache(1024)
def split_path(path: str) -> tuple[str, ...]:
    """The steps of a dotted path; raises `PayloadError` when one is empty or the path too long."""
    if len(path) > _LONGEST:
        raise PayloadError(f"{path[:30] + '…'!r} has more than {_LONGEST} characters")
    steps = tuple(path.split("."))
    if not all(steps) or any(c < " " or c == "\x7f" for c in path):
        raise PayloadError(f"{path!r} is not a dotted path such as other.username")
    return steps


class JsonStrings:
    """The JSON in the strings of one event, each parsed at most once; not thread-safe.

    A string counts as plain text when it exceeds what is left of the limits, which are per event:
    `MAX_CHARS` characters and `MAX_NODES` values, and when it is nested more than `NESTED` deep.
    """

    MAX_CHARS: Final = 1_048_576
    MAX_NODES: Final = 200_000

    __slots__ = ("_chars", "_nodes", "_parsed")

    def __init__(self) -> None:
        self._chars, self._nodes = self.MAX_CHARS, self.MAX_NODES
        self._parsed: dict[str, JSON] = {}

    def read(self, text: str) -> JSON:
        """The object or list that the text holds as JSON, else the text."""
        try:
            return self._parsed[text]
        except KeyError:
            value = self._parsed[text] = self._read(text)
            return value

    def _read(self, text: str) -> JSON:
        if _FIRST(text) is None:
            return text
        nodes = text.count(",") + text.count("[") + text.count("{")  # at least as many as there are
        if len(text) > self._chars or nodes > self._nodes:
            return text
        self._chars -= len(text)
        self._nodes -= nodes
        value = _inner(text)
        return text if deeper_than(value, NESTED) else value


def dig(value: JSON, steps: tuple[str, ...], strings: JsonStrings | None = None) -> JSON:
    """What the steps lead to, or `MISSING`.

    Args:
        strings: of the event that `value` is; none: its strings are parsed for this call.
    """
    for step in steps:
        if type(value) is str:
            strings = strings or JsonStrings()
            value = strings.read(value)
        if type(value) is dict:
            value = value.get(step, MISSING)
        elif type(value) is list and step.isascii() and step.isdigit() and len(step) < 10 and int(step) < len(value):
            value = value[int(step)]
        else:
            return MISSING
    return value


def mask_body(text: str, paths: Iterable[str], seen: list[JSON] | None = None) -> str:
    """The JSON text with `***` at the given dotted paths, for what is kept; `*` is any key or index.

    A name applied to a list means each of its items. Text that is not JSON becomes `***` as a whole:
    nobody can tell where its secrets are.

    Args:
        seen: receives the values that were masked.
    """
    paths = list(paths)
    if not paths or not text:
        return text
    try:
        return dumps(mask_value(loads(text), paths, seen))
    except (PayloadError, RecursionError):
        return MASK


def mask_value(value: JSON, paths: Iterable[str], seen: list[JSON] | None = None) -> JSON:
    """As `mask_body`, of a value."""
    seen = seen if seen is not None else []
    for path in paths:
        value = _masked(value, path.split("."), seen)
    return value


def _masked(value: JSON, steps: list[str], seen: list[JSON]) -> JSON:
    if not steps:
        seen.append(value)
        return MASK
    if type(value) is str and type(inner := _inner(value)) is not str:
        return dumps(_masked(inner, steps, seen))
    step, rest = steps[0], steps[1:]
    if type(value) is dict:
        return {k: _masked(v, rest, seen) if step in (k, "*") else v for k, v in value.items()}
    if type(value) is list:
        if step == "*" or not (step.isascii() and step.isdigit()):
            return [_masked(v, rest if step == "*" else steps, seen) for v in value]
        return [_masked(v, rest, seen) if str(i) == step else v for i, v in enumerate(value)]
    return value


def _inner(text: str) -> JSON:
    """The object or list that a string holds as JSON, else the string."""
    if _FIRST(text) is not None:
        try:
            return loads(text)
        except PayloadError:
            pass
    return text
