"""Payload and endpoint templates, filled from one event. Pure; compiled once per text.

A payload template is parsed as JSON first and filled in the tree, so no value can break the JSON: a string
that is one placeholder takes the value's JSON type, inside a longer string (or a key) the value is formatted
in. A placeholder outside of quotes counts as quoted. In an endpoint, values are percent-encoded and
cannot leave their path segment.

Placeholders: dotted paths into the event's data (list indexes too), `event.name`, `event.id`, `event.data`
(all of it), `task.id`, `now` (ISO 8601, UTC).
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from itertools import pairwise
from typing import Final, Generic, TypeVar
from urllib.parse import quote, unquote

from cachetools import LRUCache

from hub.codec import dumps, loads
from hub.domain.paths import (
    MISSING,
    JsonStrings,
    dig,
    mask_body,
    split_path,
)
from hub.errors import InvalidPayloadError, PayloadError
from hub.models import JSON

__all__ = [
    "Scope",
    "check_endpoint",
    "check_template",
    "mask_body",
    "placeholders_at",
    "render_body",
    "render_endpoint",
]

_PLACEHOLDER = re.compile(r"\{\{([^{}]*)\}\}")
# A JSON string (also one without an end, so that the scan stays linear), or a placeholder outside of one.
_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)|\{\{([^{}"]*)\}\}', re.DOTALL)

MAX_TEMPLATE: Final = 262_144
"""Most characters of a payload template that is saved or previewed."""
MAX_ENDPOINT: Final = 8192
"""Most characters of a rendered endpoint."""
MAX_BODY: Final = 8_388_608
"""Most characters of a rendered body, unless a scope says otherwise."""
_CACHE_SIZE = 2_000_000  # characters of the templates kept compiled, of each kind
_CACHED_TEXT = 16_384  # characters of a text that may be the key of a cache
_ENTRY = 500  # characters that an entry counts at least

T = TypeVar("T")


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
    `escape`: applied to every value that becomes text.
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
    strings: JsonStrings = field(default_factory=JsonStrings, compare=False)
    size: _Size = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", _Size(self.limit))


Node = Callable[[Scope], JSON]

_RESERVED: dict[str, Node] = {
    "event.name": lambda scope: scope.event_name,
    "event.id": lambda scope: scope.event_id,
    "event.data": lambda scope: scope.data,
    "task.id": lambda scope: scope.task_id,
    "now": lambda scope: scope.now.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
}


def check_template(text: str | None) -> None:
    """Raises `PayloadError` with line and column if the text is no payload template; blank is fine."""
    if text and text.strip():
        if len(text) > MAX_TEMPLATE:
            raise PayloadError(f"{len(text)} characters are more than the limit of {MAX_TEMPLATE}")
        _compile_body(text)
        _no_filters(text)


def check_endpoint(text: str) -> None:
    """Raises `PayloadError` when a placeholder of an endpoint is malformed."""
    _compile_endpoint(text)
    _no_filters(text)


def _no_filters(text: str) -> None:
    for match in _PLACEHOLDER.finditer(text):
        if "|" in match[1]:
            raise PayloadError(
                f"placeholder {match[0][:60]!r} at {_place(text, match.start())}: filters are not supported;"
                " a placeholder is a path such as {{other.username}}"
            )


def render_body(text: str | None, scope: Scope) -> str:
    """The payload as JSON text; without a template it is the event's data.

    Raises:
        InvalidPayloadError: the template is not usable, the body exceeds `scope.limit`, or in strict mode a placeholder
            leads nowhere.
    """
    try:
        body = dumps(_bodies.get(text, keep=scope.cached)(scope)) if text and text.strip() else dumps(scope.data)
        scope.size.check(body)
        if not body.isascii():
            body.encode()
    except (PayloadError, InvalidPayloadError) as e:
        raise InvalidPayloadError(f"payload template: {e}") from None
    except RecursionError:
        raise InvalidPayloadError("payload template: nested too deeply") from None
    except UnicodeEncodeError:
        raise InvalidPayloadError("payload: half a surrogate pair cannot be sent") from None
    return body


def render_endpoint(text: str, scope: Scope, *, routing_key: bool = False) -> str:
    """The endpoint with its placeholders percent-encoded, at most `MAX_ENDPOINT` characters.

    Args:
        routing_key: it is an AMQP routing key: `.` in a value is encoded too (`%2E`), because it separates words.

    Raises:
        InvalidPayloadError: as `render_body`; also when values leave a path segment empty, or make it `.` or
            `..` once decoded: servers treat `%2E%2E` and `..%2F` as `..`, so the request could go astray.
    """
    if "{{" not in text:
        return text
    scope = replace(scope, limit=MAX_ENDPOINT)
    try:
        segments, query = _endpoints.get(text, keep=scope.cached)
        path = [_fill(parts, scope, routing_key) for parts in segments]
        for parts, filled in zip(segments, path, strict=True):
            if len(parts) > 1 and not _stays_inside(unquote(filled)):
                raise PayloadError(f"the values of the event make a path segment of {text!r} unsafe")
        return scope.size.check("/".join(path) + _fill(query, scope, routing_key))
    except (PayloadError, InvalidPayloadError) as e:
        raise InvalidPayloadError(f"endpoint: {e}") from None
    except UnicodeEncodeError:
        raise InvalidPayloadError("endpoint: half a surrogate pair cannot be sent") from None


def placeholders_at(text: str, paths: tuple[str, ...]) -> frozenset[str]:
    """Paths into the event's data whose values a payload template puts where the payload's `paths` lead.

    `{"user": {"mail": "{{other.email}}"}}` and `user.mail` give `other.email`; `{"user": "{{other}}"}` gives
    `other.mail`. A text that is no template gives none.
    """
    find = _placeholders_at if len(text) <= _CACHED_TEXT else _placeholders_at.__wrapped__
    return find(text, paths)


@lru_cache(512)
def _placeholders_at(text: str, paths: tuple[str, ...]) -> frozenset[str]:
    try:
        tree = loads(_quote_bare(text)[0])
    except (PayloadError, RecursionError):
        return frozenset()
    found: set[str] = set()
    for path in paths:
        _collect(tree, path.split("."), found)
    return frozenset(found)


def _collect(value: JSON, steps: list[str], found: set[str]) -> None:
    if type(value) is str or not steps:
        for name in _PLACEHOLDER.findall(value if type(value) is str else dumps(value)):
            path = [] if name.strip() == "event.data" else [name.strip()]
            if (path or steps) and name.strip() not in _RESERVED.keys() - {"event.data"}:
                found.add(".".join([*path, *steps]))
    elif type(value) is dict:
        for key, inner in value.items():
            if steps[0] in (key, "*"):
                _collect(inner, steps[1:], found)
    elif type(value) is list:
        index = steps[0] if steps[0].isascii() and steps[0].isdigit() else None
        for i, inner in enumerate(value):
            if index is None or str(i) == index:
                _collect(inner, steps if index is None and steps[0] != "*" else steps[1:], found)


class _Compiled(Generic[T]):
    """Compiled templates, those used last; bounded by the characters of their texts. Thread-safe."""

    def __init__(self, make: Callable[[str], T]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._kept: LRUCache[str, tuple[T, int]] = LRUCache(_CACHE_SIZE, getsizeof=lambda entry: entry[1])

    def get(self, text: str, *, keep: bool) -> T:
        """The compiled text; raises `PayloadError`."""
        with self._lock:
            found = self._kept.get(text)
        if found is None:
            found = self._make(text), max(len(text), _ENTRY)
            if keep and found[1] <= _CACHE_SIZE:
                with self._lock:
                    self._kept[text] = found
        return found[0]


def _text(value: JSON) -> str:
    """A value inside a longer string."""
    if type(value) is str:
        return value
    return "" if value is None else dumps(value)


def _compile_body(text: str) -> Node:
    quoted, shifts = _quote_bare(text)
    try:
        tree = loads(quoted)
    except PayloadError as e:
        if not isinstance(e.__context__, json.JSONDecodeError):
            raise
        position = e.__context__.pos
        position -= max((grown for end, grown in shifts if end <= position), default=0)
        raise PayloadError(f"not JSON: {e.__context__.msg} at {_place(text, position)}") from None
    try:
        return _compile(tree) or (lambda scope: tree)
    except RecursionError:
        raise PayloadError("nested too deeply") from None


def _quote_bare(text: str) -> tuple[str, list[tuple[int, int]]]:
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
        match = _PLACEHOLDER.match(text, opening, end)
        if match is None:
            raise PayloadError(f"{{{{ without its }}}} at {_place(text, opening)}")
        try:
            split_path(match[1].strip())
        except PayloadError as e:
            raise PayloadError(f"placeholder {e} at {_place(text, opening)}") from None
        start = match.end()


def _place(text: str, position: int) -> str:
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
    parts = _parts(text)
    if len(parts) == 3 and parts[0] == parts[2] == "" and callable(parts[1]):
        return _alone(parts[1])
    return lambda scope: "".join([part if isinstance(part, str) else _shown(part(scope), scope) for part in parts])


def _alone(node: Node) -> Node:
    """A string that is one placeholder: it takes the value with its JSON type."""

    def value(scope: Scope) -> JSON:
        found = node(scope)
        return found if scope.escape is None or type(found) is not str else scope.escape(found)

    return value


def _shown(value: JSON, scope: Scope) -> str:
    text = _text(value)
    return text if scope.escape is None else scope.escape(text)


def _parts(text: str) -> list[str | Node]:
    """Literals and placeholders in turn."""
    _check_placeholders(text, 0, len(text))
    pieces = _PLACEHOLDER.split(text)
    return [_lookup(piece.strip()) if i % 2 else piece for i, piece in enumerate(pieces)]


def _lookup(name: str) -> Node:
    if (reserved := _RESERVED.get(name)) is not None:
        return lambda scope: scope.size.take(reserved(scope))
    steps = split_path(name)

    def look(scope: Scope) -> JSON:
        value = dig(scope.data, steps, scope.strings)
        if value is not MISSING:
            return scope.size.take(value)
        if scope.strict:
            raise PayloadError(f"{{{{{name}}}}} is not in the event, and the rule is strict")
        return None

    return look


def _compile_endpoint(text: str) -> tuple[list[list[str | Node]], list[str | Node]]:
    """The path's segments, and what follows the path (from `?` or `#` on)."""
    _check_placeholders(text, 0, len(text))
    bare = _PLACEHOLDER.sub(lambda m: "x" * len(m[0]), text)  # a `/` or `?` in a name is no separator
    end = min((i for i in (bare.find("?"), bare.find("#")) if i >= 0), default=len(text))
    cuts = [-1, *(i for i in range(end) if bare[i] == "/"), end]
    segments = [_parts(text[a + 1 : b]) for a, b in pairwise(cuts)]
    return segments, _parts(text[end:])


def _fill(parts: list[str | Node], scope: Scope, routing_key: bool) -> str:
    def encoded(value: JSON) -> str:
        text = quote(_text(value), safe="")
        return text.replace(".", "%2E") if routing_key else text

    return "".join([p if isinstance(p, str) else encoded(p(scope)) for p in parts])


def _stays_inside(segment: str) -> bool:
    return segment != "" and all(part.partition(";")[0] not in (".", "..") for part in re.split(r"[/\\]", segment))


_bodies = _Compiled(_compile_body)
_endpoints = _Compiled(_compile_endpoint)
