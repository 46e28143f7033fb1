"""The servers that the transports talk to, behind one interface: one suite tests all transports."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pika

from hub.models import Request, Service, ServiceType
from hub.settings import Settings
from hub.transports.amqp.transport import AmqpTransport
from hub.transports.base import Transport
from hub.transports.rest import RestTransport
from hub.transports.smtp.transport import SmtpTransport
from hub.transports.soap.transport import SoapTransport
from tests.support.mail_server import MailServer
from tests.support.soap_server import WebServer

SECRET = "s3cr3t-hunter22"


class Peer:
    """A real server of one kind. `service()` is how the hub reaches it, directly or through a proxy at `port`."""

    kind: ServiceType
    warm = False  # whether a send before the fault leaves a connection open that the next one uses
    request: Request
    target: tuple[str, int]

    def transport(self) -> Transport:
        make: type[Transport] = {
            ServiceType.REST: RestTransport,
            ServiceType.AMQP: AmqpTransport,
            ServiceType.SOAP: SoapTransport,
            ServiceType.SMTP: SmtpTransport,
        }[self.kind]
        return make(Settings())  # type: ignore[call-arg]

    def service(
        self,
        *,
        host: str = "127.0.0.1",
        port: int | None = None,
        tls: bool = False,
        wrong: bool = False,
        **changes: Any,
    ) -> Service:
        """`wrong`: with a password or token that the server does not know."""
        raise NotImplementedError

    def keys(self) -> list[str | None]:
        """The idempotency keys of what has arrived, oldest first."""
        raise NotImplementedError

    @contextmanager
    def rejecting(self) -> Iterator[None]:
        """While this lasts the server answers, and says no; where it can, it repeats the secret."""
        raise NotImplementedError
        yield


class WebPeer(Peer):
    """The REST and the SOAP half of `WebServer`."""

    def __init__(self, server: WebServer, kind: ServiceType) -> None:
        self.kind = kind
        self._server = server
        server.token = SECRET
        self.target = server.address
        if kind is ServiceType.SOAP:
            self._path, endpoint, body = "/wsdl", "CreateUser", '{"user":{"id":1,"name":"Ann"}}'
        else:
            self._path, endpoint, body = "/rest", "/users", '{"id":1}'
        self.request = Request(endpoint=endpoint, body=body, idempotency_key="key-1", task_id=7, event_name="e")

    def service(
        self,
        *,
        host: str = "127.0.0.1",
        port: int | None = None,
        tls: bool = False,
        wrong: bool = False,
        **changes: Any,
    ) -> Service:
        url = f"http{'s' if tls else ''}://{host}:{port or self.target[1]}{self._path}"
        token = SECRET[::-1] if wrong else SECRET
        return Service(1, "peer", self.kind, url, auth_type="bearer", secrets={"token": token}, **changes)

    def keys(self) -> list[str | None]:
        return [seen.header("Idempotency-Key") for seen in self._server.posts()]

    @contextmanager
    def rejecting(self) -> Iterator[None]:
        self._server.reject = ("403 Forbidden", "text/plain", f"no, {SECRET}".encode())
        yield
        self._server.reject = None


class AmqpPeer(Peer):
    """A queue on a real RabbitMQ."""

    kind = ServiceType.AMQP
    warm = True

    def __init__(self, url: str, queue: str) -> None:
        parts = urlsplit(url)
        self._url, self._user, self._password, self._vhost = url, parts.username, parts.password, parts.path
        self.target = (str(parts.hostname), parts.port or 5672)
        self._queue = queue
        self.request = Request(body="{}", idempotency_key="key-1", task_id=7, event_name="e")
        self._missing = False

    def service(
        self,
        *,
        host: str = "127.0.0.1",
        port: int | None = None,
        tls: bool = False,
        wrong: bool = False,
        **changes: Any,
    ) -> Service:
        query = f"routing_key={self._queue}.missing" if self._missing else f"queue_declare={self._queue}"
        port = port or self.target[1]
        url = f"amqp{'s' if tls else ''}://{self._user}@{host}:{port}{self._vhost}?{query}"
        secrets = {"password": SECRET[::-1] if wrong else str(self._password)}
        return Service(1, "peer", self.kind, url, secrets=secrets, **changes)

    def keys(self) -> list[str | None]:
        connection = pika.BlockingConnection(pika.URLParameters(self._url))
        try:
            channel, found = connection.channel(), []
            while (properties := channel.basic_get(self._queue)[1]) is not None:
                found.append(properties.message_id)
            return found
        finally:
            connection.close()

    @contextmanager
    def rejecting(self) -> Iterator[None]:
        self._missing = True
        yield
        self._missing = False


class MailPeer(Peer):
    """A real SMTP server that asks for a log-in."""

    kind = ServiceType.SMTP

    def __init__(self, server: MailServer) -> None:
        self._server = server
        self.target = ("127.0.0.1", server.port)
        body = '{"subject": "New user", "text": "Ann"}'
        self.request = Request(body=body, idempotency_key="key-1", task_id=7, event_name="e")

    def service(
        self,
        *,
        host: str = "127.0.0.1",
        port: int | None = None,
        tls: bool = False,
        wrong: bool = False,
        **changes: Any,
    ) -> Service:
        where = f"hub@{host}:{port or self.target[1]}"
        url = f"smtp{'s' if tls else ''}://{where}?from=hub@example.org&to=admin@example.org&starttls=off"
        secrets = {"password": SECRET[::-1] if wrong else SECRET}
        return Service(1, "peer", self.kind, url, secrets=secrets, **changes)

    def keys(self) -> list[str | None]:
        return [str(m["Message-ID"]).strip("<>").partition("@")[0] for m in self._server.messages]

    @contextmanager
    def rejecting(self) -> Iterator[None]:
        self._server.refuse = {"RCPT": f"550 no such user, {SECRET}"}
        yield
        self._server.refuse = {}


@contextmanager
def black_hole() -> Iterator[int]:
    """A port that answers no connection attempt: its backlog is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(address)
            fillers.append(filler)
        yield address[1]
        for filler in fillers:
            filler.close()


@contextmanager
def babbler() -> Iterator[int]:
    """A port that greets everybody in a language that neither HTTP nor AMQP clients speak."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client:
                client.settimeout(5)
                try:
                    client.recv(10)
                    client.sendall(b"220 mail.example ESMTP\r\n\r\n")
                    client.shutdown(socket.SHUT_WR)
                    while client.recv(65536):
                        pass
                except OSError:
                    pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()
