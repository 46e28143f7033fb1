"""Parse `HUB_BROKER_URL` to pika's connection parameters with time limits."""

from __future__ import annotations

import socket
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pika
import pika.exceptions

from hub.errors import ConfigError

# Defaults in seconds; a parameter of the same name in the URL overrides one.
_LIMITS = {
    "heartbeat": 15,
    "blocked_connection_timeout": 5.0,
    "socket_timeout": 5.0,
    "stack_timeout": 10.0,
    "connection_attempts": 1,
}
# A peer that is lost without a reset is detected in seconds, not in hours. The last value is in milliseconds.
_TCP = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 3, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 10_000}

LOST = (pika.exceptions.AMQPError, OSError)
"""The errors that pika raises when a broker is unavailable or ends a connection."""


def connection_parameters(url: str, **defaults: object) -> list[Any]:
    """The connection parameters of each broker of a URL; several are separated by `;`.

    Args:
        defaults: limits that replace those of this module. Query parameters of the URL override both.

    Raises:
        ConfigError: not an AMQP URL. The message does not repeat it.
    """
    try:
        return [_parameters(part, defaults) for part in url.split(";")]
    except Exception:
        raise ConfigError(
            "not an AMQP URL; expected amqp://user:password@host:5672/vhost", field="HUB_BROKER_URL"
        ) from None


def _parameters(url: str, defaults: dict[str, object]) -> Any:
    made = pika.URLParameters(url)
    given = parse_qs(urlsplit(url).query)
    for name, value in (_LIMITS | defaults).items():
        if name not in given:
            setattr(made, name, value)
    made.tcp_options = {n: v for n, v in _TCP.items() if hasattr(socket, n)} | (made.tcp_options or {})
    return made
