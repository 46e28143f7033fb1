"""An AMQP transport, and a channel that looks at the broker."""

from __future__ import annotations

from collections.abc import Iterator

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel as Channel

from hub.settings import Settings
from hub.transports.amqp.transport import AmqpTransport


@pytest.fixture
def transport() -> Iterator[AmqpTransport]:
    made = AmqpTransport(Settings())
    yield made
    made.close()


@pytest.fixture
def channel(broker_url: str) -> Iterator[Channel]:
    """A second pair of eyes on the broker."""
    connection = pika.BlockingConnection(pika.URLParameters(broker_url))
    yield connection.channel()
    connection.close()


@pytest.fixture
def queue(channel: Channel, queue_prefix: str) -> Iterator[str]:
    yield f"{queue_prefix}.q"
    for name in (f"{queue_prefix}.q", f"{queue_prefix}.dead"):
        channel.connection.channel().queue_delete(name)
