"""The Dramatiq broker: RabbitMQ, or in-process.

One RabbitMQ message may carry the ids of several tasks of one service: the consumer unpacks it into one
Dramatiq message per task and acknowledges it when the last of them is done. So publishing, confirming and
acknowledging cost a fraction per task, and everything above still sees one message per task.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
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

log = structlog.get_logger("hub.broker")

DISPATCH, CONSUME, TICK = "dispatch", "consume", "tick"
GROUP = 32  # most task ids in one message
_BLOCKED_TIMEOUT = 5.0


def queue_names(prefix: str) -> dict[str, str]:
    """The queues of a deployment by what they carry."""
    return {kind: f"{prefix}.{kind}" for kind in (DISPATCH, CONSUME, TICK)}


def in_groups(tasks: Iterable[tuple[int, int]]) -> list[tuple[int, list[int]]]:
    """(service id, task id) pairs as (service id, at most `GROUP` task ids)."""
    by_service: dict[int, list[int]] = {}
    for service_id, task_id in tasks:
        by_service.setdefault(service_id, []).append(task_id)
    return [
        (service_id, ids[i : i + GROUP]) for service_id, ids in by_service.items() for i in range(0, len(ids), GROUP)
    ]


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


class _Group:
    """One RabbitMQ message and how many of its tasks are still under way."""

    __slots__ = ("left",)

    def __init__(self, left: int) -> None:
        self.left = left


class GroupConsumer(_RabbitmqConsumer):
    """Unpacks groups, and acknowledges in batches: one wake-up of the connection for many messages."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)  # type: ignore[no-untyped-call]
        self._unpacked: deque[Any] = deque()
        self._to_ack: list[int] = []
        self._lock = threading.Lock()

    def __next__(self) -> Any:
        if self._unpacked:
            return self._unpacked.popleft()
        proxy = super().__next__()  # type: ignore[no-untyped-call]
        if proxy is None:
            return None
        proxy._source, proxy._group = self, None
        if not (ids := proxy.kwargs.get("task_ids")):
            return proxy
        group = _Group(len(ids))
        message, service_id = proxy._message, proxy.kwargs["service_id"]
        for task_id in ids:
            single = message.copy(args=(task_id, service_id), kwargs={}, message_id=f"{message.message_id}/{task_id}")
            part = type(proxy)(proxy.redelivered, proxy._tag, single)
            part._source, part._group = self, group
            self._unpacked.append(part)
        return self._unpacked.popleft()

    def ack(self, message: Any) -> None:
        """Acknowledge a message; a group when its last task is done."""
        if message._source is not self:
            return  # its channel is gone, and tags count from 1 again: RabbitMQ delivers it once more
        with self._lock:
            if message._group is not None:
                message._group.left -= 1
                if message._group.left:
                    return
            if message._tag not in self.known_tags:
                return
            self.known_tags.discard(message._tag)
            self._to_ack.append(message._tag)
            wake = len(self._to_ack) == 1
        if wake:
            try:
                self.connection.add_callback_threadsafe(self._flush)
            except pika.exceptions.AMQPError:
                log.debug("not acknowledged: the connection is gone, and RabbitMQ delivers again")

    def nack(self, message: Any) -> None:
        """Set a failed message aside, in the `.XQ` queue. A task of a group is the ledger's: the group goes on."""
        if message._group is not None:
            self.ack(message)
        elif message._source is self:
            super().nack(message)  # type: ignore[no-untyped-call]

    def _flush(self) -> None:
        with self._lock:
            tags, self._to_ack = self._to_ack, []
        for tag in tags:
            if self.channel.is_open:
                self.channel.basic_ack(tag)
