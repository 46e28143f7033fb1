"""Payload and endpoint templates, filled from one event. Pure; compiled once per text.

A payload template is parsed as JSON first and filled in the tree, so no value can break the JSON: a string
that is one placeholder takes the value's JSON type, inside a longer string (or a key) the value is formatted
in. A placeholder outside of quotes counts as quoted. In an endpoint, values are percent-encoded and
cannot leave their path segment.

Placeholders: dotted paths into the event's data (list indexes too), `event.name`, `event.id`, `event.data`
(all of it), `task.id`, `now` (ISO 8601, UTC).
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Final, Generic, TypeVar
from urllib.parse import unquote

from cachetools import LRUCache

from hub.codec import dumps, loads
from hub.domain.paths import mask_body
from hub.domain.template_compiler import (
    PLACEHOLDER,
    RESERVED,
    Scope,
    compile_body,
    compile_endpoint,
    fill,
    parts,
    place,
    quote_bare,
    shown,
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
    "render_text",
]


MAX_TEMPLATE: Final = 262_144
"""Most characters of a payload template that is saved or previewed."""
MAX_ENDPOINT: Final = 8192
"""Most characters of a rendered endpoint."""
_CACHE_SIZE = 2_000_000  # characters of the templates kept compiled, of each kind
_CACHED_TEXT = 16_384  # characters of a text that may be the key of a cache
_ENTRY = 500  # characters that an entry counts at least

T = TypeVar("T")


def check_template(text: str | None) -> None:
    """Raises `PayloadError` with line and column if the text is no payload template; blank is fine."""
    if text and text.strip():
        if len(text) > MAX_TEMPLATE:
            raise PayloadError(f"{len(text)} characters are more than the limit of {MAX_TEMPLATE}")
        compile_body(text)
        _no_filters(text)


def check_endpoint(text: str) -> None:
    """Raises `PayloadError` when a placeholder of an endpoint is malformed."""
    compile_endpoint(text)
    _no_filters(text)


def _no_filters(text: str) -> None:
    for match in PLACEHOLDER.finditer(text):
        if "|" in match[1]:
            raise PayloadError(
                f"placeholder {match[0][:60]!r} at {place(text, match.start())}: filters are not supported;"
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
        path = [fill(parts, scope, routing_key) for parts in segments]
        for parts, filled in zip(segments, path, strict=True):
            if len(parts) > 1 and not _stays_inside(unquote(filled)):
                raise PayloadError(f"the values of the event make a path segment of {text!r} unsafe")
        return scope.size.check("/".join(path) + fill(query, scope, routing_key))
    except (PayloadError, InvalidPayloadError) as e:
        raise InvalidPayloadError(f"endpoint: {e}") from None
    except UnicodeEncodeError:
        raise InvalidPayloadError("endpoint: half a surrogate pair cannot be sent") from None


def render_text(text: str, scope: Scope) -> str | None:
    """A template as plain text; None when it has placeholders, and all their values are missing, null or empty.

    Raises:
        InvalidPayloadError: the values exceed `scope.limit`.
    """
    try:
        pieces = _texts.get(text, keep=scope.cached)
        values = [None if isinstance(piece, str) else shown(piece(scope), scope) for piece in pieces]
    except PayloadError as e:
        raise InvalidPayloadError(f"ordering key: {e}") from None
    if len(pieces) > 1 and not any(values):
        return None
    return "".join(
        piece if isinstance(piece, str) else value or "" for piece, value in zip(pieces, values, strict=True)
    )


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
        tree = loads(quote_bare(text)[0])
    except (PayloadError, RecursionError):
        return frozenset()
    found: set[str] = set()
    for path in paths:
        _collect(tree, path.split("."), found)
    return frozenset(found)


def _collect(value: JSON, steps: list[str], found: set[str]) -> None:
    if type(value) is str or not steps:
        for name in PLACEHOLDER.findall(value if type(value) is str else dumps(value)):
            path = [] if name.strip() == "event.data" else [name.strip()]
            if (path or steps) and name.strip() not in RESERVED.keys() - {"event.data"}:
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


def _stays_inside(segment: str) -> bool:
    return segment != "" and all(part.partition(";")[0] not in (".", "..") for part in re.split(r"[/\\]", segment))


_bodies = _Compiled(compile_body)
_endpoints = _Compiled(compile_endpoint)
_texts = _Compiled(parts)
