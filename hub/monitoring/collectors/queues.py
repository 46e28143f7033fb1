"""Ready messages and consumers of the broker's queues."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import pika
import pika.exceptions
from prometheus_client import Metric as Family

from hub.errors import UnavailableError
from hub.monitoring.collectors.base import family
from hub.monitoring.metrics import Metric
from hub.tasks.broker_url import connection_parameters
from hub.transports.amqp.pika_internals import open_blocking

DEPTH = Metric("hub_queue_depth", "gauge", "Ready messages of a broker queue.", ("queue",))
CONSUMERS = Metric("hub_queue_consumers", "gauge", "Consumers of a broker queue.", ("queue",))
QUEUE_METRICS = (DEPTH, CONSUMERS)
_TIMEOUT = 2.0  # seconds
_MISSING_QUEUE_PAUSE = 300.0  # seconds


class RabbitSource:
    """Depth and consumers of the hub's queues by passive declare: current values, no plugin needed.

    Args:
        queues: names, without the suffixes `.XQ` (dead) and `.DQ` (delayed), which are added here. The hub declares no
            `.DQ`; a missing one is looked up every 5 minutes only, since RabbitMQ logs an error each time.
        clock: monotonic seconds.
    """

    name = "rabbitmq"

    def __init__(self, url: str, queues: Iterable[str], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._queues = [queue + suffix for queue in queues for suffix in ("", ".DQ", ".XQ")]
        self._clock = clock
        self._read_again_at: dict[str, float] = {}
        self._parameters = connection_parameters(
            url, socket_timeout=_TIMEOUT, stack_timeout=_TIMEOUT, blocked_connection_timeout=_TIMEOUT, heartbeat=60
        )
        for p in self._parameters:
            p.client_properties = {"connection_name": "hub exporter"}
        self._connection: pika.BlockingConnection | None = None

    def collect(self) -> list[Family]:
        """Read depth and consumers of each queue. A missing queue is left out.

        Raises:
            UnavailableError: the broker does not respond.
        """
        found = self.read()
        return [
            family(DEPTH, (((queue,), depth) for queue, depth, _ in found)),
            family(CONSUMERS, (((queue,), consumers) for queue, _, consumers in found)),
        ]

    def read(self) -> list[tuple[str, float, float]]:
        """Return (queue, ready messages, consumers) of each existing queue.

        Raises:
            UnavailableError: the broker does not respond.
        """
        for last in (False, True):
            try:
                return self._read()
            except (pika.exceptions.AMQPError, OSError) as e:
                was_open = self._connection is not None
                self.close()
                if last or not was_open:  # an idle connection may have been closed: retry once with a new one
                    raise UnavailableError(f"the broker does not respond: {type(e).__name__}") from None
        raise AssertionError("unreachable")

    def _read(self) -> list[tuple[str, float, float]]:
        if self._connection is None:
            self._connection = open_blocking(self._parameters, keep=0)  # it receives no messages
        channel = self._connection.channel()
        found = []
        for queue in self._queues:
            if self._read_again_at.get(queue, 0.0) > self._clock():
                continue
            try:
                ok = channel.queue_declare(queue, passive=True).method
            except pika.exceptions.ChannelClosedByBroker as e:
                if e.reply_code != 404:
                    raise
                channel = self._connection.channel()
                if queue.endswith(".DQ"):
                    self._read_again_at[queue] = self._clock() + _MISSING_QUEUE_PAUSE
                continue
            found.append((queue, float(ok.message_count), float(ok.consumer_count)))
        channel.close()
        return found

    def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except (pika.exceptions.AMQPError, OSError):
                pass  # closed already


class InProcessSource:
    """Ready messages of the queues of Dramatiq's in-process broker.

    Args:
        ready: returns the number of ready messages of a queue, None when the queue does not exist.
    """

    name = "in_process"

    def __init__(self, ready: Callable[[str], int | None], queues: Iterable[str]) -> None:
        self._ready = ready
        self._queues = list(queues)

    def collect(self) -> list[Family]:
        """Read the depth of each queue."""
        depths = ((queue, self._ready(queue)) for queue in self._queues)
        return [family(DEPTH, (((queue,), float(n)) for queue, n in depths if n is not None))]

    def close(self) -> None:
        """Do nothing: no connection is open."""
