"""From a request to events: what every way into `POST /api/v1/events` has in common."""

from __future__ import annotations

from hub.domain.events import parse_event
from hub.models import JSON, Event
from hub.store.tokens import Token
from hub.web.problems import Problem

_KEY_LENGTH = 200


def to_event(value: JSON, *, limit: int, key: str | None, source: str) -> Event:
    """An event of parsed JSON; a Moodle event's `token` is not kept. Raises `PayloadError`."""
    if isinstance(value, dict) and "token" in value and "eventname" in value:
        value = {k: v for k, v in value.items() if k != "token"}
    return parse_event(value, limit=limit, key=key, source=source)


def is_key(key: str) -> bool:
    """Whether a text may be an `Idempotency-Key`."""
    return 1 <= len(key) <= _KEY_LENGTH and key.isprintable()


def checked_key(key: str | None) -> str | None:
    """The value of `Idempotency-Key`; raises `Problem` 422."""
    if key is not None and not is_key(key):
        raise Problem(422, f"must have 1 to {_KEY_LENGTH} printable characters", field="Idempotency-Key")
    return key


def source_of(token: Token) -> str:
    """The namespace of a sender's ids: a token's ids never collide with another token's."""
    return f"token:{token.id}"
