"""A `requests` adapter with pooled, guarded connections that keep to a deadline.

No session is needed on the hot path: REST calls `HubAdapter.exchange()`, which saves the session's work on cookies,
redirects and the environment. Libraries that want a `requests` session (SOAP's) mount the adapter in one.
"""

from __future__ import annotations

import zlib
from typing import Any

from requests import PreparedRequest, Response
from requests.adapters import BaseAdapter
from requests.structures import CaseInsensitiveDict
from requests.utils import get_environ_proxies, select_proxy

from hub.errors import ConfigError, NotSentError
from hub.settings import Settings
from hub.transports.base import CONFIG_RECHECK, Deadline
from hub.transports.http import message as http_message
from hub.transports.http import proxy
from hub.transports.http.pool import Pool
from hub.transports.http.response import Incoming
from hub.transports.http.urls import Base, parse_base


class Answer(Response):
    """A `requests.Response` with its content already read.

    Attributes:
        cut: there was more content than the limit.
        names: the headers as a plain dictionary, names in lower case.
    """

    def __init__(self, incoming: Incoming) -> None:
        # Not Response.__init__, which makes a cookie jar and more for every answer.
        self._content = incoming.body
        self._content_consumed = True
        self._next = None
        self.status_code = incoming.status
        self.raw = None
        self.reason = ""
        self.encoding = None
        self.history = []
        self.cut = incoming.cut
        self.names = incoming.headers

    @property
    def headers(self) -> CaseInsensitiveDict[str]:  # type: ignore[override]
        """As `requests` gives them; made only when asked for."""
        return CaseInsensitiveDict(self.names)


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
        self,
        method: str,
        base: Base,
        target: str,
        headers: dict[str, str],
        body: bytes | None,
        deadline: Deadline,
        *,
        limit: int | None = None,
    ) -> Answer:
        """One exchange with everything taken apart already.

        Args:
            limit: most bytes of the body that are read; `HUB_RESPONSE_LIMIT` when not given.

        Raises:
            ConnectError, TimedOutError, EgressRefusedError: no complete answer.
            InvalidPayloadError: a header is not allowed.
            NotSentError: a TLS file of the service is not usable, or this machine is out of sockets.
        """
        limit = self._settings.response_limit if limit is None else limit
        via = None
        if self._settings.egress_proxy:
            via = self._proxy_of(base)
            if via and base.scheme == "http":
                target = f"http://{base.authority}{target}"
                headers = {**headers, **proxy.credentials(via)}
        head = http_message.head(method, target, base.authority, headers, body)
        try:
            wire = self._pool.take(base, deadline, via)
        except ConfigError as e:
            raise NotSentError(str(e), retry_after=CONFIG_RECHECK) from None
        try:
            where = f"{base.host}:{base.port}"
            incoming = http_message.exchange(wire, method, head, body, deadline, limit, where)
        except BaseException:
            wire.close()
            raise
        if incoming.reusable:
            self._pool.give_back(base.origin, wire)
        else:
            wire.close()
        if "content-encoding" in incoming.headers:
            _decompress(incoming, limit)
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


def _decompress(incoming: Incoming, limit: int) -> None:
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
