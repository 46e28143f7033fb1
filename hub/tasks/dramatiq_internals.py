"""Names of Dramatiq and pika that are not public. No other module of `hub.tasks` uses one.

tests/integration/test_internals.py fails when an upgrade moves them.
"""

from __future__ import annotations

import socket
from typing import Any

from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.brokers.rabbitmq import _RabbitmqConsumer as RabbitmqConsumer
from dramatiq.brokers.rabbitmq import _RabbitmqMessage as RabbitmqMessage
from dramatiq.brokers.stub import _StubConsumer as StubConsumer

__all__ = [
    "RabbitmqConsumer",
    "RabbitmqMessage",
    "StubConsumer",
    "delivery_tag",
    "queue_arguments",
    "release_resources",
    "socket_of",
]


def delivery_tag(message: Any) -> int:
    """The delivery tag of a message that a `RabbitmqConsumer` returned."""
    return int(message._tag)


def queue_arguments(broker: RabbitmqBroker, queue_name: str) -> dict[str, Any]:
    """The arguments with which Dramatiq declares a queue."""
    arguments: dict[str, Any] = broker._build_queue_arguments(queue_name)
    return arguments


def socket_of(connection: Any) -> socket.socket | None:
    """The socket of a pika `BlockingConnection`; None once it is closed."""
    transport = connection._impl._transport
    return None if transport is None else getattr(transport, "_sock", None)


def release_resources(connection: Any) -> None:
    """Close the selector and the pipes of a pika `BlockingConnection`, also where its close failed."""
    connection._cleanup()
