"""REST over HTTP/1.1: sends once, over pooled connections; a response other than 2xx is an error.

Every request of a task has the same `Idempotency-Key`, so that a service can recognise a repeat.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from functools import lru_cache, partial
from http import HTTPStatus
from urllib.parse import quote, urlsplit

from hub import __version__
from hub.domain.text import MASK, bounded
from hub.errors import ExpiredTokenError, InvalidPayloadError, RejectedError
from hub.models import Request, Response, Service
from hub.settings import Settings
from hub.transports.auth import authorization
from hub.transports.base import Deadline
from hub.transports.egress import networks
from hub.transports.http.adapter import HttpResponse, HubAdapter
from hub.transports.http.text import decode, retry_after
from hub.transports.http.urls import parse_base, target
from hub.transports.masking import forms
from hub.transports.oauth import ClientCredentials
from hub.transports.per_service import PerService
from hub.transports.signing import signer

METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"})
_CACHED_ENDPOINT = 512  # characters; bounds the bytes of a service's cache, not only its entries
USER_AGENT = f"integration-hub/{__version__}"


class RestTransport:
    """Implements `base.Transport` for services of type `rest`."""

    def __init__(self, settings: Settings) -> None:
        networks(settings.egress_allow)  # an invalid network is reported at the start
        self._settings = settings
        self._clients: PerService[Client] = PerService(
            lambda service: Client(service, settings), Client.close, Client.sweep
        )

    def send(self, service: Service, request: Request, deadline: Deadline) -> Response:
        """Send once; see `base.Transport`.

        Raises:
            RejectedError: a response other than 2xx, with its status, body and `Retry-After`.
            ConnectError, TimedOutError, EgressRefusedError: no complete response was received.
            InvalidPayloadError: no request can be built: endpoint, header or secret.
            NotSentError: a TLS file is unusable, or this machine is out of sockets.
        """
        client = self._clients.get(service)
        response = client.send(request, deadline)
        body = client.text(response)
        if 200 <= response.status_code < 300:
            return Response(response.status_code, body, response.names)
        raise RejectedError(
            f"HTTP {response.status_code}{_phrase(response.status_code)}",
            status=response.status_code,
            response_body=body,
            retry_after=retry_after(response.names.get("retry-after"), request.at, response.names.get("date")),
        )

    def check(self, service: Service, deadline: Deadline) -> str:
        """Send HEAD to the base URL. Any response is a success except one that refuses the credentials."""
        response = self._clients.get(service).send(Request(method="HEAD"), deadline)
        status = response.status_code
        if status in (401, 403):
            what = "refuses the credentials" if service.auth_type != "none" else "requires credentials"
            raise RejectedError(f"reached, but it {what}: HTTP {status}", status=status)
        if 300 <= status < 400 and (location := response.names.get("location")):
            return f"reached: HTTP {status}, redirects to {_redirect_target(location)} (redirects are not followed)"
        return f"reached: HTTP {status}{_phrase(status)}"

    def close(self) -> None:
        """Close every connection."""
        self._clients.close()


class Client:
    """The parts of a service's requests that do not change between requests."""

    def __init__(self, service: Service, settings: Settings) -> None:
        options, secrets = service.options, service.secrets
        self._settings = settings
        self._base = parse_base(service.base_url)
        self._target = lru_cache(256)(partial(target, self._base))
        self._adapter = HubAdapter(settings, options)
        self._signer = signer(secrets)
        self._oauth: ClientCredentials | None = None
        headers = {"User-Agent": USER_AGENT, "Accept": "application/json, */*;q=0.5", "Accept-Encoding": "identity"}
        auth = authorization(service, self._base.user)
        own = {k: str(v) for k, v in (options.get("headers") or {}).items()}
        own |= {k.removeprefix("header:"): v for k, v in secrets.items() if k.startswith("header:")}
        self._headers = _merged(headers, auth, own)
        self._bodied = _merged(headers, auth, {"Content-Type": "application/json"}, own)
        self._secrets = tuple(sorted(forms(service), key=len, reverse=True))
        if service.auth_type == "oauth2":
            secret = secrets.get("client_secret", "")
            self._oauth = ClientCredentials(options.get("oauth2") or {}, secret, self._post)

    def send(self, request: Request, deadline: Deadline) -> HttpResponse:
        """Send one request.

        Raises:
            ExpiredTokenError: the service no longer accepts the OAuth token; the next send fetches another one.
        """
        method = request.method.upper()
        if method not in METHODS:
            raise InvalidPayloadError(f"method {request.method[:20]!r} is not one of {', '.join(sorted(METHODS))}")
        headers, body = self._request_headers(request), None
        if request.body is not None:
            try:
                body = request.body.encode()
            except UnicodeEncodeError:
                raise InvalidPayloadError("the body contains half a surrogate pair") from None
        find = self._target if len(request.endpoint) <= _CACHED_ENDPOINT else partial(target, self._base)
        path = find(request.endpoint)
        if self._oauth is None:
            return self._adapter.exchange(method, self._base, path, headers, body, deadline)
        token = self._oauth.token(deadline)
        headers["Authorization"] = f"Bearer {token}"
        response = self._adapter.exchange(method, self._base, path, headers, body, deadline)
        if response.status_code != 401:
            self._oauth.accepted(token)
        elif self._oauth.refused(token):
            raise ExpiredTokenError(
                "HTTP 401: the token is no longer valid", status=401, response_body=self.text(response)
            )
        return response

    def text(self, response: HttpResponse) -> str | None:
        """The body as text that can be stored and shown: bounded, secrets masked."""
        if not response.content:
            return None
        text = decode(response.content, response.names.get("content-type", ""))
        token = self._oauth.current if self._oauth else None
        for secret in (*self._secrets, token) if token else self._secrets:
            if secret in text:
                text = text.replace(secret, MASK)
        if response.cut:
            limit = self._settings.response_limit
            text += f"… [longer than {limit} bytes or in too many chunks, the rest was not read]"
        return bounded(text, self._settings.body_limit)

    def sweep(self) -> None:
        """Close connections that have been idle for too long."""
        self._adapter.sweep()

    def close(self) -> None:
        """Close every connection."""
        self._adapter.close()

    def _request_headers(self, request: Request) -> dict[str, str]:
        headers = (self._headers if request.body is None else self._bodied).copy()
        if request.idempotency_key:
            headers["Idempotency-Key"] = request.idempotency_key
        if request.event_name:
            headers["X-Hub-Event"] = _one_line(request.event_name)
        if request.task_id is not None:
            headers["X-Hub-Task"] = str(request.task_id)
        if request.headers:
            headers = _merged(headers, request.headers)
        if self._signer is not None:
            key = request.idempotency_key or f"msg_{uuid.uuid4().hex}"
            headers |= self._signer.headers(key, request.body or "", request.at)
        return headers

    def _post(self, url: str, headers: dict[str, str], body: bytes, deadline: Deadline) -> tuple[int, bytes]:
        base = parse_base(url)
        headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **headers}
        response = self._adapter.exchange("POST", base, target(base, ""), headers, body, deadline)
        return response.status_code, response.content


def _merged(*parts: Mapping[str, str]) -> dict[str, str]:
    """Merge headers. Names are case-insensitive; the last one wins."""
    merged: dict[str, tuple[str, str]] = {}
    for part in parts:
        for name, value in part.items():
            merged[name.lower()] = name, value
    return dict(merged.values())


def _one_line(text: str) -> str:
    return text if text.isascii() and text.isprintable() else quote(text, safe="\\/ .:*", errors="replace")


def _phrase(status: int) -> str:
    try:
        return f" {HTTPStatus(status).phrase}"
    except ValueError:
        return ""


def _redirect_target(location: str) -> str:
    try:
        parts = urlsplit(location)
        return f"{parts.scheme}://{parts.hostname}{parts.path}"[:200] if parts.hostname else parts.path[:200]
    except ValueError:
        return "another place"
