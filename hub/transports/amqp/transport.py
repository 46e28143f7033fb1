"""AMQP: publish one message and wait for the broker's confirm.

All threads of a process share one connection per service, each with a channel of its own while it sends; see
`amqp_shared`. Past `CHANNELS` sends at once a further connection is opened. A connection takes no new send
when its service was edited or a confirm did not arrive in time, and closes when its last send has ended.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager

import pika
import structlog
from pika import exceptions as wrong

from hub.errors import (
    ConfigError,
    InvalidPayloadError,
    NotSentError,
    TransportError,
)
from hub.models import Request, Response, Service
from hub.settings import Settings
from hub.transports.amqp.connection import (
    ERRORS,
    DeadlineExpired,
    connect,
    translate,
)
from hub.transports.amqp.shared import (
    IDLE,
    ClosedEarlierError,
    SharedChannel,
    SharedConnection,
)
from hub.transports.amqp.uri import AmqpUri, parse
from hub.transports.base import CONFIG_RECHECK, Deadline

log = structlog.get_logger("hub.amqp")

APP_ID = "integration-hub"
_SHORT = 255  # bytes of an AMQP short string
_Key = tuple[int, int]  # a service's id and version


class AmqpTransport:
    """Sends to RabbitMQ; implements `base.Transport`. Safe to call from many threads.

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

    def send(self, service: Service, request: Request, deadline: Deadline) -> Response:
        """Publish, persistent and mandatory; returns when the broker has confirmed it.

        Raises:
            InvalidPayloadError: there is no routing key, or it is too long; the definition of the service is unusable.
            NotSentError: a certificate file is unusable, or this machine can open no more connections.
            UnroutableError: no queue takes the message, or the broker refuses it.
            ConnectError, TimedOutError, AuthenticationError: see `amqp_connection.connect`.
        """
        uri = _uri(service)
        key = uri.key_for(request.endpoint)
        if not key and not uri.exchange:
            raise InvalidPayloadError(
                "no routing key: neither the rule's endpoint nor routing_key nor queue_declare in base_url"
            )
        if len(key.encode()) > _SHORT:
            raise InvalidPayloadError(f"the routing key has more than {_SHORT} bytes")
        body = (request.body or "").encode()
        properties = _properties(service, request)
        while True:
            try:
                with self._channel(service, deadline) as channel:
                    _publish(channel, uri, service, key, body, properties, deadline)
                    return Response()
            except ClosedEarlierError:
                continue  # the broker hung up while the connection was idle: nothing was sent, take another

    def check(self, service: Service, deadline: Deadline) -> str:
        """Log in, and look at `queue_declare` without declaring it."""
        uri = _uri(service)
        seen = f"logged in to {':'.join(map(str, uri.at))}, vhost {uri.virtual_host!r}"
        while True:
            try:
                with self._channel(service, deadline, reusable=False) as channel:
                    channel.open(deadline)
                    if not uri.queue_declare:
                        return seen
                    try:
                        found = channel.declare(uri.queue_declare, deadline, passive=True)
                    except wrong.ChannelClosedByBroker as e:
                        if e.reply_code != 404:
                            raise
                        return f"{seen}; queue {uri.queue_declare!r} does not exist yet"
                    return f"{seen}; queue {uri.queue_declare!r} holds {found.message_count} messages"
            except ClosedEarlierError:
                continue

    def declare_responses(self, service: Service, deadline: Deadline) -> bool:
        """Declare the service's response queue, durable, where it does not exist; returns whether it was missing.

        Raises:
            TransportError: no connection, or no permission.
        """
        if not service.response_queue:
            return False
        while True:
            try:
                with self._channel(service, deadline, reusable=False) as channel:
                    return _declare_responses(channel, service.response_queue, deadline)
            except ClosedEarlierError:
                continue

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
    def _channel(self, service: Service, deadline: Deadline, *, reusable: bool = True) -> Iterator[SharedChannel]:
        """A channel for one send; `reusable` says whether a later send may use it."""
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
            if isinstance(e, wrong.UnroutableError | wrong.NackError):
                good = reusable
            elif isinstance(e, DeadlineExpired):
                channel.connection.retire()
            raise translate(e, service, blocked=next(iter(channel.connection.blocked), None)) from None
        finally:
            channel.connection.give_back(channel, reusable=good)

    def _take(self, service: Service, deadline: Deadline) -> SharedChannel:
        """A channel of a connection that has one free; opens a connection where none has.

        One thread opens, the others wait for it and share its failure.
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
                raise type(e)(str(e)) from None  # an error of its own for every attempt
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
            raise translate(wrong.AMQPConnectionError("closed by the broker at once"), service)
        return channel


def _declare_before_sending(connection: SharedConnection, service: Service, deadline: Deadline) -> None:
    """Declare the response queue that `reply_to` names, so that no response to the first message is lost.

    Best effort: a broker that refuses it is no reason not to send.
    """
    channel = connection.take() if service.response_queue else None
    if channel is None or service.response_queue is None:
        return
    try:
        _declare_responses(channel, service.response_queue, deadline)
    except (ClosedEarlierError, *ERRORS) as e:
        if isinstance(e, ClosedEarlierError | DeadlineExpired):
            return  # the send that follows says what is wrong
        log.warning(
            "response queue not declared", service=service.name, queue=service.response_queue,
            error=str(translate(e, service)),
        )  # fmt: skip
    finally:
        connection.give_back(channel, reusable=False)


def _declare_responses(channel: SharedChannel, queue: str, deadline: Deadline) -> bool:
    """Declare a response queue, durable, unless it exists in whatever form; returns whether it was missing."""
    channel.open(deadline)
    try:
        channel.declare(queue, deadline, passive=True)
        return False
    except wrong.ChannelClosedByBroker as e:
        if e.reply_code != 404:
            raise
    channel.reset()
    channel.open(deadline)
    channel.declare(queue, deadline, durable=True)
    return True


def _publish(
    channel: SharedChannel,
    uri: AmqpUri,
    service: Service,
    key: str,
    body: bytes,
    properties: pika.BasicProperties,
    deadline: Deadline,
) -> None:
    """One message, confirmed. A queue that was deleted since it was declared is declared again."""
    fresh = not channel.opened
    if fresh:
        channel.open(deadline)
        _declare(channel, uri, deadline)
        channel.confirm(deadline)
    try:
        channel.publish(uri.exchange, key, body, properties, deadline)
    except wrong.UnroutableError:
        if fresh or not uri.queue_declare:
            raise
        _declare(channel, uri, deadline)
        channel.publish(uri.exchange, key, body, properties, deadline)


def _declare(channel: SharedChannel, uri: AmqpUri, deadline: Deadline) -> None:
    if not uri.queue_declare:
        return
    arguments = None
    if uri.dlq:
        channel.declare(uri.dlq, deadline, durable=True)
        arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": uri.dlq}
    channel.declare(uri.queue_declare, deadline, durable=True, arguments=arguments)


def _uri(service: Service) -> AmqpUri:
    try:
        return parse(service.base_url)
    except ConfigError as e:
        raise InvalidPayloadError(str(e)) from None


def _properties(service: Service, request: Request) -> pika.BasicProperties:
    headers: dict[str, object] = {**service.options.get("headers", {}), **request.headers}
    headers.update({k[7:]: v for k, v in service.secrets.items() if k.startswith("header:")})
    if request.event_name is not None:
        headers["x-hub-event"] = request.event_name
    if request.task_id is not None:
        headers["x-hub-task"] = request.task_id
    return pika.BasicProperties(
        content_type="application/json",
        delivery_mode=2,
        message_id=request.idempotency_key,
        correlation_id=None if request.task_id is None else str(request.task_id),
        reply_to=service.response_queue,
        timestamp=int(request.at.timestamp() if request.at else time.time()),  # noqa: TID251 - see `Request.at`
        app_id=APP_ID,
        headers=headers,
    )
