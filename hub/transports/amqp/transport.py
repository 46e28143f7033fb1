"""AMQP: publish one message and wait for the broker's confirm.

All threads of a process share one connection per service; each has its own channel while it sends. See `pool`.
"""

from __future__ import annotations

import time

import pika
from pika import exceptions as pika_errors

from hub.errors import ConfigError, InvalidPayloadError
from hub.models import Request, Response, Service
from hub.settings import Settings
from hub.transports.amqp.channel import ClosedEarlierError, SharedChannel
from hub.transports.amqp.pool import ConnectionPool, declare_responses
from hub.transports.amqp.shared import IDLE
from hub.transports.amqp.uri import SHORT_STRING, AmqpUri, parse
from hub.transports.base import Deadline

APP_ID = "integration-hub"


class AmqpTransport:
    """Sends to RabbitMQ; implements `base.Transport`. Safe to call from many threads.

    Args:
        idle: seconds without a send after which a connection is closed.
    """

    def __init__(self, settings: Settings, *, idle: float = IDLE) -> None:
        self._pool = ConnectionPool(settings, idle=idle)

    def send(self, service: Service, request: Request, deadline: Deadline) -> Response:
        """Publish a persistent, mandatory message; returns when the broker has confirmed it.

        Raises:
            InvalidPayloadError: the routing key is missing or too long, or the definition of the service is unusable.
            NotSentError: a certificate file is unusable, or this machine can open no more connections.
            UnroutableError: no queue takes the message, or the broker refuses it.
            ConnectError, TimedOutError, AuthenticationError: see `connection.connect`.
        """
        uri = _uri(service)
        key = uri.key_for(request.endpoint)
        if not key and not uri.exchange:
            raise InvalidPayloadError(
                "no routing key: neither the rule's endpoint nor routing_key nor queue_declare in base_url"
            )
        if len(key.encode()) > SHORT_STRING:
            raise InvalidPayloadError(f"the routing key has more than {SHORT_STRING} bytes")
        body = (request.body or "").encode()
        properties = _properties(service, request)
        while True:
            try:
                with self._pool.channel(service, deadline) as channel:
                    _publish(channel, uri, service, key, body, properties, deadline)
                    return Response()
            except ClosedEarlierError:
                continue  # the broker closed the idle connection: nothing was sent, use another one

    def check(self, service: Service, deadline: Deadline) -> str:
        """Log in, and look up `queue_declare` without declaring it."""
        uri = _uri(service)
        seen = f"logged in to {':'.join(map(str, uri.at))}, vhost {uri.virtual_host!r}"
        while True:
            try:
                with self._pool.channel(service, deadline, reusable=False) as channel:
                    channel.open(deadline)
                    if not uri.queue_declare:
                        return seen
                    try:
                        found = channel.declare(uri.queue_declare, deadline, passive=True)
                    except pika_errors.ChannelClosedByBroker as e:
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
                with self._pool.channel(service, deadline, reusable=False) as channel:
                    return declare_responses(channel, service.response_queue, deadline)
            except ClosedEarlierError:
                continue

    def close(self) -> None:
        """Close every connection that is not in use; one in use is closed when its send ends."""
        self._pool.close()


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
    except pika_errors.UnroutableError:
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
