"""A pool of HTTP connections of one service: checked by the egress guard, TLS verified."""

from __future__ import annotations

import socket
import ssl
import time
from collections import deque
from typing import Any

from hub.errors import ConnectError, TimedOutError
from hub.settings import Settings
from hub.transports import egress, tls
from hub.transports.base import Deadline
from hub.transports.http import proxy
from hub.transports.http.connection import HttpConnection, reason
from hub.transports.http.urls import Base

IDLE = 4.0  # seconds; an older idle connection is not reused: many servers close theirs after 5
MOST_IDLE = 256  # idle connections kept per origin; the number in use is not limited

Origin = tuple[str, str, int]


class Pool:
    """The idle connections of one service, by origin. Thread-safe."""

    def __init__(self, settings: Settings, options: dict[str, Any]) -> None:
        self._settings = settings
        self._files = options.get("ca_file"), options.get("client_cert"), options.get("client_key")
        self._idle: dict[Origin, deque[tuple[HttpConnection, float]]] = {}
        self._closed = False

    def take(self, base: Base, deadline: Deadline, via: str | None) -> HttpConnection:
        """Return an idle connection that is still open, else a new one."""
        idle = self._idle.get(base.origin)
        while idle:
            try:
                connection, since = idle.pop()
            except IndexError:
                break
            if time.monotonic() - since < IDLE and connection.reusable():
                return connection
            connection.close()
        return HttpConnection(self._open(base, deadline, via))

    def give_back(self, origin: Origin, connection: HttpConnection) -> None:
        """Keep a connection for the next request."""
        idle = self._idle.get(origin)
        if idle is None:
            idle = self._idle.setdefault(origin, deque())
        if self._closed or len(idle) >= MOST_IDLE:
            connection.close()
        else:
            idle.append((connection, time.monotonic()))
            if self._closed:  # closed in the meantime: the connection just added must be closed too
                self.close()

    def sweep(self) -> None:
        """Close connections that have been idle for too long; the oldest are on the left."""
        for idle in list(self._idle.values()):
            while idle and time.monotonic() - idle[0][1] > IDLE:
                try:
                    idle.popleft()[0].close()
                except IndexError:
                    break

    def close(self) -> None:
        """Close idle connections now, and each connection in use when it is returned."""
        self._closed = True
        for idle in list(self._idle.values()):
            while idle:
                try:
                    idle.pop()[0].close()
                except IndexError:
                    break

    def _open(self, base: Base, deadline: Deadline, via: str | None) -> socket.socket:
        where = f"{base.host}:{base.port}"
        context = tls.context(self._settings.tls_folder, *self._files) if base.scheme == "https" else None
        if via:
            sock = proxy.connect(via, base, self._settings, deadline)
        else:
            sock = egress.connect(base.host, base.port, self._settings, deadline)
        if context is None:
            return sock
        sock.settimeout(deadline.remaining or 0.001)
        try:
            return context.wrap_socket(sock, server_hostname=base.host)
        except BaseException as e:
            sock.close()
            if isinstance(e, TimeoutError):
                raise TimedOutError(f"{where} did not finish the TLS handshake in time") from None
            if isinstance(e, ssl.SSLCertVerificationError):
                raise ConnectError(f"the certificate of {where} is not accepted: {e.verify_message}") from None
            if isinstance(e, ssl.SSLError):
                raise ConnectError(f"no TLS with {where}: {reason(e)}") from None
            if isinstance(e, OSError):
                raise ConnectError(f"{where} ended the TLS handshake: {reason(e)}") from None
            raise
