"""Access to names of Dramatiq and pika that are not public. No other module of `hub.tasks` uses one.

tests/integration/test_internals.py fails when an upgrade moves them.
"""

from __future__ import annotations

import socket
from typing import Any

import pika.exceptions
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.brokers.rabbitmq import _RabbitmqConsumer as RabbitmqConsumer
from dramatiq.brokers.rabbitmq import _RabbitmqMessage as RabbitmqMessage
from dramatiq.brokers.stub import _StubConsumer as StubConsumer
from dramatiq.errors import ConnectionClosed
from dramatiq.logging import get_logger

from hub.transports.amqp.pika_internals import open_blocking

__all__ = [
    "BoundedConsumer",
    "RabbitmqConsumer",
    "RabbitmqMessage",
    "StubConsumer",
    "delivery_tag",
    "queue_arguments",
    "release_resources",
    "socket_of",
]


class BoundedConsumer(RabbitmqConsumer):
    """Dramatiq's consumer on a connection that keeps only the first bytes of a message over `keep`.

    Dramatiq's constructor opens its connection itself, so it is replaced here; its methods use the same attributes.

    Args:
        timeout: milliseconds after which the iterator yields (None, None, None).
        keep: bytes of a message to keep; a longer one arrives as `CutBody`.
    """

    def __init__(self, broker: Any, queue_name: str, prefetch: int, timeout: int, *, keep: int) -> None:
        self.broker = broker
        self.queue_name = queue_name
        self.logger = get_logger(__name__, type(self))
        self.known_tags: set[int] = set()
        try:
            self.connection = open_blocking(broker.parameters, keep=keep)
            self.channel = self.connection.channel()
            self.channel.basic_qos(prefetch_count=prefetch)
            self.iterator = self.channel.consume(queue_name, inactivity_timeout=timeout / 1000)
        except (pika.exceptions.AMQPConnectionError, pika.exceptions.AMQPChannelError) as e:
            raise ConnectionClosed(e) from None


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
