"""The Dramatiq broker: RabbitMQ with confirms and bounded waits, or in-process. Neither delays: the ledger does."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Queue
from typing import Any

import dramatiq
import pika
import pika.exceptions
import structlog
from dramatiq.brokers.rabbitmq import RabbitmqBroker, _RabbitmqConsumer
from dramatiq.brokers.stub import StubBroker, _StubConsumer
from dramatiq.errors import ConnectionClosed

from hub.errors import ConfigError, UnavailableError
from hub.tasks.groups import GroupConsumer

log = structlog.get_logger("hub.broker")

DISPATCH, CONSUME, TICK = "dispatch", "consume", "tick"
_BLOCKED_TIMEOUT = 5.0


def queue_names(prefix: str) -> dict[str, str]:
    """The queues of a deployment by what they carry."""
    return {kind: f"{prefix}.{kind}" for kind in (DISPATCH, CONSUME, TICK)}


class HubBroker(RabbitmqBroker):
    """Dramatiq's broker with confirms, bounded waits, and messages that carry groups of tasks."""

    def __init__(self, url: str) -> None:
        try:
            super().__init__(url=url, confirm_delivery=True, middleware=[])
        except Exception:
            raise ConfigError(
                "not an AMQP URL; expected amqp://user:password@host:5672/vhost", field="HUB_BROKER_URL"
            ) from None
        p: Any = self.parameters
        p.blocked_connection_timeout = _BLOCKED_TIMEOUT
        p.socket_timeout = p.stack_timeout = 10
        p.connection_attempts = 1
        p.heartbeat = 30
        self._idle: list[tuple[Any, Any]] = []  # connections that no thread uses just now, with their channels

    @property
    def consumer_class(self) -> type[_RabbitmqConsumer]:
        return GroupConsumer

    @contextmanager
    def _borrowed(self) -> Iterator[None]:
        """A connection for this thread, for now: kept for whoever is next, closed when anything goes wrong.

        Dramatiq's own live as long as the process, one for every thread that ever sent something.
        """
        if getattr(self.state, "connection", None) is not None:  # borrowed already
            yield
            return
        try:
            self.state.connection, self.state.channel = self._idle.pop()
        except IndexError:
            pass  # the first use makes one
        try:
            yield
            if (channel := getattr(self.state, "channel", None)) is not None and channel.is_open:
                self._idle.append((self.state.connection, channel))
                del self.state.connection, self.state.channel
        finally:
            self._drop_connection()

    def _drop_idle(self) -> None:
        """Where one connection broke, the others are likely to be broken as well."""
        while self._idle:
            try:
                self.state.connection, self.state.channel = self._idle.pop()
            except IndexError:
                return
            self._drop_connection()

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> Any:
        """A consumer of a queue, on a connection of its own; the queue is made if it is not there."""
        self.declare_queue(queue_name, ensure=True)
        return self.consumer_class(self, queue_name, prefetch, timeout)

    def declare_queue(self, queue_name: str, *, ensure: bool = False) -> None:
        """Declare a queue. It gets no delay queue: the ledger delays."""
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues.add(queue_name)
            self.queues_pending.add(queue_name)
            self.emit_after("declare_queue", queue_name)
        if ensure:
            with self._borrowed():
                self._ensure_queue(queue_name)  # type: ignore[no-untyped-call]

    def _declare_dq_queue(self, queue_name: str) -> None:
        """None."""

    def enqueue(self, message: dramatiq.Message[Any], *, delay: int | None = None) -> dramatiq.Message[Any]:
        """What Dramatiq and periodiq call; raises as `publish` does."""
        if delay is not None:
            raise ValueError("the ledger delays, not the broker")
        self.emit_before("enqueue", message, delay)
        self.publish(message)
        self.emit_after("enqueue", message, delay)
        return message

    def publish(self, message: dramatiq.Message[Any]) -> None:
        """Send and wait for the confirm; one second try on a new connection, and no more.

        Raises:
            UnavailableError: the broker is away or blocks; the message may have been taken all the same.
        """
        for last in (False, True):
            try:
                with self._borrowed():
                    self.declare_queue(message.queue_name, ensure=True)
                    self.channel.basic_publish(
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
            except (pika.exceptions.AMQPError, ConnectionClosed, OSError) as e:
                self._drop_idle()
                if last or isinstance(e, pika.exceptions.ConnectionBlockedTimeout):
                    raise UnavailableError(f"the broker does not answer: {type(e).__name__}") from None

    def _drop_connection(self) -> None:
        try:
            del self.connection
        except Exception:
            log.debug("broken connection not closed", exc_info=True)

    def ready(self, queue_name: str) -> int | None:
        """Messages that wait in a queue; None: it does not exist.

        Raises:
            UnavailableError: the broker is away.
        """
        try:
            with self._borrowed():
                return int(self.channel.queue_declare(queue=queue_name, passive=True).method.message_count)
        except pika.exceptions.ChannelClosedByBroker as e:
            if e.reply_code == 404:
                return None
            raise UnavailableError(f"the broker refuses: {e.reply_text}") from None
        except (pika.exceptions.AMQPError, ConnectionClosed, OSError) as e:
            self._drop_idle()
            raise UnavailableError(f"the broker does not answer: {type(e).__name__}") from None


class InProcessBroker(StubBroker):
    """Dramatiq's in-process broker; the ledger is what makes it safe."""

    def __init__(self) -> None:
        super().__init__(middleware=[])

    def declare_queue(self, queue_name: str) -> None:
        """Declare a queue. It gets no delay queue: the ledger delays."""
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
        """Messages that wait in a queue; None: it does not exist."""
        queue = self.queues.get(queue_name)
        return None if queue is None else int(queue.qsize())


class InProcessConsumer(_StubConsumer):
    """Keeps no failed message: their tasks are in the ledger."""

    def __init__(self, queue: Any, prefetch: int, timeout: int) -> None:
        super().__init__(queue, deque(maxlen=0), prefetch, timeout)  # type: ignore[no-untyped-call]


Broker = HubBroker | InProcessBroker
