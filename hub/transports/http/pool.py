"""Idle HTTP connections of one service, and opening new ones: guarded, TLS verified."""

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
from hub.transports.http.urls import Base
from hub.transports.http.wire import Wire, reason

IDLE = 4.0  # seconds after which an idle connection is not used again: many servers close theirs after 5
MOST_IDLE = 256  # connections kept per origin; any number may be in use

Origin = tuple[str, str, int]


class Pool:
    """The idle connections of one service, by origin. Any number of threads."""

    def __init__(self, settings: Settings, options: dict[str, Any]) -> None:
        self._settings = settings
        self._files = options.get("ca_file"), options.get("client_cert"), options.get("client_key")
        self._idle: dict[Origin, deque[tuple[Wire, float]]] = {}
        self._closed = False

    def take(self, base: Base, deadline: Deadline, via: str | None) -> Wire:
        """An idle connection that still stands, else a new one."""
        idle = self._idle.get(base.origin)
        while idle:
            try:
                wire, since = idle.pop()
            except IndexError:
                break
            if time.monotonic() - since < IDLE and wire.stands():
                return wire
            wire.close()
        return Wire(self._open(base, deadline, via))

    def give_back(self, origin: Origin, wire: Wire) -> None:
        """Keep a connection for the next request."""
        idle = self._idle.get(origin)
        if idle is None:
            idle = self._idle.setdefault(origin, deque())
        if self._closed or len(idle) >= MOST_IDLE:
            wire.close()
        else:
            idle.append((wire, time.monotonic()))
            if self._closed:  # closed in between: what was just added must go too
                self.close()

    def sweep(self) -> None:
        """Close what has been idle for too long; the oldest stand on the left."""
        for idle in list(self._idle.values()):
            while idle and time.monotonic() - idle[0][1] > IDLE:
                try:
                    idle.popleft()[0].close()
                except IndexError:
                    break

    def close(self) -> None:
        """Close what is idle now, and what comes back later."""
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
                raise ConnectError(f"{where} broke off the TLS handshake: {reason(e)}") from None
            raise
