"""Stage 9, AMQP: publish one message and wait for the broker's confirm.

Open connections wait in a pool: one that is free is taken, so there are never more of a service than threads that
send to it at once. A connection is thrown away when its service was edited, when it lay idle longer than
heartbeats allow, and after every failure that leaves its state in doubt.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import pika
from pika import exceptions as wrong

from hub.errors import ConfigError, InvalidPayloadError, NotSentError
from hub.models import Request, Response, Service
from hub.settings import Settings
from hub.transports.amqp_connection import (
    ERRORS,
    HEARTBEAT,
    DeadlineExpired,
    alive,
    close,
    connect,
    translate,
    watch_blocked,
    within,
)
from hub.transports.amqp_uri import AmqpUri, parse
from hub.transports.base import CONFIG_RECHECK, Deadline

APP_ID = "integration-hub"
_NO_HEARTBEAT_IDLE = 300.0  # seconds after which a connection without heartbeats is not trusted any more
_SHORT = 255  # bytes of an AMQP short string


class AmqpTransport:
    """Sends to RabbitMQ; implements `base.Transport`. Safe to call from many threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._idle: defaultdict[int, list[_Link]] = defaultdict(list)
        self._closed = False

    def send(self, service: Service, request: Request, deadline: Deadline) -> Response:
        """Publish, persistent and mandatory; returns when the broker has confirmed it.

        Raises:
            InvalidPayloadError: there is no routing key, or it is too long; the definition of the service is unusable.
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
        with self._link(service, uri, deadline) as link:
            link.publish(key, body, _properties(service, request))
        return Response()

    def check(self, service: Service, deadline: Deadline) -> str:
        """Log in, and look at `queue_declare` without declaring it."""
        uri = _uri(service)
        seen = f"logged in to {':'.join(map(str, uri.at))}, vhost {uri.virtual_host!r}"
        with self._link(service, uri, deadline) as link:
            if not uri.queue_declare:
                return seen
            channel = link.connection.channel()
            try:
                found = channel.queue_declare(uri.queue_declare, passive=True).method
            except wrong.ChannelClosedByBroker as e:
                if e.reply_code != 404:
                    raise
                return f"{seen}; queue {uri.queue_declare!r} does not exist yet"
            channel.close()
            return f"{seen}; queue {uri.queue_declare!r} holds {found.message_count} messages"

    def close(self) -> None:
        """Close every idle connection; one in use closes when its send ends."""
        with self._lock:
            self._closed = True
            links = [link for idle in self._idle.values() for link in idle]
            self._idle.clear()
        for link in links:
            close(link.connection)

    @contextmanager
    def _link(self, service: Service, uri: AmqpUri, deadline: Deadline) -> Iterator[_Link]:
        if deadline.remaining <= 0:
            raise translate(DeadlineExpired(), service)
        link = self._take(service)
        if link is None:
            try:
                link = _Link(connect(service, self._settings, deadline), service, uri)
            except ConfigError as e:
                raise NotSentError(str(e), retry_after=CONFIG_RECHECK) from None
        try:
            with within(link.connection, deadline):
                yield link
        except (*ERRORS, RuntimeError) as e:
            error = translate(e, service, blocked=next(iter(link.blocked), None))
            if isinstance(e, wrong.AMQPChannelError):
                link.reset()
                self._give_back(link)
            else:
                close(link.connection, 0)
            raise error from None
        except BaseException:
            close(link.connection, 0)
            raise
        self._give_back(link)

    def _take(self, service: Service) -> _Link | None:
        """A connection that can be used, if one is free; closes those that cannot."""
        while True:
            with self._lock:
                idle = self._idle.get(service.id)
                link = idle.pop() if idle else None
                stale = [old for links in self._idle.values() for old in links if old.stale]
                for old in stale:
                    self._idle[old.service_id].remove(old)
            for old in stale:
                close(old.connection, 0)
            if link is None:
                return None
            if link.version == service.version and not link.stale and alive(link.connection):
                return link
            close(link.connection, 0)

    def _give_back(self, link: _Link) -> None:
        link.used_at = time.monotonic()
        with self._lock:
            if link.connection.is_open and not self._closed:
                self._idle[link.service_id].append(link)
                return
        close(link.connection)


class _Link:
    """A connection, its channel in confirm mode, and whether the queues have been declared on it."""

    def __init__(self, connection: pika.BlockingConnection, service: Service, uri: AmqpUri) -> None:
        self.connection = connection
        self.service_id = service.id
        self.version = service.version
        self.blocked = watch_blocked(connection)
        self.used_at = time.monotonic()
        self._uri = uri
        self._channel: pika.adapters.blocking_connection.BlockingChannel | None = None
        heartbeat = HEARTBEAT if uri.heartbeat is None else uri.heartbeat
        self._trusted = heartbeat * 2 or _NO_HEARTBEAT_IDLE

    @property
    def stale(self) -> bool:
        """Idle so long, without sending heartbeats, that the broker has hung up or is about to."""
        return time.monotonic() - self.used_at > self._trusted

    def publish(self, key: str, body: bytes, properties: pika.BasicProperties) -> None:
        """One message, confirmed. A queue that was deleted since it was declared is declared again."""
        fresh = self._channel is None
        channel = self._channel = self._channel or self._open()
        try:
            channel.basic_publish(self._uri.exchange, key, body, properties, mandatory=True)
        except wrong.UnroutableError:
            if fresh or not self._uri.queue_declare:
                raise
            self._declare(channel)
            channel.basic_publish(self._uri.exchange, key, body, properties, mandatory=True)

    def reset(self) -> None:
        """Forget the channel: the broker has closed it, or a declaration on it failed."""
        channel, self._channel = self._channel, None
        if channel is not None and channel.is_open and self.connection.is_open:
            self._channel = channel

    def _open(self) -> pika.adapters.blocking_connection.BlockingChannel:
        channel = self.connection.channel()
        self._declare(channel)
        channel.confirm_delivery()
        return channel

    def _declare(self, channel: pika.adapters.blocking_connection.BlockingChannel) -> None:
        uri = self._uri
        if not uri.queue_declare:
            return
        arguments = None
        if uri.dlq:
            channel.queue_declare(uri.dlq, durable=True)
            arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": uri.dlq}
        channel.queue_declare(uri.queue_declare, durable=True, arguments=arguments)


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
