"""An AMQP connection that several threads share, each with its own channel.

A dedicated thread drives the connection: it responds to heartbeats, detects at once when the broker closes the
connection, and closes it after `IDLE` seconds without use. Other threads do not call pika: they pass a callback to that
thread and wait for the result.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pika
from pika import exceptions as pika_errors

from hub.transports.amqp import pika_internals
from hub.transports.amqp.channel import ClosedEarlierError, SharedChannel, fail
from hub.transports.amqp.connection import DeadlineExpired, watch_blocked
from hub.transports.base import Deadline

IDLE = 60.0  # seconds without use after which a connection is closed
CHANNELS = 200  # most channels of one connection; more threads get another connection
_CLOSING = 2.0  # seconds that the closing handshake may take


class SharedConnection:
    """A connection and the thread that drives it.

    Args:
        connection: an open connection; this object closes it.
        idle: seconds without use after which it is closed.
    """

    def __init__(self, connection: pika.BlockingConnection, *, name: str, idle: float = IDLE) -> None:
        self._connection = connection
        self.impl: Any = pika_internals.implementation(connection)
        self._idle = idle
        self._lock = threading.Lock()
        self._free: list[SharedChannel] = []
        self._used = 0
        self._used_at = time.monotonic()
        self._retired = False
        self._ended = False
        self.blocked = watch_blocked(connection)
        self._room = min(CHANNELS, self.impl.params.channel_max or CHANNELS)
        self._thread = threading.Thread(target=self._run, name=f"amqp-{name}", daemon=True)
        self._thread.start()

    @property
    def usable(self) -> bool:
        """Whether a new send may use it."""
        return not (self._retired or self._ended) and bool(self.impl.is_open)

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
        """Accept no new send; close the connection when the last send has ended."""
        with self._lock:
            self._retired = True
            last = not self._used
        if last:
            self._later(self._close)

    def join(self, seconds: float) -> None:
        """Wait until the connection is closed."""
        self._thread.join(seconds)

    def run(self, act: Callable[[Future[Any]], None], deadline: Deadline) -> Any:
        """Call `act` on the connection's thread, and wait for the result that it sets.

        Raises:
            ClosedEarlierError: the connection was closed before `act` ran.
            DeadlineExpired: no result in time; the channel's state is unknown.
        """
        future: Future[Any] = Future()
        self._later(lambda: act(future), otherwise=lambda: fail(future, ClosedEarlierError()))
        try:
            return future.result(deadline.remaining)
        except TimeoutError:
            future.cancel()  # an act that has not begun must not begin later
            raise DeadlineExpired("deadline") from None

    def _later(self, act: Callable[[], None], otherwise: Callable[[], None] = lambda: None) -> None:
        with self._lock:
            alive = not self._ended
            if alive:
                self.impl.ioloop.add_callback_threadsafe(act)
        if not alive:
            otherwise()

    def _run(self) -> None:
        self._watch()
        try:
            pika_internals.drive(self._connection, lambda: self.impl.is_closed)
        finally:
            with self._lock:  # `_later` refuses from here on; earlier callbacks run now and find the connection closed
                self._ended = True
            pika_internals.release(self._connection)

    def _watch(self) -> None:
        """Close the connection if it has been idle for `idle` seconds, else check again later."""
        with self._lock:
            idle = 0.0 if self._used else time.monotonic() - self._used_at
            over = idle >= self._idle
            self._retired = self._retired or over
        if over:
            self._close()
        elif self.impl.is_open:
            self.impl.ioloop.call_later(max(0.05, self._idle - idle), self._watch)

    def _close(self) -> None:
        if self.impl.is_open:
            self.impl.close()
            error = pika_errors.AMQPConnectionError("not closed in time")
            self.impl.ioloop.call_later(_CLOSING, lambda: pika_internals.cut(self._connection, error))
