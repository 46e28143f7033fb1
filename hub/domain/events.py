"""Parses and checks events, and computes the keys on which they are deduplicated. Pure."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import replace
from typing import Any

from hub.codec import NESTED, canonical, deeper_than, dumps
from hub.domain import php_serialized
from hub.errors import PayloadError, TooLargeError
from hub.models import JSON, Event

CONTENT_LIFETIME = 60.0  # seconds in which equal content counts as the same event
ID_LIFETIME = 86400.0  # seconds in which a sender's id is accepted once


def parse_event(value: JSON, *, limit: int, key: str | None = None, source: str = "") -> Event:
    """Parse an event: `{"name", "data", "id"}` or a bare Moodle object.

    Args:
        value: parsed JSON.
        limit: most bytes of the event as JSON.
        key: the sender's own id, where it is not in the body (Idempotency-Key).
        source: who sends it, see `Event`.

    Raises:
        PayloadError: says which field is wrong.
    """
    if not isinstance(value, dict):
        raise PayloadError(f"an event is a JSON object, not {_kind(value)}")
    name: Any
    if "name" in value or "data" in value:
        if extra := sorted(set(value) - {"name", "data", "id"}):
            raise PayloadError(f"{extra[0]}: unknown field; an event has name, data and id")
        name, data = value.get("name"), value.get("data", {})
        if isinstance(data, dict) and "eventname" in data:
            data = _moodle(data)
        own = value.get("id")
        if own is not None and (isinstance(own, bool) or not isinstance(own, str | int)):
            raise PayloadError(f"id: must be a text, not {_kind(own)}")
        if own is not None:
            key = str(own)
        field = "name"
    elif "eventname" in value:
        name, data, field = value["eventname"], _moodle(value), "eventname"
    else:
        raise PayloadError('name: missing; send {"name": ..., "data": {...}} or a Moodle event with "eventname"')
    return check_event(Event(name, data, key, source), limit=limit, field=field)


def _moodle(data: dict[str, JSON]) -> dict[str, JSON]:
    """Moodle's event data with a PHP-serialized `other` decoded; one that cannot be decoded is kept as it is."""
    other = data.get("other")
    if isinstance(other, str) and php_serialized.looks_serialized(other):
        with suppress(PayloadError):
            return data | {"other": php_serialized.loads(other)}
    return data


def check_event(event: Event, *, limit: int, field: str = "name") -> Event:
    """The same event with its data's JSON text. An event that has a text was checked before.

    Raises:
        PayloadError: names the field that is wrong.
    """
    return event if event.text is not None else replace(event, text=_checked(event, limit, field))


def _checked(event: Event, limit: int, field: str) -> str:
    """The JSON text of a valid event's data."""
    name, key = event.name, event.key
    if not isinstance(name, str):
        raise PayloadError(f"{field}: must be a text, not {_kind(name)}")
    if not 1 <= len(name) <= 255 or any(c < " " or c == "\x7f" for c in name):
        raise PayloadError(f"{field}: must have 1 to 255 characters and no control characters")
    if key is not None and (not isinstance(key, str) or not 1 <= len(key) <= 255 or not key.isprintable()):
        raise PayloadError("id: must have 1 to 255 printable characters")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise PayloadError(f"{field}: holds half a surrogate pair") from None
    try:
        text = dumps(event.data)
        size = len(text) if text.isascii() else len(text.encode())
    except UnicodeEncodeError:
        raise PayloadError("data: holds half a surrogate pair (\\ud800-\\udfff)") from None
    if size > limit:
        raise TooLargeError(f"data: {size} bytes are more than the limit of {limit} (HUB_EVENT_LIMIT)")
    if text.count("[") + text.count("{") > NESTED and deeper_than(event.data, NESTED):
        raise PayloadError(f"data: nested more than {NESTED} deep")
    return text


def _kind(value: object) -> str:
    return {type(None): "null", bool: "a boolean", dict: "an object", list: "an array", str: "a text"}.get(
        type(value), "a number"
    )


def deduplication_key(event: Event, *, matched: bool) -> tuple[bytes, float]:
    """The deduplication key of an event, and its lifetime in seconds.

    An id counts within its source and event name. Content counts whatever its source: equal content makes equal
    tasks, so no sender can suppress another's event by it. It is serialized with sorted keys, so the order of keys
    does not matter. Content that matches no rule has a key of its own: the same event is accepted at once after a
    rule for it was added.
    """
    if event.key is not None:
        own = "\0".join(("source", event.source, event.name, event.key))
        return hashlib.sha256(own.encode("utf-8", "surrogatepass")).digest(), ID_LIFETIME
    kind = b"content\0" if matched else b"unmatched\0"
    content = kind + event.name.encode() + b"\0" + canonical(event.data)
    return hashlib.sha256(content).digest(), CONTENT_LIFETIME


def old_deduplication_key(key: str) -> bytes:
    """The key of an id as releases before 0.2 wrote it, one namespace for all: still a duplicate until it expires."""
    return hashlib.sha256(b"id\0" + key.encode("utf-8", "surrogatepass")).digest()
