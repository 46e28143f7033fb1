"""The Dramatiq broker: RabbitMQ, or in-process.

One RabbitMQ message may carry the ids of several tasks of one service: the consumer unpacks it into one
Dramatiq message per task and acknowledges it when the last of them is done. So publishing, confirming and
acknowledging cost a fraction per task, and everything above still sees one message per task.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from typing import Any

import dramatiq
import pika
import pika.exceptions
import structlog
from dramatiq.brokers.rabbitmq import RabbitmqBroker, _RabbitmqConsumer
from dramatiq.brokers.stub import StubBroker
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

    @property
    def consumer_class(self) -> type[_RabbitmqConsumer]:
        return GroupConsumer

    def publish(self, message: dramatiq.Message[Any]) -> None:
        """Send and wait for the confirm; one second try on a new connection, and no more.

        Raises:
            UnavailableError: the broker is away or blocks; the message may have been taken all the same.
        """
        for last in (False, True):
            try:
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
                blocked = isinstance(e, pika.exceptions.ConnectionBlockedTimeout)
                self._drop_connection()
                if last or blocked:
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
            return int(self.channel.queue_declare(queue=queue_name, passive=True).method.message_count)
        except pika.exceptions.ChannelClosedByBroker as e:
            self._drop_connection()
            if e.reply_code == 404:
                return None
            raise UnavailableError(f"the broker refuses: {e.reply_text}") from None
        except (pika.exceptions.AMQPError, ConnectionClosed, OSError) as e:
            self._drop_connection()
            raise UnavailableError(f"the broker does not answer: {type(e).__name__}") from None


class InProcessBroker(StubBroker):
    """Dramatiq's in-process broker; the ledger is what makes it safe."""

    def __init__(self) -> None:
        super().__init__(middleware=[])

    def publish(self, message: dramatiq.Message[Any]) -> None:
        """Enqueue."""
        self.enqueue(message)

    def ready(self, queue_name: str) -> int | None:
        """Messages that wait in a queue; None: it does not exist."""
        queue = self.queues.get(queue_name)
        return None if queue is None else int(queue.qsize())


Broker = HubBroker | InProcessBroker


class _Group:
    """One RabbitMQ message and how many of its tasks are still under way."""

    __slots__ = ("left", "tag")

    def __init__(self, tag: int, left: int) -> None:
        self.tag = tag
        self.left = left


class GroupConsumer(_RabbitmqConsumer):
    """Unpacks groups, and acknowledges in batches: one wake-up of the connection for many messages."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)  # type: ignore[no-untyped-call]
        self._unpacked: deque[Any] = deque()
        self._groups: dict[str, _Group] = {}
        self._to_ack: list[int] = []
        self._lock = threading.Lock()

    def __next__(self) -> Any:
        if self._unpacked:
            return self._unpacked.popleft()
        proxy = super().__next__()  # type: ignore[no-untyped-call]
        if proxy is None or not (ids := proxy.kwargs.get("task_ids")):
            return proxy
        group = _Group(proxy._tag, len(ids))
        message, service_id = proxy._message, proxy.kwargs["service_id"]
        for task_id in ids:
            single = message.copy(args=(task_id, service_id), kwargs={}, message_id=f"{message.message_id}/{task_id}")
            part = type(proxy)(proxy.redelivered, proxy._tag, single)
            self._groups[part.message_id] = group
            self._unpacked.append(part)
        return self._unpacked.popleft()

    def ack(self, message: Any) -> None:
        """Acknowledge a message; a group when its last task is done."""
        group = self._groups.pop(message.message_id, None)
        with self._lock:
            if group is not None:
                group.left -= 1
                if group.left:
                    return
            if message._tag not in self.known_tags:
                return
            self.known_tags.discard(message._tag)
            self._to_ack.append(message._tag)
            wake = len(self._to_ack) == 1
        if wake:
            try:
                self.connection.add_callback_threadsafe(self._flush)
            except pika.exceptions.AMQPError as e:
                raise ConnectionClosed(e) from None

    def nack(self, message: Any) -> None:
        """A failed task of a group is the ledger's to repeat: the group goes on."""
        if message.message_id in self._groups:
            self.ack(message)
        else:
            super().nack(message)  # type: ignore[no-untyped-call]

    def _flush(self) -> None:
        with self._lock:
            tags, self._to_ack = self._to_ack, []
        for tag in tags:
            if self.channel.is_open:
                self.channel.basic_ack(tag)
