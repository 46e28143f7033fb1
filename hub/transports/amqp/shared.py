"""One AMQP connection that many threads share, each on a channel of its own.

A thread of its own drives the connection: it answers heartbeats, notices at once when the broker hangs up,
and closes the connection after `IDLE` seconds without use. Other threads never touch pika: they hand it a
callback and wait for the result. A channel carries one message at a time, so a confirm, a return or a
channel error belongs to one message without doubt.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pika
from pika import exceptions as wrong
from pika import spec

from hub.transports.amqp import pika_internals as amqp_pika
from hub.transports.amqp.connection import DeadlineExpired, watch_blocked
from hub.transports.base import Deadline

IDLE = 60.0  # seconds without use after which a connection is closed
CHANNELS = 200  # most channels of one connection; more threads get a further connection
_CLOSING = 2.0  # seconds that the broker has for the closing handshake


class ClosedEarlierError(Exception):
    """The connection or channel was closed before anything was written to it."""


class SharedConnection:
    """A connection and the thread that drives it.

    Args:
        connection: open; belongs to this object from now on.
        idle: seconds without use after which it is closed.
    """

    def __init__(self, connection: pika.BlockingConnection, *, name: str, idle: float = IDLE) -> None:
        self._connection = connection
        self._impl: Any = amqp_pika.implementation(connection)
        self._idle = idle
        self._lock = threading.Lock()
        self._free: list[SharedChannel] = []
        self._used = 0
        self._used_at = time.monotonic()
        self._retired = False
        self._ended = False
        self.blocked = watch_blocked(connection)
        self._room = min(CHANNELS, self._impl.params.channel_max or CHANNELS)
        self._thread = threading.Thread(target=self._run, name=f"amqp-{name}", daemon=True)
        self._thread.start()

    @property
    def usable(self) -> bool:
        """Whether a new send may use it."""
        return not (self._retired or self._ended) and bool(self._impl.is_open)

    def take(self) -> SharedChannel | None:
        """A channel for one send, or None when all are in use or the connection is not usable."""
        with self._lock:
            if not self.usable or self._used >= self._room:
                return None
            channel = self._free.pop() if self._free else SharedChannel(self)
            channel.unsure = not self._used
            self._used += 1
            return channel

    def give_back(self, channel: SharedChannel, *, reusable: bool) -> None:
        """Return a channel; one that is not reusable is closed."""
        with self._lock:
            self._used -= 1
            self._used_at = time.monotonic()
            keep = reusable and not self._retired
            if keep:
                self._free.append(channel)
            last = self._retired and not self._used
        if not keep:
            self._later(channel.discard)
        if last:
            self._later(self._close)

    def retire(self) -> None:
        """Take no new send; close when the last one under way has ended."""
        with self._lock:
            self._retired = True
            last = not self._used
        if last:
            self._later(self._close)

    def join(self, seconds: float) -> None:
        """Wait until the connection is closed."""
        self._thread.join(seconds)

    def run(self, act: Callable[[Future[Any]], None], deadline: Deadline) -> Any:
        """Let the connection's thread call `act`, and wait for the result that it sets.

        Raises:
            ClosedEarlierError: the connection was closed before `act` ran.
            DeadlineExpired: no result in time; the channel's state is unknown.
        """
        future: Future[Any] = Future()
        self._later(lambda: act(future), otherwise=lambda: _fail(future, ClosedEarlierError()))
        try:
            return future.result(deadline.remaining)
        except TimeoutError:
            future.cancel()  # what has not begun by now must not begin later
            raise DeadlineExpired("deadline") from None

    def _later(self, act: Callable[[], None], otherwise: Callable[[], None] = lambda: None) -> None:
        with self._lock:
            alive = not self._ended
            if alive:
                self._impl.ioloop.add_callback_threadsafe(act)
        if not alive:
            otherwise()

    def _run(self) -> None:
        self._watch()
        try:
            amqp_pika.drive(self._connection, lambda: self._impl.is_closed)
        finally:
            with self._lock:  # from here on `_later` refuses; what it took before runs now, and finds all closed
                self._ended = True
            amqp_pika.release(self._connection)

    def _watch(self) -> None:
        """Close the connection when it has been idle for long enough."""
        with self._lock:
            idle = 0.0 if self._used else time.monotonic() - self._used_at
            over = idle >= self._idle
            self._retired = self._retired or over
        if over:
            self._close()
        elif self._impl.is_open:
            self._impl.ioloop.call_later(max(0.05, self._idle - idle), self._watch)

    def _close(self) -> None:
        if self._impl.is_open:
            self._impl.close()
            self._impl.ioloop.call_later(
                _CLOSING, lambda: amqp_pika.cut(self._connection, wrong.AMQPConnectionError("not closed in time"))
            )


class SharedChannel:
    """A channel in confirm mode, for one message at a time. Opened with the first use."""

    def __init__(self, connection: SharedConnection) -> None:
        self.connection = connection
        self.opened = False
        self._channel: Any = None
        self._waiting: Future[Any] | None = None
        self._returned: Any = None
        self.unsure = False  # nobody used the connection: the broker may have hung up just now

    def open(self, deadline: Deadline) -> None:
        """Open the channel; raises what `SharedConnection.run` raises."""

        def act(future: Future[Any]) -> None:
            self._waiting = future

            def opened(channel: Any) -> None:
                channel.add_on_return_callback(self._on_return)
                _set(future, None)

            channel = self._channel = self.connection._impl.channel(on_open_callback=opened)
            channel.add_on_close_callback(self._on_close)

        self._run(act, deadline)
        self.opened = True

    def reset(self) -> None:
        """Forget the channel, which the broker has closed; `open` opens another one."""
        self.opened = False

    def confirm(self, deadline: Deadline) -> None:
        """Turn confirms on; `publish` needs them."""
        self._run(
            lambda future: self._channel.confirm_delivery(self._on_confirm, callback=lambda _: _set(future, None)),
            deadline,
        )

    def declare(self, queue: str, deadline: Deadline, **options: Any) -> Any:
        """Declare a queue; returns the broker's answer.

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
            UnroutableError: no queue takes it.
            NackError: the broker refused it.
            DeadlineExpired: no confirm in time.
            AMQPError: the channel or the connection was closed.
        """

        def act(_: Future[Any]) -> None:
            self._returned = None
            self._channel.basic_publish(exchange, key, body, properties, mandatory=True)

        self._run(act, deadline)

    def discard(self) -> None:
        """Close the channel. Only from the connection's thread."""
        if self._channel is not None and self._channel.is_open:
            self._channel.close()

    def _run(self, act: Callable[[Future[Any]], None], deadline: Deadline) -> Any:
        def guarded(future: Future[Any]) -> None:
            if future.done():
                return
            if not self.connection._impl.is_open or (self.opened and not self._channel.is_open):
                _fail(future, ClosedEarlierError())
                return
            self._waiting = future
            try:
                act(future)
            except Exception as e:
                _fail(future, e)

        def after_a_round(future: Future[Any]) -> None:
            # pika reports a lost connection one round of its loop after it has seen the end of the stream.
            self.connection._impl.ioloop.add_callback_threadsafe(lambda: guarded(future))

        unsure, self.unsure = self.unsure, False
        return self.connection.run(after_a_round if unsure else guarded, deadline)

    def _on_confirm(self, frame: Any) -> None:
        future, returned = self._waiting, self._returned
        if future is None:
            return
        if isinstance(frame.method, spec.Basic.Nack):
            _fail(future, wrong.NackError([]))
        elif returned is not None:
            _fail(future, wrong.UnroutableError([returned]))
        else:
            _set(future, None)

    def _on_return(self, _channel: Any, method: Any, _properties: Any, _body: bytes) -> None:
        self._returned = SimpleNamespace(method=method)

    def _on_close(self, _channel: Any, reason: BaseException) -> None:
        if self._waiting is not None:
            _fail(self._waiting, reason)


def _set(future: Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)


def _fail(future: Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
