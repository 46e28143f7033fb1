"""A `requests` adapter with pooled, guarded connections that keep to a deadline.

REST calls `HubAdapter.exchange()` directly: a `requests` session would spend time on cookies, redirects and the
environment. Code that needs a session can mount the adapter in one.
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
from hub.transports.http.response import RawResponse
from hub.transports.http.urls import Base, parse_base


class HttpResponse(Response):
    """A `requests.Response` whose content has been read.

    Attributes:
        cut: the content was longer than the limit.
        names: the headers as a plain dictionary, names in lower case.
    """

    def __init__(self, raw: RawResponse) -> None:
        # Not Response.__init__, which creates a cookie jar and more for each response.
        self._content = raw.body
        self._content_consumed = True
        self._next = None
        self.status_code = raw.status
        self.raw = None
        self.reason = ""
        self.encoding = None
        self.history = []
        self.cut = raw.cut
        self.names = raw.headers

    @property
    def headers(self) -> CaseInsensitiveDict[str]:  # type: ignore[override]
        """The headers, case-insensitive. Built on each access."""
        return CaseInsensitiveDict(self.names)


class HubAdapter(BaseAdapter):
    """Sends each prepared request once, over pooled connections. Redirects are not followed.

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
    ) -> HttpResponse:
        """Send one request. `timeout` is a `Deadline`, or seconds for the whole exchange.

        Raises:
            TransportError, InvalidPayloadError: as `exchange`.
        """
        deadline = timeout if isinstance(timeout, Deadline) else Deadline(float(timeout or 30.0))
        base = parse_base(request.url or "")
        body = request.body.encode() if isinstance(request.body, str) else request.body
        headers = {k: v for k, v in request.headers.items() if k.lower() not in ("content-length", "connection")}
        response = self.exchange(request.method or "GET", base, request.path_url, headers, body, deadline)
        response.request, response.url = request, request.url or ""
        return response

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
    ) -> HttpResponse:
        """Send one request that is already parsed.

        Args:
            limit: most bytes of the body that are read; `HUB_RESPONSE_LIMIT` when not given.

        Raises:
            ConnectError, TimedOutError, EgressRefusedError: no complete response was received.
            InvalidPayloadError: a header is not allowed.
            NotSentError: a TLS file of the service is unusable, or this machine is out of sockets.
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
            connection = self._pool.take(base, deadline, via)
        except ConfigError as e:
            raise NotSentError(str(e), retry_after=CONFIG_RECHECK) from None
        try:
            where = f"{base.host}:{base.port}"
            raw = http_message.exchange(connection, method, head, body, deadline, limit, where)
        except BaseException:
            connection.close()
            raise
        if raw.reusable:
            self._pool.give_back(base.origin, connection)
        else:
            connection.close()
        if "content-encoding" in raw.headers:
            _decompress(raw, limit)
        return HttpResponse(raw)

    def sweep(self) -> None:
        """Close connections that have been idle for too long."""
        self._pool.sweep()

    def close(self) -> None:
        """Close idle connections; those in use are closed when they are returned."""
        self._pool.close()

    def _proxy_of(self, base: Base) -> str | None:
        url = f"{base.scheme}://{base.authority}/"
        return select_proxy(url, get_environ_proxies(url, no_proxy=None)) or None


def _decompress(raw: RawResponse, limit: int) -> None:
    """Decompress up to `limit` bytes. The hub requests no compression, but some servers compress anyway."""
    coding = raw.headers["content-encoding"].strip().lower()
    if coding not in ("gzip", "x-gzip", "deflate"):
        return
    for bits in (47, -15):  # gzip or zlib by the header; some servers send raw deflate
        unpacker = zlib.decompressobj(bits)
        try:
            body = unpacker.decompress(raw.body, limit + 1)
        except zlib.error:
            continue
        raw.cut = raw.cut or len(body) > limit
        raw.body = body[:limit]
        return
