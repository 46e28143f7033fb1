"""Network access of zeep: fetches WSDLs and schemas, and sends calls.

zeep's own transport opens files and any address that a WSDL names. This one fetches only http and https URLs, over
connections that the egress guard checks, within the deadline of the call. Credentials are sent only to the origin of
the WSDL (scheme, host and port) and to `credentials_origin`, and not to http when the WSDL is at an https URL.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from hub import __version__
from hub.domain.text import MASK, bounded
from hub.errors import ExpiredTokenError, FaultError, RejectedError
from hub.models import Request, Service
from hub.settings import Settings
from hub.transports.auth import authorization
from hub.transports.base import Deadline
from hub.transports.http.adapter import HttpResponse, HubAdapter
from hub.transports.http.text import decode, retry_after
from hub.transports.http.urls import Base, parse_base, target
from hub.transports.masking import without_secrets
from hub.transports.oauth import ClientCredentials
from hub.transports.signing import signer

USER_AGENT = f"integration-hub/{__version__}"
_SOAP_STATUS = (200, 202, 400, 500)  # the statuses of SOAP 1.1 and 1.2 responses; others are HTTP errors


@dataclass(slots=True)
class Call:
    """A call in progress in a thread. `request` is None while only the WSDL is fetched."""

    service: Service
    deadline: Deadline
    request: Request | None
    sent: bool = False
    status: int | None = None
    response: str | None = None


class ZeepTransport:
    """zeep's transport for one version of a service. Not a subclass, so that zeep is imported only when it is used.

    Thread-safe: each thread sets its call by `on()`.
    """

    def __init__(self, service: Service, settings: Settings) -> None:
        options, secrets = service.options, service.secrets
        self._settings = settings
        self._here = threading.local()
        self._adapter = HubAdapter(settings, options)
        self._base = parse_base(service.base_url)
        self._trusted = {self._base.origin}
        if origin := options.get("credentials_origin"):
            self._trusted.add(parse_base(origin).origin)
        if self._base.scheme == "https":
            self._trusted = {origin for origin in self._trusted if origin[0] == "https"}
        self._secret = authorization(service, self._base.user)
        self._secret |= {k.removeprefix("header:"): v for k, v in secrets.items() if k.startswith("header:")}
        self._headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
        self._headers |= {k: str(v) for k, v in (options.get("headers") or {}).items()}
        self._signer = signer(secrets)
        self._oauth: ClientCredentials | None = None
        if service.auth_type == "oauth2":
            secret = secrets.get("client_secret", "")
            self._oauth = ClientCredentials(options.get("oauth2") or {}, secret, self._token_post)

    def sweep(self) -> None:
        """Close connections that have been idle for too long."""
        self._adapter.sweep()

    def close(self) -> None:
        """Close every connection."""
        self._adapter.close()

    @contextmanager
    def on(self, call: Call) -> Iterator[None]:
        """Assign what zeep requests in this block to `call`."""
        self._here.call = call
        try:
            yield
        finally:
            self._here.call = None

    def load(self, url: str) -> bytes:
        """Fetch a WSDL or schema of at most `HUB_WSDL_LIMIT` bytes.

        Raises:
            FaultError: not http or https, or too large.
            RejectedError: a status other than 200.
        """
        call: Call = self._here.call
        if not url.lower().startswith(("http://", "https://")):
            raise FaultError(f"the WSDL names {url[:200]!r}: only http and https are fetched")
        limit = self._settings.wsdl_limit
        response = self._exchange(call, "GET", url, {}, None, limit)
        if response.status_code != 200:
            raise self._rejected(call, response, url)
        if response.cut:
            raise FaultError(f"the WSDL or a schema it imports has more than {limit} bytes (HUB_WSDL_LIMIT)")
        return response.content

    def post_xml(self, address: str, envelope: Any, headers: dict[str, str]) -> HttpResponse:
        """Send an envelope; raises `RejectedError` for a status that SOAP does not use."""
        from lxml import etree

        call: Call = self._here.call
        if call.service.auth_type == "wsse" and parse_base(address).origin in self._trusted:
            envelope = _with_username_token(envelope, call)
        body = etree.tostring(envelope, encoding="utf-8")
        extra = dict(headers)
        if call.request is not None:
            extra |= call.request.headers
            if call.request.idempotency_key:
                extra["Idempotency-Key"] = call.request.idempotency_key
            if call.request.task_id is not None:
                extra["X-Hub-Task"] = str(call.request.task_id)
            if self._signer is not None:
                key = call.request.idempotency_key or f"msg_{uuid4().hex}"
                extra |= self._signer.headers(key, body.decode(), call.request.at)
        response = self._exchange(call, "POST", address, extra, body, self._settings.response_limit)
        if response.cut:
            limit = self._settings.response_limit
            raise FaultError(f"the response has more than {limit} bytes (HUB_RESPONSE_LIMIT) or too many chunks")
        call.status = response.status_code
        call.response = self._text(call, response)
        status = response.status_code
        if status not in _SOAP_STATUS or (status >= 300 and b"Fault" not in response.content):
            raise self._rejected(call, response, address)
        return response

    def _exchange(
        self, call: Call, method: str, url: str, extra: dict[str, str], body: bytes | None, limit: int
    ) -> HttpResponse:
        base = parse_base(url)
        headers, token = {**self._headers, **extra}, None
        if base.origin in self._trusted:
            headers |= self._secret
            if self._oauth is not None:
                token = self._oauth.token(call.deadline)
                headers["Authorization"] = f"Bearer {token}"
        call.sent = method == "POST"
        response = self._adapter.exchange(method, base, target(base, ""), headers, body, call.deadline, limit=limit)
        if self._oauth is not None and token is not None:
            if response.status_code != 401:
                self._oauth.accepted(token)
            elif self._oauth.refused(token):
                text = "HTTP 401: the token is no longer valid"
                raise ExpiredTokenError(text, status=401, response_body=self._text(call, response))
        return response

    def _rejected(self, call: Call, response: HttpResponse, url: str) -> RejectedError:
        base = parse_base(url)
        what = "" if call.sent else " for the WSDL" if url == call.service.base_url else " for what the WSDL imports"
        text = f"HTTP {response.status_code}{what}"
        if response.status_code in (401, 403) and base.origin not in self._trusted:
            text += f" from {_name(base)}; credentials go to {_name(self._base)} only (credentials_origin adds another)"
        return RejectedError(
            text,
            status=response.status_code,
            response_body=self._text(call, response),
            retry_after=retry_after(
                response.names.get("retry-after"), call.request.at if call.request else None, response.names.get("date")
            ),
        )

    def _text(self, call: Call, response: HttpResponse) -> str | None:
        text = without_secrets(decode(response.content, response.names.get("content-type", "")), call.service)
        if self._oauth and self._oauth.current:
            text = text.replace(self._oauth.current, MASK)
        return bounded(text, self._settings.body_limit)

    def _token_post(self, url: str, headers: dict[str, str], body: bytes, deadline: Deadline) -> tuple[int, bytes]:
        base: Base = parse_base(url)
        headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **headers}
        response = self._adapter.exchange("POST", base, target(base, ""), headers, body, deadline)
        return response.status_code, response.content


def _name(base: Base) -> str:
    return f"{base.scheme}://{base.authority}"


def _with_username_token(envelope: Any, call: Call) -> Any:
    """Add a WS-Security UsernameToken: the password as text, or as a digest with nonce and time."""
    from zeep.wsse.username import UsernameToken

    options, password = call.service.options, call.service.secrets.get("password", "")
    digest = options.get("password_type") == "digest"
    at = call.request.at if call.request else None
    token = UsernameToken(  # type: ignore[no-untyped-call]
        options.get("username") or "", password, use_digest=digest, created=at, zulu_timestamp=True
    )
    envelope, _ = token.apply(envelope, {})  # type: ignore[no-untyped-call]
    return envelope
