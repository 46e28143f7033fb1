"""Reads one response queue over one connection, in batches, and acknowledges them.

Memory is bounded: a batch ends at a number of messages or bytes, whichever comes first. Nothing is read from the
socket beyond a full batch, neither while it is stored nor while the broker is asked for the number of remaining
messages. Of a message over the limit only the first bytes are kept, see `pika_internals`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pika
from pika import exceptions as pika_errors
from pika.adapters.blocking_connection import BlockingChannel, BlockingConnection

from hub.errors import AuthenticationError, TransportError
from hub.models import Service
from hub.transports.amqp.connection import (
    ERRORS,
    close,
    translate,
    within,
)
from hub.transports.amqp.pika_internals import CutBody, asynchronous, poll
from hub.transports.amqp.tables import be_tolerant
from hub.transports.base import Deadline

_QUIET = 1.0  # seconds without a message after which the broker is asked for the number of messages


class Message(NamedTuple):
    """A message as received. Of one over the limit, `body` is the first bytes and `sha256` is of the whole body."""

    tag: int
    body: bytes
    size: int
    sha256: str | None
    redelivered: bool
    exchange: str
    routing_key: str
    properties: pika.BasicProperties


class ResponseQueue:
    """The response queue of one service, read over `connection`, which this object closes.

    Args:
        batch: most messages of a batch.
        batch_bytes: bytes at which a batch ends.
    """

    def __init__(self, connection: BlockingConnection, service: Service, *, batch: int, batch_bytes: int) -> None:
        assert service.response_queue is not None
        be_tolerant()
        self._connection = connection
        self._service = service
        self._queue = service.response_queue
        self._batch = batch
        self._batch_bytes = batch_bytes
        self._channel: BlockingChannel | None = None
        self._messages: list[Message] = []
        self._bytes = 0
        self._seen = 0
        self._expected = 0
        self._cancelled = False
        self.declared = False
        self.unfinished = False

    def open(self) -> int:
        """Start to consume; returns the number of waiting messages. A missing queue is declared, durable.

        Raises:
            TransportError: no permission, or another consumer uses the queue exclusively.
            ConnectError, TimedOutError: the connection was lost, or the broker does not respond.
        """
        with self._mapped(self._response_deadline()):
            channel = self._connection.channel()
            try:
                pending = channel.queue_declare(self._queue, passive=True).method.message_count
            except pika_errors.ChannelClosedByBroker as e:
                if e.reply_code != 404:
                    raise
                channel = self._connection.channel()
                pending = channel.queue_declare(self._queue, durable=True).method.message_count
                self.declared = True
            self._channel = channel
            self._expected = pending
            channel.basic_qos(prefetch_count=min(65_535, 2 * self._batch))  # the next batch is transferred meanwhile
            channel.add_on_cancel_callback(self._on_cancel)
            channel.basic_consume(self._queue, self._on_message)
            return int(pending)

    def _on_cancel(self, _frame: object) -> None:
        self._cancelled = True

    def _on_message(
        self, _channel: object, method: Any, properties: pika.BasicProperties, body: bytes | CutBody
    ) -> None:
        size, sha256 = (body.size, body.sha256) if isinstance(body, CutBody) else (len(body), None)
        source = method.exchange, method.routing_key
        message = Message(method.delivery_tag, bytes(body), size, sha256, method.redelivered, *source, properties)
        self._messages.append(message)
        self._seen += 1
        self._bytes += len(body)

    def batches(self, deadline: Deadline, stopping: Callable[[], bool]) -> Iterator[list[Message]]:
        """Yield batches until the queue is empty, the deadline passes, or the process stops.

        The next batch is read when the caller requests it: acknowledge the last one before.

        Raises:
            ConnectError: the connection was lost or the queue was deleted; messages that were not acknowledged stay
                in the queue.
        """
        while True:
            self._fill(deadline)
            if self._messages:
                yield self._take()
            if self._cancelled:
                raise TransportError(f"queue {self._queue!r} was deleted while it was read")
            if deadline.remaining <= 0 or stopping():
                self.unfinished = bool(self._messages) or self._seen < self._expected or self._left() > 0
                return
            if not self._messages and self._seen >= self._expected and self._left() == 0:
                return

    def _fill(self, deadline: Deadline) -> None:
        """Read until a batch is full, the expected messages have arrived, or none arrives for `_QUIET` seconds."""
        heard = time.monotonic()
        with self._mapped(Deadline(deadline.remaining + _QUIET)):
            while not self._full() and self._seen < self._expected and not self._cancelled:
                before = self._seen
                self._connection.process_data_events(time_limit=min(_QUIET, deadline.remaining))
                now = time.monotonic()
                if self._seen > before:
                    heard = now
                if deadline.remaining <= 0 or now - heard >= _QUIET:
                    if deadline.remaining > 0:
                        self._expected = self._seen  # another consumer took the rest, or it expired: ask the broker
                    return

    def _full(self) -> bool:
        return len(self._messages) >= self._batch or self._bytes >= self._batch_bytes

    def _take(self) -> list[Message]:
        """Remove at most `batch` messages; further ones belong to the next batch."""
        taken, self._messages = self._messages[: self._batch], self._messages[self._batch :]
        self._bytes = sum(len(m.body) for m in self._messages)
        return taken

    def _left(self) -> int:
        """The number of remaining messages, including those that arrived meanwhile.

        Stops reading when a batch is full: the response comes after everything that the broker has sent before.
        """
        with self._mapped(self._response_deadline()):
            assert self._channel is not None
            found: list[int] = []
            asynchronous(self._channel).queue_declare(
                self._queue, passive=True, callback=lambda frame: found.append(frame.method.message_count)
            )
            while not found and not self._full():
                poll(self._connection)  # `process_data_events` would not return at the broker's response
                self._connection.process_data_events(time_limit=0)
                if not self._channel.is_open:
                    raise TransportError(f"queue {self._queue!r} was deleted while it was read")
            if not found:  # a batch is full: the next call asks again
                self._expected = max(self._expected, self._seen)
                return len(self._messages)
            self._connection.process_data_events(time_limit=0)
            self._expected = self._seen + found[0]
            return found[0] + len(self._messages)

    def acknowledge(self, batch: list[Message]) -> None:
        """Acknowledge the messages of a batch."""
        with self._mapped(self._response_deadline()):
            assert self._channel is not None
            self._channel.basic_ack(batch[-1].tag, multiple=True)

    def close(self) -> None:
        """Close the connection; messages that were not acknowledged return to the queue."""
        close(self._connection)

    def _response_deadline(self) -> Deadline:
        """The time that the broker has for one response."""
        return Deadline(max(1.0, self._service.timeout))

    @contextmanager
    def _mapped(self, deadline: Deadline) -> Iterator[None]:
        """Apply the deadline, and translate pika's errors."""
        name = self._service.response_queue
        try:
            with within(self._connection, deadline):
                yield
        except pika_errors.ChannelClosedByBroker as e:
            if e.reply_code == 403 and "exclusive" not in e.reply_text:
                raise AuthenticationError(
                    f"no permission for queue {name!r}: {e.reply_text}; the user needs `read` on it, and `configure`"
                    " if the hub is to declare it"
                ) from None
            raise TransportError(f"queue {name!r}: the broker says {e.reply_code} {e.reply_text}") from None
        except ERRORS as e:
            raise translate(e, self._service) from None
