"""Stage 9: what HTTP services have in common: a `requests` adapter with pooled, guarded, deadline-true connections.

`HubAdapter` is mounted in no session on the hot path: REST builds a `PreparedRequest` by hand and calls `send()`,
which saves the session's cookie, redirect and environment work. SOAP may mount it in a session of its own.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from requests import PreparedRequest, Response
from requests.adapters import BaseAdapter
from requests.structures import CaseInsensitiveDict
from requests.utils import get_environ_proxies, select_proxy
from urllib3.util.wait import wait_for_read

from hub.errors import ConfigError, ConnectError, InvalidPayloadError, TimedOutError
from hub.models import Service
from hub.settings import Settings
from hub.transports import egress, http_wire, proxy, tls
from hub.transports.base import Deadline
from hub.transports.urls import Base, parse_base

IDLE = 4.0  # seconds after which an idle connection is not used again: many servers close theirs after 5
MOST_IDLE = 256  # connections kept per origin; any number may be in use

Origin = tuple[str, str, int]


class Answer(Response):
    """A `requests.Response` with its content already read.

    Attributes:
        cut: there was more content than the limit.
        names: the headers as a plain dictionary, names in lower case.
    """

    def __init__(self, incoming: http_wire.Incoming) -> None:
        # Not Response.__init__, which makes a cookie jar and more for every answer.
        self._content = incoming.body
        self._content_consumed = True
        self._next = None
        self.status_code = incoming.status
        self.headers = CaseInsensitiveDict(incoming.headers)
        self.raw = None
        self.reason = ""
        self.encoding = None
        self.history = []
        self.cut = incoming.cut
        self.names = incoming.headers


class Pool:
    """The idle connections of one service, by origin. Any number of threads."""

    def __init__(self, settings: Settings, options: dict[str, Any]) -> None:
        self._settings = settings
        self._files = options.get("ca_file"), options.get("client_cert"), options.get("client_key")
        self._idle: dict[Origin, deque[tuple[socket.socket, float]]] = {}
        self._closed = False

    def take(self, base: Base, deadline: Deadline, via: str | None) -> socket.socket:
        """An idle connection that still stands, else a new one."""
        idle = self._idle.get(base.origin)
        while idle:
            try:
                sock, since = idle.pop()
            except IndexError:
                break
            if time.monotonic() - since < IDLE and not wait_for_read(sock, timeout=0):
                return sock
            sock.close()
        return self._open(base, deadline, via)

    def give_back(self, origin: Origin, sock: socket.socket) -> None:
        """Keep a connection for the next request."""
        idle = self._idle.get(origin)
        if idle is None:
            idle = self._idle.setdefault(origin, deque())
        if self._closed or len(idle) >= MOST_IDLE:
            sock.close()
        else:
            idle.append((sock, time.monotonic()))
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
        context = tls.context(*self._files) if base.scheme == "https" else None
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
                raise ConnectError(f"no TLS with {where}: {http_wire.reason(e)}") from None
            if isinstance(e, OSError):
                raise ConnectError(f"{where} broke off the TLS handshake: {http_wire.reason(e)}") from None
            raise


class HubAdapter(BaseAdapter):
    """Sends prepared requests, once each, over pooled connections. Redirects are never followed.

    Args:
        options: a service's `options`; ca_file, client_cert and client_key are used.
    """

    def __init__(self, settings: Settings, options: dict[str, Any] | None = None) -> None:
        super().__init__()
        self._settings = settings
        self._pool = Pool(settings, options or {})

    def send(  # type: ignore[override]
        self,
        request: PreparedRequest,
        stream: bool = False,
        timeout: Deadline | float | None = None,
        verify: Any = True,
        cert: Any = None,
        proxies: Any = None,
    ) -> Answer:
        """One exchange. `timeout` is the `Deadline`, or seconds for everything together.

        Raises:
            TransportError, InvalidPayloadError: as `exchange`.
        """
        deadline = timeout if isinstance(timeout, Deadline) else Deadline(float(timeout or 30.0))
        base = parse_base(request.url or "")
        body = request.body.encode() if isinstance(request.body, str) else request.body
        headers = {k: v for k, v in request.headers.items() if k.lower() not in ("content-length", "connection")}
        answer = self.exchange(request.method or "GET", base, request.path_url, headers, body, deadline)
        answer.request, answer.url = request, request.url or ""
        return answer

    def exchange(
        self, method: str, base: Base, target: str, headers: dict[str, str], body: bytes | None, deadline: Deadline
    ) -> Answer:
        """One exchange with everything taken apart already.

        Raises:
            ConnectError, TimedOutError, EgressRefusedError: no complete answer.
            InvalidPayloadError: a header is not allowed, or a TLS file of the service is not usable.
            UnavailableError: this machine is out of sockets.
        """
        via = None
        if self._settings.egress_proxy:
            via = self._proxy_of(base)
            if via and base.scheme == "http":
                target = f"http://{base.authority}{target}"
                headers = {**headers, **proxy.credentials(via)}
        head = http_wire.head(method, target, base.authority, headers, body)
        try:
            sock = self._pool.take(base, deadline, via)
        except ConfigError as e:
            raise InvalidPayloadError(str(e)) from None
        try:
            where = f"{base.host}:{base.port}"
            incoming = http_wire.exchange(sock, method, head, body, deadline, self._settings.response_limit, where)
        except BaseException:
            sock.close()
            raise
        if incoming.reusable:
            self._pool.give_back(base.origin, sock)
        else:
            sock.close()
        if "content-encoding" in incoming.headers:
            _decompress(incoming, self._settings.response_limit)
        return Answer(incoming)

    def sweep(self) -> None:
        """Close connections that have been idle for too long."""
        self._pool.sweep()

    def close(self) -> None:
        """Close every idle connection; those in use close when they come back."""
        self._pool.close()

    def _proxy_of(self, base: Base) -> str | None:
        url = f"{base.scheme}://{base.authority}/"
        return select_proxy(url, get_environ_proxies(url, no_proxy=None)) or None


def _decompress(incoming: http_wire.Incoming, limit: int) -> None:
    """The hub asks for none, but some servers compress anyway. Bounded: a bomb is cut at the limit."""
    coding = incoming.headers["content-encoding"].strip().lower()
    if coding not in ("gzip", "x-gzip", "deflate"):
        return
    for bits in (47, -15):  # gzip or zlib by its header; some servers send deflate without one
        unpacker = zlib.decompressobj(bits)
        try:
            body = unpacker.decompress(incoming.body, limit + 1)
        except zlib.error:
            continue
        incoming.cut = incoming.cut or len(body) > limit
        incoming.body = body[:limit]
        return


T = TypeVar("T")


class PerService(Generic[T]):
    """What a transport keeps for each service; made anew when the service has changed.

    Args:
        make: builds it for a service; close: what to do with one that is no longer used;
        sweep: called for each of them every few seconds, by a thread that happens to come along.
    """

    def __init__(self, make: Callable[[Service], T], close: Callable[[T], None], sweep: Callable[[T], None]) -> None:
        self._make, self._close, self._sweep = make, close, sweep
        self._kept: dict[int, tuple[Service, T]] = {}
        self._lock = threading.Lock()
        self._next_sweep = time.monotonic() + IDLE

    def get(self, service: Service) -> T:
        """The one for this version of the service."""
        if time.monotonic() > self._next_sweep:
            self._next_sweep = time.monotonic() + IDLE
            for _, thing in list(self._kept.values()):
                self._sweep(thing)
        kept = self._kept.get(service.id)
        if kept is not None and kept[0] is service:
            return kept[1]
        with self._lock:
            kept = self._kept.get(service.id)
            if kept is not None and kept[0] == service:
                thing = kept[1]
            else:
                thing = self._make(service)
                if kept is not None:
                    self._close(kept[1])
            self._kept[service.id] = (service, thing)
            return thing

    def close(self) -> None:
        """Let go of all of them."""
        with self._lock:
            for _, thing in self._kept.values():
                self._close(thing)
            self._kept.clear()
