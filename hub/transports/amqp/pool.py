"""Connections that a process shares to send to AMQP services: one per service, more when all channels are in use.

A connection accepts no new send when its service was edited or a confirm did not arrive in time. It is closed when
its last send has ended.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager

import structlog
from pika import exceptions as pika_errors

from hub.errors import ConfigError, NotSentError, TransportError
from hub.models import Service
from hub.settings import Settings
from hub.transports.amqp.channel import ClosedEarlierError, SharedChannel
from hub.transports.amqp.connection import ERRORS, DeadlineExpired, connect, translate
from hub.transports.amqp.shared import IDLE, SharedConnection
from hub.transports.base import CONFIG_RECHECK, Deadline

log = structlog.get_logger("hub.transports.amqp.pool")

_Key = tuple[int, int]  # a service's id and version


class ConnectionPool:
    """Lends channels. Safe to call from many threads.

    Args:
        idle: seconds without a send after which a connection is closed.
    """

    def __init__(self, settings: Settings, *, idle: float = IDLE) -> None:
        self._settings = settings
        self._idle = idle
        self._lock = threading.Lock()
        self._connections: dict[_Key, list[SharedConnection]] = {}
        self._opening: dict[_Key, Future[None]] = {}
        self._closed = False

    def close(self) -> None:
        """Close every connection that is not in use; one in use closes when its send ends."""
        with self._lock:
            self._closed = True
            connections = [c for known in self._connections.values() for c in known]
            self._connections.clear()
        for connection in connections:
            connection.retire()
        deadline = Deadline(1.0)
        for connection in connections:
            connection.join(deadline.remaining)

    @contextmanager
    def channel(self, service: Service, deadline: Deadline, *, reusable: bool = True) -> Iterator[SharedChannel]:
        """A channel for one send.

        Args:
            reusable: whether a later send may use the channel.

        Raises:
            ClosedEarlierError: the connection was closed before anything was sent; take another one.
            TransportError, NotSentError: as `connect`, or the send inside failed.
        """
        try:
            channel = self._take(service, deadline)
        except DeadlineExpired as e:
            raise translate(e, service) from None
        good = False
        try:
            yield channel
            good = reusable
        except ClosedEarlierError:
            raise
        except (*ERRORS, RuntimeError) as e:
            if isinstance(e, pika_errors.UnroutableError | pika_errors.NackError):
                good = reusable
            elif isinstance(e, DeadlineExpired):
                channel.connection.retire()
            raise translate(e, service, blocked=next(iter(channel.connection.blocked), None)) from None
        finally:
            channel.connection.give_back(channel, reusable=good)

    def _take(self, service: Service, deadline: Deadline) -> SharedChannel:
        """A channel of a connection that has a free one, else of a new connection.

        One thread opens the connection; the others wait for it and share its failure.
        """
        key = service.id, service.version
        while True:
            if deadline.remaining <= 0:
                raise DeadlineExpired("deadline")
            with self._lock:
                for connection in self._usable(key):
                    channel = connection.take()
                    if channel is not None:
                        return channel
                opening = self._opening.get(key)
                mine = opening is None
                if opening is None:
                    opening = self._opening[key] = Future()
            if mine:
                return self._open(service, key, opening, deadline)
            try:
                opening.result(deadline.remaining)
            except TimeoutError:
                raise DeadlineExpired("deadline") from None
            except TransportError as e:
                raise type(e)(str(e)) from None  # a separate error object for each attempt
            except NotSentError as e:
                raise NotSentError(str(e), retry_after=e.retry_after) from None

    def _usable(self, key: _Key) -> list[SharedConnection]:
        known = [c for c in self._connections.get(key, ()) if c.usable]
        if known:
            self._connections[key] = known
        else:
            self._connections.pop(key, None)
        return known

    def _open(self, service: Service, key: _Key, opening: Future[None], deadline: Deadline) -> SharedChannel:
        try:
            connection = SharedConnection(
                connect(service, self._settings, deadline), name=service.name, idle=self._idle
            )
            _declare_before_sending(connection, service, deadline)
            channel = connection.take()
        except BaseException as e:
            error = NotSentError(str(e), retry_after=CONFIG_RECHECK) if isinstance(e, ConfigError) else e
            with self._lock:
                del self._opening[key]
            opening.set_exception(error)
            raise error from None
        with self._lock:
            del self._opening[key]
            old = [k for k in self._connections if k[0] == key[0] and k[1] < key[1]]
            retired = [c for k in old for c in self._connections.pop(k)]
            if self._closed:
                retired.append(connection)
            else:
                self._connections.setdefault(key, []).append(connection)
        for each in retired:
            each.retire()
        opening.set_result(None)
        if channel is None:
            raise translate(pika_errors.AMQPConnectionError("closed by the broker at once"), service)
        return channel


def _declare_before_sending(connection: SharedConnection, service: Service, deadline: Deadline) -> None:
    """Declare the response queue that `reply_to` names, so that no response to the first message is lost.

    A refusal is logged and does not prevent the send.
    """
    channel = connection.take() if service.response_queue else None
    if channel is None or service.response_queue is None:
        return
    try:
        declare_responses(channel, service.response_queue, deadline)
    except (ClosedEarlierError, *ERRORS) as e:
        if isinstance(e, ClosedEarlierError | DeadlineExpired):
            return  # the send that follows reports the error
        error = str(translate(e, service))
        log.warning("response queue not declared", service=service.name, queue=service.response_queue, error=error)
    finally:
        connection.give_back(channel, reusable=False)


def declare_responses(channel: SharedChannel, queue: str, deadline: Deadline) -> bool:
    """Declare a response queue, durable, unless a queue of that name exists; returns whether it was missing."""
    channel.open(deadline)
    try:
        channel.declare(queue, deadline, passive=True)
        return False
    except pika_errors.ChannelClosedByBroker as e:
        if e.reply_code != 404:
            raise
    channel.reset()
    channel.open(deadline)
    channel.declare(queue, deadline, durable=True)
    return True
