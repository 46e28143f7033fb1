"""Groups: one RabbitMQ message may contain the ids of several tasks of one service.

The consumer unpacks it into one Dramatiq message per task and acknowledges it when the last of them is done. So
the cost of publishing, confirming and acknowledging is shared, and actors and middleware see one message per task.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from typing import Any

import dramatiq
import pika.exceptions
import structlog
from dramatiq.errors import ConnectionClosed

from hub.tasks.broker_url import LOST
from hub.tasks.connections import end
from hub.tasks.dramatiq_internals import BoundedConsumer, RabbitmqMessage, delivery_tag
from hub.tasks.messages import SIZE_LIMIT, InvalidMessageError, RejectionLog, decode
from hub.transports.amqp.pika_internals import CutBody

log = structlog.get_logger("hub.tasks.groups")

GROUP = 32  # most task ids in a message


def in_groups(tasks: Iterable[tuple[int, int]]) -> list[tuple[int, list[int]]]:
    """(service id, task id) pairs as (service id, at most `GROUP` task ids)."""
    by_service: dict[int, list[int]] = {}
    for service_id, task_id in tasks:
        by_service.setdefault(service_id, []).append(task_id)
    return [
        (service_id, ids[i : i + GROUP]) for service_id, ids in by_service.items() for i in range(0, len(ids), GROUP)
    ]


class _Group:
    """The number of unfinished tasks of one RabbitMQ message."""

    __slots__ = ("left",)

    def __init__(self, left: int) -> None:
        self.left = left


class GroupConsumer(BoundedConsumer):
    """Unpacks groups, and acknowledges in batches: one wake-up of the connection for many messages.

    A message that the hub did not publish is counted, logged and rejected. Of one that is too large, only the first
    bytes are held in memory.
    """

    def __init__(self, broker: Any, queue_name: str, prefetch: int, timeout: int) -> None:
        super().__init__(broker, queue_name, prefetch, timeout, keep=SIZE_LIMIT + 1)
        self._rejections = RejectionLog(queue_name, broker.report_rejected)
        self._unpacked: deque[Any] = deque()
        self._to_ack: list[int] = []
        self._lock = threading.Lock()

    def __next__(self) -> Any:
        if self._unpacked:
            return self._unpacked.popleft()
        try:
            method, _, body = next(self.iterator)
        except (AssertionError, StopIteration, *LOST) as e:
            if getattr(e, "reply_code", None) == 404:
                self.broker.queues_pending.add(self.queue_name)  # the queue was deleted: declare it again
            raise ConnectionClosed(e) from None
        if method is None or body is None:
            return None
        try:
            message = decode(body, queue=self.queue_name, actors=self.broker.actors)
        except InvalidMessageError as e:
            self._rejections.rejected(e, body.size if isinstance(body, CutBody) else len(body))
            self.channel.basic_nack(method.delivery_tag, requeue=False)  # this thread owns the connection
            return None
        self.known_tags.add(method.delivery_tag)
        return self._unpack(method, message)

    def _unpack(self, method: Any, message: dramatiq.Message[Any]) -> Any:
        """The first task of a message; the others follow."""
        ids = message.kwargs.get("task_ids")
        group = _Group(len(ids)) if ids else None
        singles = [message]
        if ids:
            service_id = message.kwargs["service_id"]
            singles = [
                message.copy(args=(task_id, service_id), kwargs={}, message_id=f"{message.message_id}/{task_id}")
                for task_id in ids
            ]
        for single in singles:
            part: Any = RabbitmqMessage(method.redelivered, method.delivery_tag, single)
            part._source, part._group = self, group
            self._unpacked.append(part)
        return self._unpacked.popleft()

    def ack(self, message: Any) -> None:
        """Acknowledge a message; a group when its last task is done."""
        if message._source is not self:
            return  # its channel is closed and tags start from 1 again: RabbitMQ redelivers the message
        with self._lock:
            if message._group is not None:
                message._group.left -= 1
                if message._group.left:
                    return
            tag = delivery_tag(message)
            if tag not in self.known_tags:
                return
            self.known_tags.discard(tag)
            self._to_ack.append(tag)
            wake = len(self._to_ack) == 1
        if wake:
            try:
                self.connection.add_callback_threadsafe(self._flush)
            except pika.exceptions.AMQPError:
                log.debug("not acknowledged: the connection is lost; RabbitMQ redelivers")

    def nack(self, message: Any) -> None:
        """Reject a failed message to the `.XQ` queue. A task of a group is acknowledged: the ledger recovers it."""
        if message._group is not None:
            self.ack(message)
        elif message._source is self:
            super().nack(message)  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Send pending acknowledgements and close the connection. Raises nothing."""
        done = threading.Event()
        try:
            self.connection.add_callback_threadsafe(done.set)  # callbacks run in order
            while not done.is_set():
                self.connection.process_data_events(0)
        except LOST:
            log.debug("not acknowledged: the connection is lost; RabbitMQ redelivers")
        end(self.connection)

    def _flush(self) -> None:
        with self._lock:
            tags, self._to_ack = self._to_ack, []
        for tag in tags:
            if self.channel.is_open:
                self.channel.basic_ack(tag)
