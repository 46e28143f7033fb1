"""Parses a message: its content, the task it responds to, and the mark that identifies a redelivery.

Nothing is refused: a message that is not JSON or is too large becomes a row with the reason.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from hub.codec import loads
from hub.domain.paths import mask_body
from hub.domain.text import bounded, storable
from hub.errors import PayloadError
from hub.models import JSON, Service
from hub.settings import Settings
from hub.store.responses import MARK, Inbound
from hub.transports.amqp.response_queue import Message

RESPONSE_RECEIVED = "hub.response_received"  # the event that a response becomes


@dataclass(slots=True)
class Parsed:
    """A message to store. `correlation`: the task id it names; `value`: its JSON."""

    row: Inbound
    correlation: int | None
    value: JSON = None


def parse(message: Message, service: Service, settings: Settings) -> Parsed:
    """Build the row of a message: its JSON; or its bytes and why they are not JSON; or the first bytes if too large."""
    correlation, properties = _properties(message, service.response_queue)
    row = Inbound(properties, event=RESPONSE_RECEIVED)
    parsed = Parsed(row, correlation)
    body = message.body
    if message.sha256 is not None:
        properties["size"], properties["sha256"] = message.size, message.sha256
        row.success, row.outcome, row.raw = False, "malformed", body
        row.body = _preview(body, settings)
        row.error = (
            f"{message.size} bytes are more than the limit of {settings.message_limit}"
            f" (HUB_MESSAGE_LIMIT): the first {len(body)} bytes are kept"
        )
        return parsed
    try:
        parsed.value = loads(body)
        row.body = body.decode().removeprefix("\ufeff")
        if mask := service.options.get("mask"):
            row.body = mask_body(row.body, mask)
    except PayloadError as e:
        row.success, row.outcome, row.error, row.raw = False, "malformed", str(e), body
        row.body = _preview(body, settings)
    return parsed


def _preview(body: bytes, settings: Settings) -> str | None:
    """The beginning of bytes that are no JSON, as text."""
    return bounded(storable(body[: 4 * settings.body_limit].decode("utf-8", "replace")), settings.body_limit)


def mark(message: Message) -> bytes | None:
    """The mark that identifies a redelivered message; None when it has no `message_id`."""
    message_id = message.properties.message_id
    if not message_id:
        return None
    body = message.body if message.sha256 is None else message.sha256.encode()
    identity = b"%s\0%s" % (str(message_id).encode("utf-8", "replace"), body)
    return hashlib.blake2b(identity, digest_size=MARK).digest()


def _properties(message: Message, queue: str | None) -> tuple[int | None, dict[str, JSON]]:
    """(task id of the correlation, if any; the properties of a message)."""
    found: dict[str, JSON] = {
        name: value if type(value) is int else _plain(value)
        for name, value in vars(message.properties).items()
        if value is not None
    }
    if message.redelivered:
        found["redelivered"] = True
    if message.exchange or message.routing_key != queue:  # otherwise it was sent to the queue directly
        found["exchange"], found["routing_key"] = _plain(message.exchange), _plain(message.routing_key)
    correlation = found.get("correlation_id")
    if isinstance(correlation, str) and correlation.isascii() and correlation.isdigit() and len(correlation) < 19:
        return int(correlation), found
    return None, found


def _plain(value: Any) -> JSON:
    """An AMQP value as JSON that PostgreSQL stores."""
    if isinstance(value, str):
        return value if value.isascii() and "\0" not in value else storable(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, bytes):
        return storable(value.decode("utf-8", "backslashreplace"))
    if isinstance(value, dict):
        return {str(_plain(k)): _plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
