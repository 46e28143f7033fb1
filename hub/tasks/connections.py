"""A pool of connections that publish to the hub's broker."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pika

from hub.tasks.broker_url import LOST
from hub.tasks.dramatiq_internals import release_resources, socket_of
from hub.transports.amqp.pika_internals import open_blocking

USE_LIMIT = 10.0
"""Seconds that one use of a pooled connection may take: a declare, or a publish with its confirm."""
_KEEP = 60.0  # seconds that an unused connection is kept open
_CHECK_EVERY = 1.0  # seconds
_CLOSE_LIMIT = 2.0  # seconds that an orderly close may take


class OverdueError(Exception):
    """The broker did not respond within `USE_LIMIT`."""


@dataclass(eq=False, slots=True)
class _Link:
    connection: Any
    channel: Any
    since: float  # monotonic seconds of the last borrow or return
    overdue: bool = False

    @property
    def channel_is_open(self) -> bool:
        return self.channel is not None and self.channel.is_open


class PublisherPool:
    """Connections that threads borrow to publish, each with one channel in confirm mode.

    A maintenance thread responds to heartbeats of unused connections, closes connections that are unused for too long,
    and breaks a connection whose use takes longer than the limit.

    Args:
        parameters: pika's parameters of one or more brokers.
        limit: seconds that one use may take.
        keep: seconds that an unused connection is kept open.
    """

    def __init__(self, parameters: Sequence[Any], *, limit: float = USE_LIMIT, keep: float = _KEEP) -> None:
        self.parameters = list(parameters)
        self._limit = limit
        self._keep = keep
        self._lock = threading.Lock()
        self._idle: list[_Link] = []
        self._lent: set[_Link] = set()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def open(self) -> int:
        """Open connections."""
        with self._lock:
            return len(self._idle) + len(self._lent)

    @contextlib.contextmanager
    def channel(self) -> Iterator[Any]:
        """A channel in confirm mode. Its connection is closed when anything is raised inside.

        Raises:
            OverdueError: the broker did not respond in time.
        """
        link = self._take()
        try:
            yield link.channel
        except BaseException as e:
            self._drop(link, healthy=isinstance(e, pika.exceptions.AMQPChannelError))
            if link.overdue and isinstance(e, LOST):
                raise OverdueError(f"no response within {self._limit:g} s") from None
            raise
        if not link.channel.is_open:
            self._drop(link)
            return
        with self._lock:
            self._lent.discard(link)
            link.since = time.monotonic()
            if not self._closed.is_set():
                self._idle.append(link)
                return
        self._drop(link)

    def drop_idle(self) -> None:
        """Close unused connections: after one broke, the others are likely to be broken too."""
        with self._lock:
            idle, self._idle = self._idle, []
        for link in idle:
            _break(link.connection)

    def close(self) -> None:
        """Close all connections; those in use are broken."""
        self._closed.set()
        with self._lock:
            idle, self._idle = self._idle, []
            lent = list(self._lent)
        for link in lent:
            _break(link.connection, close=False)  # the thread that uses it drops it
        for link in idle:
            end(link.connection)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=5)

    def _take(self) -> _Link:
        with self._lock:
            link = self._idle.pop() if self._idle else None
            if link is not None:
                link.since = time.monotonic()
                self._lent.add(link)
                return link
        connection = open_blocking(self.parameters, keep=0)  # bodies of returned messages are not used
        link = _Link(connection, None, time.monotonic())
        with self._lock:
            self._lent.add(link)
            if self._thread is None and not self._closed.is_set():
                self._thread = threading.Thread(target=self._run, name="hub-broker-pool", daemon=True)
                self._thread.start()
        try:
            link.channel = connection.channel()
            link.channel.confirm_delivery()
        except BaseException as e:
            self._drop(link)
            if link.overdue and isinstance(e, LOST):
                raise OverdueError(f"no response within {self._limit:g} s") from None
            raise
        return link

    def _drop(self, link: _Link, *, healthy: bool = False) -> None:
        with self._lock:
            self._lent.discard(link)
        if healthy and link.connection.is_open and not link.overdue:  # the broker refused a request of the channel
            end(link.connection)
        else:
            _break(link.connection)

    def _run(self) -> None:
        while not self._closed.wait(_CHECK_EVERY):
            now = time.monotonic()
            with self._lock:
                overdue = [link for link in self._lent if now - link.since > self._limit]
                for link in overdue:
                    link.overdue = True
                waiting = list(self._idle)
            for link in overdue:
                _break(link.connection, close=False)
            for link in waiting:
                self._serve(link, now)

    def _serve(self, link: _Link, now: float) -> None:
        """Respond to heartbeats of an unused connection, or close it."""
        with self._lock:
            if link not in self._idle:
                return  # borrowed meanwhile
            self._idle.remove(link)
        if now - link.since > self._keep:
            end(link.connection)
            return
        try:
            link.connection.process_data_events(0)
        except LOST:
            pass
        if not (link.connection.is_open and link.channel_is_open):
            _break(link.connection)
            return
        with self._lock:
            if not self._closed.is_set():
                self._idle.insert(0, link)
                return
        end(link.connection)


def end(connection: Any) -> None:
    """Close a connection with a handshake, within a time limit. Raises nothing."""
    timer = threading.Timer(_CLOSE_LIMIT, _break, [connection], {"close": False})
    timer.daemon = True
    timer.start()
    try:
        connection.close()
    except Exception:  # noqa: S110 - the connection is closed either way
        pass
    finally:
        timer.cancel()
        _clean(connection)


def _break(connection: Any, *, close: bool = True) -> None:
    """End a connection without waiting for the broker.

    Args:
        close: also release its resources; False where another thread is using it, which then does so.
    """
    # This is the only way to interrupt a thread that waits inside pika. Not `sock.shutdown`: on a TLS socket it
    # also discards the TLS state that the other thread uses.
    sock = socket_of(connection)
    if sock is not None:
        with contextlib.suppress(OSError):
            socket.socket.shutdown(sock, socket.SHUT_RDWR)
    if close:
        if connection.is_open:
            with contextlib.suppress(Exception):
                connection.close()
        _clean(connection, sock)


def _clean(connection: Any, sock: socket.socket | None = None) -> None:
    """Release sockets that pika leaves open where a close fails."""
    with contextlib.suppress(Exception):
        release_resources(connection)
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.close()
