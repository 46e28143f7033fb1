"""`POST /webhook/{service}`: authenticates a call by token or signature, and passes it to `hub.inbound.webhooks`.

An unauthenticated caller learns nothing: an unknown service is refused like one with a wrong token or signature, after
the same steps.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NoReturn

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from hub.app.lifecycle import Hub
from hub.errors import NotFoundError
from hub.inbound.webhooks import WebhookCall, WebhookReceiver
from hub.models import Service, ServiceType
from hub.transports.signing import verify
from hub.web import bodies
from hub.web.api import parameters, routers, shapes
from hub.web.authentication import address, bearer, too_often
from hub.web.authorization import Access, needs
from hub.web.problems import Problem
from hub.web.rate_limits import ConcurrencyLimiter, RateLimiter

_FAILURES, _FAILURE_RATE = 20, 0.5  # failed authentications of one address at once, and per second
_GUESSES, _GUESS_RATE = 100, 1.0  # the same, for all services together
_SIGNED_BURST, _SIGNED_RATE = 50, 5.0  # signed calls that are checked for a blocked address at once, and per second
_GUESSED = "too many calls with a wrong token or signature from this address"
_NO_SECRET = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
_AT_ONCE = 100  # calls in progress


@dataclass(frozen=True, slots=True)
class _Call:
    """The parts of a request that authentication needs."""

    token: str | None
    headers: dict[str, str]
    address: str
    kind: str

    @property
    def signed(self) -> bool:
        """Whether the call has a signature, which is verified with the body."""
        return "webhook-signature" in self.headers


def make_webhooks(hub: Hub) -> APIRouter:
    """The endpoint for services."""
    router = APIRouter(tags=["webhooks"])
    endpoint = _Endpoint(hub)
    callers = ConcurrencyLimiter(_AT_ONCE, _AT_ONCE // 2)
    unverified = ConcurrencyLimiter(_AT_ONCE)  # a signature is verified after the body is read

    @router.post(
        "/webhook/{service}",
        status_code=202,
        summary="A service calls",
        response_model=shapes.Accepted,
        responses=routers.problems(408, 413, 415) | {202: {"description": "It is stored."}},
        openapi_extra={
            "security": [{"inbound": []}, {"apikey": []}, {"signature": []}],
            "requestBody": _BODY,
            "parameters": _HEADERS,
        },
    )
    @needs(Access.SERVICE)
    async def receive(service: parameters.ServiceName, request: Request) -> Response:
        """Accepts any JSON. The caller authenticates by the service's inbound token (bearer or `X-API-Key`) or by a
        Standard Webhooks signature with its inbound signing secret, not older than five minutes. The call becomes the
        event `hub.webhook_received`.
        """
        token = bearer(request) or request.headers.get("x-api-key")
        call = _Call(token, dict(request.headers), address(request), bodies.media_type(request))
        known = await run_in_threadpool(endpoint.find, service, call)
        body = await bodies.read(request, hub.settings.event_limit)
        limiter, key = (callers, known.id) if _token_fits(known, call.token) else (unverified, call.address)
        with limiter.acquire(key):  # after the body is read: a slow sender takes no slot
            return await run_in_threadpool(endpoint.receive, known, call, body)

    return router


class _Endpoint:
    """Authenticates calls and limits their rates."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._receiver = WebhookReceiver(
            hub.db,
            hub.intake,
            hub.log,
            hub.hooks,
            depth_of=hub.views.tasks.depth_of,
            max_depth=hub.settings.max_depth,
        )
        self._calls = RateLimiter(hub.settings.token_rate, hub.settings.token_rate)
        self._failures = RateLimiter(_FAILURE_RATE, _FAILURES)  # by service and address
        self._guesses = RateLimiter(_GUESS_RATE, _GUESSES)  # by address
        self._signed = RateLimiter(_SIGNED_RATE, _SIGNED_BURST)  # by address: signed calls of a blocked one

    def find(self, name: str, call: _Call) -> Service:
        """Find the service and do each check that needs no body.

        Returns a service without secrets and with id 0 when there is none of that name but the body must be read
        before the call is refused.

        Raises:
            Problem: 401 wrong token or no such service, 429 too many of those, 503 the secrets cannot be decrypted.
        """
        try:
            service = self._hub.configuration.service(name)
        except NotFoundError:
            service = Service(0, name, ServiceType.REST, "")
        if service.secrets_unreadable:  # the call cannot be authenticated now; the caller may retry
            raise Problem(503, "the hub cannot read the secrets of this service", headers={"Retry-After": "60"})
        if _token_fits(service, call.token):
            self._check(service, call)
        elif not call.signed:
            self._refuse(service, call)
        elif self._blocked(service, call) and (wait := self._signed.take(call.address)):
            raise too_often(_GUESSED, wait)
        return service

    def _blocked(self, service: Service, call: _Call) -> bool:
        """Whether the address is blocked for failed authentications. A valid signature is accepted nevertheless."""
        return max(self._guesses.wait(call.address), self._failures.wait((service.name, call.address))) > 0

    def receive(self, service: Service, call: _Call, body: bytes) -> Response:
        """Store the call and its event; the response has the event's id."""
        if not _token_fits(service, call.token):
            if not _signature_fits(service, call, body, self._hub.clock.now()):
                self._refuse(service, call)
            if self._blocked(service, call):
                self._signed.give(call.address)  # a valid signature does not use up the limit
            self._check(service, call)
        value = bodies.parse(body)
        received = WebhookCall(_message_id(call), call.headers, body.decode(), value)
        accepted = self._receiver.receive(service, received)
        return JSONResponse({"id": accepted.id, "duplicate": accepted.duplicate, "tasks": list(accepted.tasks)}, 202)

    def _refuse(self, service: Service, call: _Call) -> NoReturn:
        wait = self._guesses.take(call.address) or self._failures.take((service.name, call.address))
        if wait:
            raise too_often(_GUESSED, wait)
        raise Problem(
            401,
            "no such service, or its inbound token or signature is missing or wrong",
            headers={"WWW-Authenticate": 'Bearer realm="webhook"'},
        )

    def _check(self, service: Service, call: _Call) -> None:
        if not service.enabled:
            raise Problem(403, f"service {service.name!r} is disabled")
        if not bodies.is_json(call.kind):
            raise Problem(415, "must be application/json", field="Content-Type")
        if wait := self._calls.take(service.id):
            raise too_often("this service calls too often", wait)


def _token_fits(service: Service, given: str | None) -> bool:
    wanted = service.secrets.get("inbound_token")
    same = hmac.compare_digest(_digest(given or ""), _digest(wanted or ""))  # also without a token, in the same time
    return bool(wanted and given) and same


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def _signature_fits(service: Service, call: _Call, body: bytes, now: datetime) -> bool:
    """Standard Webhooks: id, time (five minutes) and body are signed."""
    secret = service.secrets.get("inbound_signing_secret")
    try:
        # Computed also without a secret: the time reveals nothing about the service.
        return verify(secret or _NO_SECRET, call.headers, body.decode(), now) and secret is not None
    except UnicodeDecodeError:
        return False


def _message_id(call: _Call) -> str | None:
    """The id of the call, which identifies repeats; None: it has none."""
    given = call.headers.get("webhook-id") or call.headers.get("idempotency-key")
    if given is not None and (not 1 <= len(given) <= 255 or not given.isprintable()):
        raise Problem(422, "must have 1 to 255 printable characters", field="webhook-id")
    return given


_HEADERS: list[dict[str, Any]] = [
    {"name": name, "in": "header", "required": False, "description": text, "schema": {"type": "string"}}
    for name, text in (
        ("webhook-id", "The call's id: a second call with it changes nothing."),
        ("webhook-timestamp", "Seconds since 1970; at most five minutes from now."),
        ("webhook-signature", "`v1,` and the base64 of the HMAC-SHA256."),
        ("X-Hub-Task", "The `X-Hub-Task` of the hub's request that this call responds to."),
    )
]
_BODY = {"required": True, "content": {"application/json": {"schema": {}}}}
