"""Compiles payload and endpoint templates into functions of a scope. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from typing import Final
from urllib.parse import quote

from hub.codec import dumps, loads
from hub.domain.paths import MISSING, JsonStrings, dig, split_path
from hub.errors import InvalidPayloadError, PayloadError
from hub.models import JSON

PLACEHOLDER = re.compile(r"\{\{([^{}]*)\}\}")
# A JSON string (also one without an end, so that the scan stays linear), or a placeholder outside of one.
_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)|\{\{([^{}"]*)\}\}', re.DOTALL)
MAX_BODY: Final = 8_388_608
"""Most characters of a rendered body, unless a scope says otherwise."""


class _Size:
    """Counts the characters of values before they are rendered, so that no template can use up memory."""

    __slots__ = ("_known", "_left", "_limit")

    def __init__(self, limit: int) -> None:
        self._limit = self._left = limit
        self._known: dict[int, int] = {}  # by identity: the event's data holds the values

    def take(self, value: JSON) -> JSON:
        """The value; raises `InvalidPayloadError` when all values so far exceed the limit."""
        kind = type(value)
        if kind is str:
            size = len(value)
        elif kind is dict or kind is list:
            size = self._known.get(id(value), 0)
            if not size:
                size = self._known[id(value)] = len(dumps(value))
        else:
            size = value.bit_length() // 3 if kind is int else 5
        self._left -= size
        if self._left < 0:
            raise self.exceeded()
        return value

    def check(self, text: str) -> str:
        """The rendered text; raises `InvalidPayloadError` when it exceeds the limit (JSON's escapes count)."""
        if len(text) > self._limit:
            raise self.exceeded()
        return text

    def exceeded(self) -> InvalidPayloadError:
        return InvalidPayloadError(f"has more than {self._limit} characters when rendered")


@dataclass(frozen=True, slots=True)
class Scope:
    """What placeholders can see.

    `strict`: a path that leads nowhere is an error, not null. `limit`: most characters of the rendered body.
    `cached`: whether the compiled template is kept for the next event.
    `escape`: applied to every value that becomes text. `extra`: where paths lead that are not in the event's data.
    """

    data: JSON
    event_name: str
    event_id: str
    task_id: int
    now: datetime
    strict: bool = False
    limit: int = MAX_BODY
    cached: bool = True
    escape: Callable[[str], str] | None = None
    extra: dict[str, JSON] = field(default_factory=dict)
    strings: JsonStrings = field(default_factory=JsonStrings, compare=False)
    size: _Size = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", _Size(self.limit))


Node = Callable[[Scope], JSON]


RESERVED: dict[str, Node] = {
    "event.name": lambda scope: scope.event_name,
    "event.id": lambda scope: scope.event_id,
    "event.data": lambda scope: scope.data,
    "task.id": lambda scope: scope.task_id,
    "now": lambda scope: scope.now.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
}


def _text(value: JSON) -> str:
    """A value inside a longer string."""
    if type(value) is str:
        return value
    return "" if value is None else dumps(value)


def compile_body(text: str) -> Node:
    quoted, shifts = quote_bare(text)
    try:
        tree = loads(quoted)
    except PayloadError as e:
        if not isinstance(e.__context__, json.JSONDecodeError):
            raise
        position = e.__context__.pos
        position -= max((grown for end, grown in shifts if end <= position), default=0)
        raise PayloadError(f"not JSON: {e.__context__.msg} at {place(text, position)}") from None
    try:
        return _compile(tree) or (lambda scope: tree)
    except RecursionError:
        raise PayloadError("nested too deeply") from None


def quote_bare(text: str) -> tuple[str, list[tuple[int, int]]]:
    """Put quotes around the placeholders that have none.

    Returns the text, and for each change where it ends and by how much the text has grown up to there.
    """
    out: list[str] = []
    shifts: list[tuple[int, int]] = []
    last = grown = 0
    for token in _TOKEN.finditer(text):
        _check_placeholders(text, token.start(), token.end())
        if token[1] is None:
            continue
        quoted = dumps(token[0])
        out += [text[last : token.start()], quoted]
        last = token.end()
        grown += len(quoted) - len(token[0])
        shifts.append((last + grown, grown))
    return "".join([*out, text[last:]]), shifts


def _check_placeholders(text: str, start: int, end: int) -> None:
    while (opening := text.find("{{", start, end)) >= 0:
        while text.startswith("{{{", opening) and opening + 3 <= end:
            opening += 1  # of three braces the last two open
        match = PLACEHOLDER.match(text, opening, end)
        if match is None:
            raise PayloadError(f"{{{{ without its }}}} at {place(text, opening)}")
        try:
            split_path(match[1].strip())
        except PayloadError as e:
            raise PayloadError(f"placeholder {e} at {place(text, opening)}") from None
        start = match.end()


def place(text: str, position: int) -> str:
    line = text.count("\n", 0, position) + 1
    return f"line {line} column {position - text.rfind(chr(10), 0, position)}"


def _compile(value: JSON) -> Node | None:
    """A function that builds the value, None when it is the same for every event."""
    if type(value) is str:
        return _compile_text(value)
    if type(value) is list:
        nodes = [_compile(item) for item in value]
        if not any(nodes):
            return None
        items = list(zip(value, nodes, strict=True))
        return lambda scope: [node(scope) if node else item for item, node in items]
    if type(value) is dict:
        members = [(key, _compile_text(key), item, _compile(item)) for key, item in value.items()]
        if not any(key_node or node for _, key_node, _, node in members):
            return None
        return lambda scope: {
            (_text(key_node(scope)) if key_node else key): (node(scope) if node else item)
            for key, key_node, item, node in members
        }
    return None


def _compile_text(text: str) -> Node | None:
    if "{{" not in text:
        return None
    pieces = parts(text)
    if len(pieces) == 3 and pieces[0] == pieces[2] == "" and callable(pieces[1]):
        return _alone(pieces[1])
    return lambda scope: "".join([piece if isinstance(piece, str) else shown(piece(scope), scope) for piece in pieces])


def _alone(node: Node) -> Node:
    """A string that is one placeholder: it takes the value with its JSON type."""

    def value(scope: Scope) -> JSON:
        found = node(scope)
        return found if scope.escape is None or type(found) is not str else scope.escape(found)

    return value


def shown(value: JSON, scope: Scope) -> str:
    """A value as part of a text, escaped where the scope asks for it."""
    text = _text(value)
    return text if scope.escape is None else scope.escape(text)


def parts(text: str) -> list[str | Node]:
    """Literals and placeholders in turn."""
    _check_placeholders(text, 0, len(text))
    pieces = PLACEHOLDER.split(text)
    return [_lookup(piece.strip()) if i % 2 else piece for i, piece in enumerate(pieces)]


def _lookup(name: str) -> Node:
    if (reserved := RESERVED.get(name)) is not None:
        return lambda scope: scope.size.take(reserved(scope))
    steps = split_path(name)

    def look(scope: Scope) -> JSON:
        value = dig(scope.data, steps, scope.strings)
        if value is MISSING and scope.extra:
            value = dig(scope.extra, steps)
        if value is not MISSING:
            return scope.size.take(value)
        if scope.strict:
            raise PayloadError(f"{{{{{name}}}}} is not in the event, and the rule is strict")
        return None

    return look


def compile_endpoint(text: str) -> tuple[list[list[str | Node]], list[str | Node]]:
    """The path's segments, and what follows the path (from `?` or `#` on)."""
    _check_placeholders(text, 0, len(text))
    bare = PLACEHOLDER.sub(lambda m: "x" * len(m[0]), text)  # a `/` or `?` in a name is no separator
    end = min((i for i in (bare.find("?"), bare.find("#")) if i >= 0), default=len(text))
    cuts = [-1, *(i for i in range(end) if bare[i] == "/"), end]
    segments = [parts(text[a + 1 : b]) for a, b in pairwise(cuts)]
    return segments, parts(text[end:])


def fill(parts: list[str | Node], scope: Scope, routing_key: bool) -> str:
    def encoded(value: JSON) -> str:
        text = quote(_text(value), safe="")
        return text.replace(".", "%2E") if routing_key else text

    return "".join([p if isinstance(p, str) else encoded(p(scope)) for p in parts])
