"""AMQP connections: open, limit calls by a deadline, close, translate pika's errors.

The publisher and the consumer of response queues use them. pika's blocking calls take no timeout, its event loop
does. `pika_internals` has what is not in pika's public API.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import pika
from pika import exceptions as pika_errors
from pika.adapters.utils.connection_workflow import AMQPConnectorException, AMQPConnectorStackTimeout

from hub.domain.text import MASK
from hub.errors import (
    AuthenticationError,
    ConnectError,
    NotSentError,
    TimedOutError,
    TransportError,
    UnroutableError,
)
from hub.models import Service
from hub.settings import Settings
from hub.transports import egress
from hub.transports.amqp import pika_internals
from hub.transports.amqp.uri import AmqpUri, parse
from hub.transports.base import Deadline
from hub.transports.masking import without_secrets
from hub.transports.tls import context

HEARTBEAT = 60  # seconds; the default of the URI's `heartbeat`
ERRORS = (pika_errors.AMQPError, pika_errors.ChannelError, pika_errors.ReentrancyError, AMQPConnectorException, OSError)


class DeadlineExpired(pika_errors.AMQPConnectionError):
    """The hub ended the connection because its deadline had passed."""


_TIMEOUTS = (
    DeadlineExpired,
    AMQPConnectorStackTimeout,
    TimeoutError,
    pika_errors.ConnectionOpenAborted,
    pika_errors.ConnectionBlockedTimeout,
    pika_errors.AMQPHeartbeatTimeout,
)


def connect(service: Service, settings: Settings, deadline: Deadline, *, keep: int = 0) -> pika.BlockingConnection:
    """Open a connection to `service`: tries each address of its host until `deadline`.

    Close it with `close()`. Calls on it may block: wrap them in `within()`.

    Args:
        keep: bytes of a received message to keep; see `pika_internals.open_blocking`.

    Raises:
        ConfigError: `base_url` or a certificate file is unusable.
        EgressRefusedError: all addresses of the host are refused.
        AuthenticationError: user, password or vhost is refused.
        ConnectError, TimedOutError: no connection.
        NotSentError: this machine is out of sockets, ports or memory.
    """
    uri = parse(service.base_url)
    host, port = uri.at
    tls = None
    if uri.tls:
        files = (service.options.get(name) for name in ("ca_file", "client_cert", "client_key"))
        tls = pika.SSLOptions(context(settings.tls_folder, *files, alpn=()), host)
    addresses = egress.resolve(host, port, settings, deadline.remaining)
    for left in range(len(addresses) - 1, -1, -1):
        seconds = min(deadline.remaining, uri.connection_timeout or deadline.remaining)
        try:
            if seconds <= 0:
                raise DeadlineExpired
            return pika_internals.open_blocking(
                _parameters(service, uri, addresses[-1 - left], tls, seconds / (left + 1)), keep=keep
            )
        except (*ERRORS, RuntimeError) as e:
            if getattr(_root(e), "errno", None) in egress.LOCAL_ERRORS:
                raise NotSentError("this machine can open no more connections") from None
            error = translate(e, service)
            if not left or not isinstance(error, ConnectError):
                raise error from None
    raise AssertionError("a host that resolves has an address")


@contextmanager
def within(connection: pika.BlockingConnection, deadline: Deadline) -> Iterator[None]:
    """Limit blocking calls on `connection` by `deadline`: when it passes, the connection is ended.

    Raises:
        DeadlineExpired: from the call in progress.
    """
    if deadline.remaining <= 0:
        raise DeadlineExpired("deadline")
    loop = pika_internals.implementation(connection).ioloop
    timer = loop.call_later(deadline.remaining, lambda: pika_internals.cut(connection, DeadlineExpired("deadline")))
    try:
        yield
    finally:
        loop.remove_timeout(timer)


def close(connection: pika.BlockingConnection, seconds: float = 1.0) -> None:
    """Close with a handshake of at most `seconds`. Raises nothing."""
    try:
        if connection.is_open:
            with within(connection, Deadline(max(seconds, 0.001))):
                connection.close()
    except ERRORS:
        pass


def watch_blocked(connection: pika.BlockingConnection) -> list[str]:
    """A list that contains the broker's reason while it blocks publishers (memory or disk alarm), else nothing."""
    reasons: list[str] = []
    impl = pika_internals.implementation(connection)
    impl.add_on_connection_blocked_callback(lambda _, frame: reasons.append(str(frame.method.reason or "an alarm")))
    impl.add_on_connection_unblocked_callback(lambda *_: reasons.clear())
    return reasons


def translate(error: BaseException, service: Service, *, blocked: str | None = None) -> TransportError:
    """Translate an error of pika or the system to an error of `hub.errors` without secrets in its text."""
    host, port = parse(service.base_url).at
    return _translate(error, service, f"[{host}]:{port}" if ":" in host else f"{host}:{port}", blocked)


def _translate(error: BaseException, service: Service, place: str, blocked: str | None) -> TransportError:
    root = _root(error)
    uri = parse(service.base_url)

    def text(message: str) -> str:
        return without_secrets(message, service).replace(uri.password or "\0", MASK)

    detail = text(str(getattr(root, "reply_text", "") or getattr(root, "strerror", "") or root or type(root).__name__))
    waited = f"no response from {place} in time"
    if isinstance(root, pika_errors.UnroutableError):
        returned = root.messages[0].method
        where = f"exchange {returned.exchange!r}" if returned.exchange else "default exchange"
        key, why = returned.routing_key, returned.reply_text
        return UnroutableError(text(f"unroutable: no queue receives routing key {key!r} of the {where} ({why})"))
    if isinstance(root, pika_errors.NackError):
        return UnroutableError(f"{place} refused the message (nack): the queue is full or cannot store it")
    if isinstance(root, pika_errors.ProbableAuthenticationError | pika_errors.AuthenticationError):
        user, _ = credentials(service, uri)
        return AuthenticationError(text(f"{place} refused the login of user {user!r}"))
    if isinstance(root, pika_errors.ProbableAccessDeniedError):
        return AuthenticationError(f"{place} refuses access to vhost {uri.virtual_host!r}")
    if isinstance(root, pika_errors.ConnectionClosed | pika_errors.ChannelClosed):
        if root.reply_code in (403, 530):
            return AuthenticationError(f"{place} refuses: {detail}")
        if isinstance(root, pika_errors.ChannelClosed):
            return UnroutableError(f"{place} refuses: {detail}")
        return ConnectError(f"{place} closed the connection: {detail}")
    if isinstance(root, DeadlineExpired | pika_errors.ConnectionBlockedTimeout) and blocked is not None:
        return TimedOutError(f"{waited}: it blocks publishers ({text(blocked)})")
    if isinstance(root, _TIMEOUTS):
        return TimedOutError(waited)
    if isinstance(root, pika_errors.IncompatibleProtocolError):
        if not uri.tls:
            return ConnectError(f"{place} closed the connection at once: no AMQP 0-9-1 without TLS (amqps://)")
        certificate = (
            "" if service.options.get("client_cert") else ", or a client certificate (client_cert) is required"
        )
        return ConnectError(f"{place} closed the TLS connection at once: it does not speak AMQP 0-9-1{certificate}")
    if isinstance(root, ssl.SSLError):
        reason = getattr(root, "verify_message", "") or root.reason or "handshake failed"
        return ConnectError(f"TLS with {place} failed: {reason}")
    if isinstance(root, OSError):
        return ConnectError(f"cannot connect to {place}: {detail}")
    return ConnectError(f"connection to {place} lost: {detail}")


def credentials(service: Service, uri: AmqpUri) -> tuple[str, str]:
    """User and password: the stored ones, else those of the URI, else guest."""
    password = service.secrets.get("password")
    user = service.options.get("username")
    if uri.user is None and user:
        return str(user), password or ""
    return uri.credentials(password)


def _parameters(
    service: Service, uri: AmqpUri, address: str, tls: pika.SSLOptions | None, seconds: float
) -> pika.ConnectionParameters:
    return pika.ConnectionParameters(
        host=address,
        port=uri.at[1],
        virtual_host=uri.virtual_host,
        credentials=pika.PlainCredentials(*credentials(service, uri), erase_on_connect=True),
        ssl_options=tls,
        heartbeat=HEARTBEAT if uri.heartbeat is None else uri.heartbeat,
        connection_attempts=1,
        socket_timeout=seconds,
        stack_timeout=seconds,
        blocked_connection_timeout=service.timeout,
        client_properties={"connection_name": f"integration-hub {service.name}"},
    )


def _root(error: BaseException) -> BaseException:
    """The innermost cause: pika wraps errors, sometimes repeatedly."""
    while True:
        inner = getattr(error, "exception", None) or (error.args[0] if error.args else None)
        if not isinstance(inner, BaseException):
            return error
        error = inner
