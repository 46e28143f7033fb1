"""A channel of a shared connection, in confirm mode, for one message at a time.

So a confirm, a returned message or a channel error always belongs to one message.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pika
from pika import exceptions as pika_errors
from pika import spec

from hub.transports.base import Deadline

if TYPE_CHECKING:
    from hub.transports.amqp.shared import SharedConnection


class ClosedEarlierError(Exception):
    """The connection or channel was closed before anything was written to it."""


class SharedChannel:
    """A channel in confirm mode. It is opened at the first use."""

    def __init__(self, connection: SharedConnection) -> None:
        self.connection = connection
        self.opened = False
        self._channel: Any = None
        self._waiting: Future[Any] | None = None
        self._returned: Any = None
        self.unsure = False  # the connection was unused: the broker may have closed it a moment ago

    def open(self, deadline: Deadline) -> None:
        """Open the channel. Raises as `SharedConnection.run`."""

        def act(future: Future[Any]) -> None:
            self._waiting = future

            def opened(channel: Any) -> None:
                channel.add_on_return_callback(self._on_return)
                _set(future, None)

            channel = self._channel = self.connection.impl.channel(on_open_callback=opened)
            channel.add_on_close_callback(self._on_close)

        self._run(act, deadline)
        self.opened = True

    def reset(self) -> None:
        """Discard a channel that the broker has closed; `open` opens another one."""
        self.opened = False

    def confirm(self, deadline: Deadline) -> None:
        """Enable confirms, which `publish` requires."""
        self._run(
            lambda future: self._channel.confirm_delivery(self._on_confirm, callback=lambda _: _set(future, None)),
            deadline,
        )

    def declare(self, queue: str, deadline: Deadline, **options: Any) -> Any:
        """Declare a queue; returns the broker's method frame.

        Raises:
            ChannelClosedByBroker: refused; the channel is closed.
        """
        frame = self._run(
            lambda future: self._channel.queue_declare(queue, callback=lambda f: _set(future, f), **options), deadline
        )
        return frame.method

    def publish(
        self, exchange: str, key: str, body: bytes, properties: pika.BasicProperties, deadline: Deadline
    ) -> None:
        """Publish one message, mandatory, and wait for the confirm.

        Raises:
            ClosedEarlierError: nothing was written.
            UnroutableError: no queue receives it.
            NackError: the broker refused it.
            DeadlineExpired: no confirm in time.
            AMQPError: the channel or the connection was closed.
        """

        def act(_: Future[Any]) -> None:
            self._returned = None
            self._channel.basic_publish(exchange, key, body, properties, mandatory=True)

        self._run(act, deadline)

    def discard(self) -> None:
        """Close the channel. Call only from the connection's thread."""
        if self._channel is not None and self._channel.is_open:
            self._channel.close()

    def _run(self, act: Callable[[Future[Any]], None], deadline: Deadline) -> Any:
        def guarded(future: Future[Any]) -> None:
            if future.done():
                return
            if not self.connection.impl.is_open or (self.opened and not self._channel.is_open):
                fail(future, ClosedEarlierError())
                return
            self._waiting = future
            try:
                act(future)
            except Exception as e:
                fail(future, e)

        def next_iteration(future: Future[Any]) -> None:
            # pika reports a lost connection one iteration of its loop after it has read the end of the stream.
            self.connection.impl.ioloop.add_callback_threadsafe(lambda: guarded(future))

        unsure, self.unsure = self.unsure, False
        return self.connection.run(next_iteration if unsure else guarded, deadline)

    def _on_confirm(self, frame: Any) -> None:
        future, returned = self._waiting, self._returned
        if future is None:
            return
        if isinstance(frame.method, spec.Basic.Nack):
            fail(future, pika_errors.NackError([]))
        elif returned is not None:
            fail(future, pika_errors.UnroutableError([returned]))
        else:
            _set(future, None)

    def _on_return(self, _channel: Any, method: Any, _properties: Any, _body: bytes) -> None:
        self._returned = SimpleNamespace(method=method)

    def _on_close(self, _channel: Any, reason: BaseException) -> None:
        if self._waiting is not None:
            fail(self._waiting, reason)


def _set(future: Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)


def fail(future: Future[Any], error: BaseException) -> None:
    """Set the error of a future that is not done."""
    if not future.done():
        future.set_exception(error)
