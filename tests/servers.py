"""Real HTTP targets on 127.0.0.1, one thread per connection: programmable, recording, misbehaving at will.

::

    with HttpTarget() as target:
        target.on("/users", Reply(201, {"id": 7}))          # or a status, or a function of what was seen
        ...
        assert target.seen[0].json() == {...}
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


@dataclass(frozen=True)
class Seen:
    """One request as it arrived. Header names are in lower case; `connection` numbers the TCP connections from 1."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes
    connection: int
    at: float

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    """What to answer. A body that is neither bytes nor text goes out as JSON; `delay` seconds pass before it."""

    status: int = 200
    body: Any = b""
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    close: bool = False

    def encode(self, method: str) -> bytes:
        body, headers = self.body, dict(self.headers)
        if not isinstance(body, bytes | str):
            body = json.dumps(body)
            headers.setdefault("Content-Type", "application/json")
        raw = body.encode() if isinstance(body, str) else body
        if self.status >= 200 and self.status not in (204, 304):
            headers.setdefault("Content-Length", str(len(raw)))
        if self.close:
            headers["Connection"] = "close"
        lines = [f"HTTP/1.1 {self.status} Whatever", *(f"{k}: {v}" for k, v in headers.items())]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + (b"" if method == "HEAD" else raw)


Answer = Reply | int | Callable[[Seen], "Reply | int"]


class RawServer:
    """Hands every accepted connection to `serve` on a thread of its own. `closing` is set when it must end.

    Args:
        tls: a server-side context; connections that fail the handshake are only counted.
    """

    def __init__(self, serve: Callable[[socket.socket], None] | None = None, *, tls: ssl.SSLContext | None = None,
                 port: int = 0) -> None:  # fmt: skip
        self._serve = serve
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        self.closing = threading.Event()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def serve(self, sock: socket.socket) -> None:
        """One connection, until it ends."""
        assert self._serve is not None
        self._serve(sock)

    def drop(self) -> None:
        """Close every connection, as a restarted server does; goes on listening."""
        with self._lock:
            for sock in self._open:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.closing.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join(5)
        self._listener.close()
        self.drop()
        for thread in self._threads:
            thread.join(5)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _accept(self) -> None:
        while not self.closing.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self.connections += 1
                self._open.add(sock)
            thread = threading.Thread(target=self._run, args=(sock,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _run(self, plain: socket.socket) -> None:
        sock = plain
        try:
            if self._tls:
                plain.settimeout(5)
                sock = self._tls.wrap_socket(plain, server_side=True)
                sock.settimeout(None)
                with self._lock:
                    self._open.discard(plain)
                    self._open.add(sock)
            self.serve(sock)
        except OSError:
            pass
        finally:
            with self._lock:
                self._open.discard(plain)
                self._open.discard(sock)
                sock.close()
                plain.close()


class HttpTarget(RawServer):
    """An HTTP/1.1 server with keep-alive. Paths that were not programmed get `default`."""

    def __init__(self, default: Answer = 204, *, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        self.default: Answer = default
        self.answers: dict[str, Answer] = {}
        self.seen: list[Seen] = []
        super().__init__(tls=tls, port=port)

    def on(self, path: str, answer: Answer) -> None:
        """Program one path (without query)."""
        self.answers[path] = answer

    def at(self, path: str) -> list[Seen]:
        """The requests for one path, in order of arrival."""
        return [seen for seen in self.seen if seen.path == path]

    def serve(self, sock: socket.socket) -> None:
        number = self.connections
        with sock.makefile("rb") as file:
            while seen := self._read(file, number):
                self.seen.append(seen)
                answer = self.answers.get(seen.path, self.default)
                answer = answer(seen) if callable(answer) else answer
                reply = Reply(answer) if isinstance(answer, int) else answer
                if reply.delay and self.closing.wait(reply.delay):
                    return
                sock.sendall(reply.encode(seen.method))
                if reply.close or seen.headers.get("connection") == "close":
                    return

    def _read(self, file: Any, number: int) -> Seen | None:
        first = file.readline().decode("latin-1").split()
        if len(first) != 3:
            return None
        method, target, _ = first
        headers: dict[str, str] = {}
        while line := file.readline().decode("utf-8", "replace").rstrip("\r\n"):
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        body = file.read(int(headers.get("content-length", 0)))
        path, _, query = target.partition("?")
        return Seen(method, path, query, headers, body, number, time.monotonic())


class Authority:
    """A certificate authority for one test; writes PEM files into `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test authority")])
        builder = self._builder(self._name, self._key).add_extension(x509.BasicConstraints(True, None), critical=True)
        self._certificate = builder.sign(self._key, hashes.SHA256())
        self.file = self._write("ca.pem", self._certificate)

    def server(self, *names: str, client_ca: bool = False) -> ssl.SSLContext:
        """A server context for these names and addresses; `client_ca`: clients must bring a certificate of this CA."""
        cert, key = self.issue("server", *(names or ("localhost", "127.0.0.1")))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        if client_ca:
            context.load_verify_locations(self.file)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def issue(self, label: str, *names: str, client: bool = False) -> tuple[str, str]:
        """Files of a certificate and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        alternatives: list[x509.GeneralName] = []
        for name in names:
            try:
                alternatives.append(x509.IPAddress(ipaddress.ip_address(name)))
            except ValueError:
                alternatives.append(x509.DNSName(name))
        usage = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
        builder = self._builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, label)]), key)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (self._folder / f"{label}.key").write_bytes(pem)
        certificate = self._write(f"{label}.pem", builder.sign(self._key, hashes.SHA256()))
        return certificate, str(self._folder / f"{label}.key")

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(days=1))
        )

    def _write(self, name: str, certificate: x509.Certificate) -> str:
        path = self._folder / name
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return str(path)
