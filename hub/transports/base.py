"""The transport protocol: a transport sends a request once, and returns a response or raises an error of `hub.errors`.

A transport does not return failures, does not retry, does not log bodies, and does not use another transport.
It keeps connections open between calls, and many threads call it at once.
"""

from __future__ import annotations

import time
from typing import Protocol

from hub.models import Request, Response, Service

CONFIG_RECHECK = 10.0  # seconds before another attempt for a service whose definition is unusable on this machine


class Deadline:
    """The point in time at which a try must end. `at` is in seconds of `time.monotonic()`."""

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
        """Send the request; returns the response if it is a success.

        Raises:
            TransportError: one of its subclasses; its text contains no secrets. `.sent` is False when the service
                itself was not contacted (for example when a token endpoint failed).
            InvalidPayloadError: no request can be built from this payload, endpoint or definition.
            NotSentError: an internal error before the first byte was sent. Counts neither as an attempt nor against
                the circuit.
        """

    def check(self, service: Service, deadline: Deadline) -> str:
        """Contact the service without side effects; returns a short sentence about the result.

        Raises:
            TransportError: the service cannot be reached or refuses the credentials.
        """

    def close(self) -> None:
        """Close every connection."""
