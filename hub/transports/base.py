"""The transport protocol. A transport sends once, and returns a response or raises a mapped error.

A transport never returns a failure, never retries, never logs a body, and knows no other transport.
It keeps connections open between calls and is called from many threads at once.
"""

from __future__ import annotations

import time
from typing import Protocol

from hub.models import Request, Response, Service

CONFIG_RECHECK = 10.0  # seconds until a service whose definition cannot be used on this machine is tried again


class Deadline:
    """A point in time by which a try must have ended. `clock` is monotonic seconds."""

    __slots__ = ("at",)

    def __init__(self, seconds: float) -> None:
        self.at = time.monotonic() + seconds

    @property
    def remaining(self) -> float:
        """Seconds left, never below 0."""
        return max(0.0, self.at - time.monotonic())


class Transport(Protocol):
    """Sends one request to one service, once."""

    def send(self, service: Service, request: Request, deadline: Deadline) -> Response:
        """Send; return what the service answered if that is a success.

        Raises:
            TransportError: one of its subclasses, without secrets in the text; `.sent` False when the service
                itself was not contacted (a token endpoint failed).
            InvalidPayloadError: the request cannot be made of this payload, endpoint or definition.
            NotSentError: an internal error before the first byte left; counts against nothing.
        """

    def check(self, service: Service, deadline: Deadline) -> str:
        """Reach the service without side effects; say in a short sentence what was seen.

        Raises:
            TransportError: it cannot be reached or refuses the credentials.
        """

    def close(self) -> None:
        """Close every connection."""


def bounded(text: str | None, limit: int) -> str | None:
    """At most `limit` characters, with a note of how many are missing."""
    if text is None or len(text) <= limit:
        return text
    return f"{text[:limit]}… [{len(text) - limit} more characters]"
