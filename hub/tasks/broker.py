"""The Dramatiq brokers: RabbitMQ with confirms and bounded waits, or in-process. Delays are kept in the ledger."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from queue import Queue
from typing import Any

import dramatiq
import pika
import pika.exceptions
import structlog
from dramatiq.brokers.rabbitmq import DEAD_MESSAGE_TTL, RabbitmqBroker
from dramatiq.brokers.stub import StubBroker
from dramatiq.common import xq_name
from dramatiq.errors import ConnectionClosed

from hub.errors import UnavailableError
from hub.tasks.broker_url import LOST, connection_parameters
from hub.tasks.connections import OverdueError, PublisherPool
from hub.tasks.dramatiq_internals import RabbitmqConsumer, StubConsumer, queue_arguments
from hub.tasks.groups import GroupConsumer

log = structlog.get_logger("hub.tasks.broker")

DISPATCH, CONSUME, TICK = "dispatch", "consume", "tick"
_TICK_PATIENCE = 45.0  # seconds
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 5.0  # seconds before a failed connect is reported


def queue_names(prefix: str) -> dict[str, str]:
    """The queue names of a deployment by kind."""
    return {kind: f"{prefix}.{kind}" for kind in (DISPATCH, CONSUME, TICK)}


class HubBroker(RabbitmqBroker):
    """Dramatiq's broker with confirms, bounded waits, and messages that carry groups of tasks.

    Args:
        url: `amqp://` or `amqps://`; its query parameters override the hub's time limits.
        report_rejected: called with the kind of queue and the reason for each message that the hub did not publish.
        limits: connection time limits that override the defaults, as pika names them.
    """

    def __init__(
        self, url: str, *, report_rejected: Callable[[str, str], None] = lambda *_: None, **limits: object
    ) -> None:
        super().__init__(confirm_delivery=True, middleware=[])
        self.parameters = connection_parameters(url, **limits)
        self.report_rejected = report_rejected
        self.pool = PublisherPool(self.parameters)
        self._failures: dict[str, int] = {}

    @property
    def consumer_class(self) -> type[RabbitmqConsumer]:
        return GroupConsumer

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> Any:
        """Return a consumer of a queue with its own connection; a missing queue is declared.

        Dramatiq calls it again after a failure; the pause before it raises grows up to `_LONGEST_PAUSE`.

        Raises:
            ConnectionClosed: the broker is unavailable or refuses.
        """
        try:
            self.declare_queue(queue_name, ensure=True)
            consumer = self.consumer_class(self, queue_name, prefetch, timeout)
        except (ConnectionClosed, OverdueError, *LOST) as e:
            failures = self._failures[queue_name] = self._failures.get(queue_name, 0) + 1
            time.sleep(min(_FIRST_PAUSE * 2.0 ** min(failures, 10), _LONGEST_PAUSE))
            raise ConnectionClosed(_reason(e)) from None
        self._failures.pop(queue_name, None)
        return consumer

    def declare_queue(self, queue_name: str, *, ensure: bool = False) -> None:
        """Declare a queue, without a delay queue: delays are kept in the ledger."""
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues.add(queue_name)
            self.queues_pending.add(queue_name)
            self.emit_after("declare_queue", queue_name)
        if ensure and queue_name in self.queues_pending:
            with self.pool.channel() as channel:
                self._declare(channel, queue_name)

    def _declare(self, channel: Any, queue_name: str) -> None:
        channel.queue_declare(
            queue=queue_name,
            durable=True,
            arguments=queue_arguments(self, queue_name),
        )
        channel.queue_declare(queue=xq_name(queue_name), durable=True, arguments={"x-message-ttl": DEAD_MESSAGE_TTL})
        self.queues_pending.discard(queue_name)

    def enqueue(self, message: dramatiq.Message[Any], *, delay: int | None = None) -> dramatiq.Message[Any]:
        """Publish; the interface that Dramatiq and periodiq call. Raises as `publish`."""
        if delay is not None:
            raise ValueError("the broker does not delay messages; the ledger does")
        self.emit_before("enqueue", message, delay)
        self.publish(message)
        self.emit_after("enqueue", message, delay)
        return message

    def publish(self, message: dramatiq.Message[Any]) -> None:
        """Publish and wait for the confirm; tries once more on a new connection.

        Raises:
            UnavailableError: the broker is unavailable or blocks publishers; it may have accepted the message.
        """
        self.declare_queue(message.queue_name)
        for last in (False, True):
            try:
                with self.pool.channel() as channel:
                    if message.queue_name in self.queues_pending:
                        self._declare(channel, message.queue_name)
                    channel.basic_publish(
                        exchange="",
                        routing_key=message.queue_name,
                        body=message.encode(),
                        properties=pika.BasicProperties(delivery_mode=2),
                        mandatory=True,
                    )
                return
            except pika.exceptions.UnroutableError:
                self.queues_pending.add(message.queue_name)  # the queue was deleted: declare it again
                if last:
                    raise UnavailableError("the broker has no queue for the hub's tasks") from None
            except (OverdueError, *LOST) as e:
                self.pool.drop_idle()
                if last or isinstance(e, OverdueError | pika.exceptions.ConnectionBlockedTimeout):
                    raise UnavailableError(f"the broker does not respond: {_reason(e)}") from None

    def ready(self, queue_name: str) -> int | None:
        """The number of messages ready in a queue; None: the queue does not exist.

        Raises:
            UnavailableError: the broker is unavailable.
        """
        found = self._inspect(queue_name)
        return found and found[0]

    def consumers(self, queue_name: str) -> int | None:
        """The number of consumers of a queue; None: the queue does not exist.

        Raises:
            UnavailableError: the broker is away.
        """
        found = self._inspect(queue_name)
        return found and found[1]

    def _inspect(self, queue_name: str) -> tuple[int, int] | None:
        for last in (False, True):
            try:
                with self.pool.channel() as channel:
                    queue = channel.queue_declare(queue=queue_name, passive=True).method
                    return int(queue.message_count), int(queue.consumer_count)
            except pika.exceptions.ChannelClosedByBroker as e:
                if e.reply_code == 404:
                    return None
                raise UnavailableError(f"the broker refuses: {e.reply_text}") from None
            except (OverdueError, *LOST) as e:
                self.pool.drop_idle()
                if last or isinstance(e, OverdueError):
                    raise UnavailableError(f"the broker does not respond: {_reason(e)}") from None
        return None

    def close(self) -> None:
        """Close the publisher connections; consumers close their own."""
        self.pool.close()
        super().close()  # the connections of Dramatiq's `flush` and `join`


class SchedulerBroker(HubBroker):
    """The scheduler's broker: retries to publish a tick for most of its minute.

    Each failure is one log line; no error reaches periodiq.
    """

    def enqueue(self, message: dramatiq.Message[Any], *, delay: int | None = None) -> dramatiq.Message[Any]:
        """Publish, with growing pauses while the broker is unavailable. Raises nothing: the next tick follows."""
        deadline = time.monotonic() + _TICK_PATIENCE
        pause = _FIRST_PAUSE
        while True:
            try:
                return super().enqueue(message, delay=delay)
            except UnavailableError as e:
                pause = min(pause * 2, _LONGEST_PAUSE * 2)
                again = time.monotonic() + pause < deadline
                log.warning("tick not sent", error=str(e), next_try_in=pause if again else None)
                if not again:
                    return message
                time.sleep(pause)


def _reason(e: Exception) -> str:
    """The text of the hub's own error, else the class name: pika's texts may contain the user of the URL."""
    return str(e) if isinstance(e, OverdueError) else type(e).__name__


class InProcessBroker(StubBroker):
    """Dramatiq's in-process broker; lost messages are recovered from the ledger."""

    def __init__(self) -> None:
        super().__init__(middleware=[])

    def declare_queue(self, queue_name: str) -> None:
        """Declare a queue, without a delay queue: delays are kept in the ledger."""
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues[queue_name] = Queue()
            self.emit_after("declare_queue", queue_name)

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 100) -> Any:
        """A consumer of a queue."""
        return InProcessConsumer(self.queues[queue_name], prefetch, timeout)

    def publish(self, message: dramatiq.Message[Any]) -> None:
        """Enqueue."""
        self.enqueue(message)

    def ready(self, queue_name: str) -> int | None:
        """The number of messages ready in a queue; None: the queue does not exist."""
        queue = self.queues.get(queue_name)
        return None if queue is None else int(queue.qsize())


class InProcessConsumer(StubConsumer):
    """Drops failed messages: their tasks are in the ledger."""

    def __init__(self, queue: Any, prefetch: int, timeout: int) -> None:
        super().__init__(queue, deque(maxlen=0), prefetch, timeout)  # type: ignore[no-untyped-call]


Broker = HubBroker | InProcessBroker
