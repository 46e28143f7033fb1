"""`POST /webhook/{service}`: a service calls. Proved by its inbound token or signature, stored, made an event.

A caller without a proof learns nothing: a service that does not exist is refused as one whose proof is wrong, after
the same steps.

Log row and event are one transaction. A call that comes again with the same `webhook-id` (or `Idempotency-Key`)
within 24 h changes nothing. A chain of events that goes round in circles ends at `HUB_MAX_DEPTH`: the caller
says by `X-Hub-Task` which request of the hub it answers.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NoReturn

import structlog
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from hub.app.lifecycle import Hub
from hub.domain.paths import mask_body
from hub.errors import NotFoundError
from hub.models import (
    JSON,
    Accepted,
    Delivery,
    Direction,
    Event,
    Service,
    ServiceType,
)
from hub.store.intake import once
from hub.transports.masking import hidden, without_secrets
from hub.transports.signing import verify
from hub.web import bodies
from hub.web.api import parameters, routers, shapes
from hub.web.authentication import address, bearer, too_often
from hub.web.authorization import Access, needs
from hub.web.problems import Problem
from hub.web.rate_limits import ConcurrencyLimiter, RateLimiter

log = structlog.get_logger("hub.web")
WEBHOOK_RECEIVED = "hub.webhook_received"
_FAILURES, _FAILURE_RATE = 20, 0.5  # wrong proofs from one address at once, and per second
_GUESSES, _GUESS_RATE = 100, 1.0  # the same, whatever services they name
_SIGNED_BURST, _SIGNED_RATE = 50, 5.0  # signed calls that are checked for a blocked address at once, and per second
_GUESSED = "too many calls with a wrong proof from this address"
_NO_SECRET = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
_AT_ONCE = 100  # calls under way
_TASK = re.compile(r"[0-9]{1,18}", re.ASCII)
_SECRET_HEADER = re.compile(r"auth|token|secret|key|cookie|signature|password|credential|session", re.IGNORECASE)
_KEPT_ANYWAY = frozenset({"idempotency-key"})
_MOST_HEADERS, _LONGEST = 60, 1000


@dataclass(frozen=True, slots=True)
class _Call:
    """What came, as far as it matters."""

    token: str | None
    headers: dict[str, str]
    address: str
    kind: str

    @property
    def signed(self) -> bool:
        """Whether it may be proved by a signature, for which the body is needed."""
        return "webhook-signature" in self.headers


def make_webhooks(hub: Hub) -> APIRouter:
    """The endpoint for services."""
    router = APIRouter(tags=["webhooks"])
    desk = _Desk(hub)
    callers = ConcurrencyLimiter(_AT_ONCE, _AT_ONCE // 2)
    strangers = ConcurrencyLimiter(_AT_ONCE)  # a signature is known to be good only with the body

    @router.post(
        "/webhook/{service}",
        status_code=202,
        summary="A service calls",
        response_model=shapes.Accepted,
        responses=routers.problems(408, 413, 415) | {202: {"description": "It is stored."}},
        openapi_extra={"security": [{"inbound": []}, {"apikey": []}, {"signature": []}], "requestBody": _BODY,
                       "parameters": _HEADERS},
    )  # fmt: skip
    @needs(Access.SERVICE)
    async def receive(service: parameters.ServiceName, request: Request) -> Response:
        """Takes any JSON. The proof is the service's inbound token (bearer or `X-API-Key`) or a Standard Webhooks
        signature with its inbound signing secret, not older than five minutes. It becomes the event
        `hub.webhook_received`.
        """
        call = _Call(
            bearer(request) or request.headers.get("x-api-key"), dict(request.headers), address(request),
            bodies.media_type(request),
        )  # fmt: skip
        known = await run_in_threadpool(desk.find, service, call)
        body = await bodies.read(request, hub.settings.event_limit)
        limiter, key = (callers, known.id) if _token_fits(known, call.token) else (strangers, call.address)
        with limiter.acquire(key):  # only once the body is there: a slow sender takes no slot
            return await run_in_threadpool(desk.receive, known, call, body)

    return router


class _Desk:
    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._calls = RateLimiter(hub.settings.token_rate, hub.settings.token_rate)
        self._failures = RateLimiter(_FAILURE_RATE, _FAILURES)  # by service and address: one caller, one service
        self._guesses = RateLimiter(_GUESS_RATE, _GUESSES)  # by address: one caller, whatever service it names
        self._signed = RateLimiter(_SIGNED_RATE, _SIGNED_BURST)  # by address: bodies read for a blocked one

    def find(self, name: str, call: _Call) -> Service:
        """The service as far as the caller may know it, with every check that needs no body.

        Returns a service without secrets and with id 0 when there is none of that name and the body must be read
        before the call can be refused.

        Raises:
            Problem: 401 wrong proof or no such service, 429 too many of those, 503 the secrets cannot be read.
        """
        try:
            service = self._hub.configuration.service(name)
        except NotFoundError:
            service = Service(0, name, ServiceType.REST, "")
        if service.secrets_unreadable:  # its proof cannot be judged; a caller that tries again loses nothing
            raise Problem(503, "the hub cannot read the secrets of this service", headers={"Retry-After": "60"})
        if _token_fits(service, call.token):
            self._check(service, call)
        elif not call.signed:
            self._refuse(service, call)
        elif self._blocked(service, call) and (wait := self._signed.take(call.address)):
            raise too_often(_GUESSED, wait)
        return service

    def _blocked(self, service: Service, call: _Call) -> bool:
        """Whether the address is blocked for wrong proofs. A right signature is accepted all the same."""
        return max(self._guesses.wait(call.address), self._failures.wait((service.name, call.address))) > 0

    def receive(self, service: Service, call: _Call, body: bytes) -> Response:
        """Store the call and its event; answer with the event's id."""
        if not _token_fits(service, call.token):
            if not _signature_fits(service, call, body, self._hub.clock.now()):
                self._refuse(service, call)
            if self._blocked(service, call):
                self._signed.give(call.address)  # a right signature does not use up the checks
            self._check(service, call)
        value = bodies.parse(body)
        accepted = self._store(service, call, body, value)
        return JSONResponse({"id": accepted.id, "duplicate": accepted.duplicate, "tasks": list(accepted.tasks)}, 202)

    def _refuse(self, service: Service, call: _Call) -> NoReturn:
        wait = self._guesses.take(call.address) or self._failures.take((service.name, call.address))
        if wait:
            raise too_often(_GUESSED, wait)
        raise Problem(
            401, "no such service, or its inbound token or signature is missing or wrong",
            headers={"WWW-Authenticate": 'Bearer realm="webhook"'},
        )  # fmt: skip

    def _check(self, service: Service, call: _Call) -> None:
        if not service.enabled:
            raise Problem(403, f"service {service.name!r} is disabled")
        if not bodies.is_json(call.kind):
            raise Problem(415, "must be application/json", field="Content-Type")
        if wait := self._calls.take(service.id):
            raise too_often("this service calls too often", wait)

    def _store(self, service: Service, call: _Call, body: bytes, value: JSON) -> Accepted:
        hub = self._hub
        message_id = _message_id(call)
        task_id, depth = self._chain(service, call)
        uid = str(uuid.uuid4())
        headers = _shown(service, call)
        text = without_secrets(body.decode().removeprefix("\ufeff"), service)
        if mask := service.options.get("mask"):
            text = mask_body(text, mask)
        properties: dict[str, JSON] = {"event_id": uid, "headers": headers}
        if message_id is not None:
            properties["webhook_id"] = message_id
        cut = depth > hub.settings.max_depth
        if cut:
            properties["chain_cut_at"] = depth
        delivery = Delivery(
            direction=Direction.INBOUND, service_id=service.id, service=service.name, success=True, task_id=task_id,
            event=WEBHOOK_RECEIVED, endpoint=f"/webhook/{service.name}", method="POST", status=202,
            request_body=text, properties=properties,
        )  # fmt: skip
        data = {
            "service": service.name, "webhook_id": message_id, "task_id": task_id, "headers": headers,
            "payload": hidden(value, service),
        }  # fmt: skip
        queued: list[tuple[int, int]] = []
        accepted = Accepted(uid, duplicate=False)
        with hub.db.transaction() as conn:
            if message_id is not None and (first := once(conn, _key(service, message_id), uid)) != uid:
                return Accepted(first, duplicate=True)
            if not cut:
                # Its own id, because two equal calls are two calls.
                event = Event(WEBHOOK_RECEIVED, data, uid, f"webhook:{service.id}", cause_task=task_id)
                [accepted], queued = hub.intake.write([event], [depth], conn)
            hub.log.add([delivery], conn)
        hub.intake.enqueue(queued)
        if cut:
            hub.hooks.event_accepted("cut")
            log.warning("chain of events cut", service=service.name, depth=depth)
        return accepted

    def _chain(self, service: Service, call: _Call) -> tuple[int | None, int]:
        """(the task that the call answers, how deep in a chain its event is)."""
        given = call.headers.get("x-hub-task", "")
        depth = self._hub.views.tasks.depth_of(int(given), service.id) if _TASK.fullmatch(given) else None
        return (None, 1) if depth is None else (int(given), depth + 1)


def _token_fits(service: Service, given: str | None) -> bool:
    wanted = service.secrets.get("inbound_token")
    same = hmac.compare_digest(_digest(given or ""), _digest(wanted or ""))  # also when there is none: same time
    return bool(wanted and given) and same


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def _signature_fits(service: Service, call: _Call, body: bytes, now: datetime) -> bool:
    """Standard Webhooks: id, time (five minutes) and body are signed."""
    secret = service.secrets.get("inbound_signing_secret")
    try:
        # Computed also when there is no secret: the time says nothing about the service.
        return verify(secret or _NO_SECRET, call.headers, body.decode(), now) and secret is not None
    except UnicodeDecodeError:  # what is no text is no proof
        return False


def _message_id(call: _Call) -> str | None:
    """What the call is known by when it comes again."""
    given = call.headers.get("webhook-id") or call.headers.get("idempotency-key")
    if given is not None and (not 1 <= len(given) <= 255 or not given.isprintable()):
        raise Problem(422, "must have 1 to 255 printable characters", field="webhook-id")
    return given


def _key(service: Service, message_id: str) -> bytes:
    return hashlib.sha256(f"webhook\0{service.id}\0{message_id}".encode()).digest()


def _shown(service: Service, call: _Call) -> dict[str, str]:
    """The call's headers, without those that may hold a secret."""
    kept: dict[str, str] = {}
    for name, value in call.headers.items():
        if len(kept) < _MOST_HEADERS and (name in _KEPT_ANYWAY or not _SECRET_HEADER.search(name)):
            kept[name[:_LONGEST]] = without_secrets(value, service)[:_LONGEST]
    return kept


_HEADERS: list[dict[str, Any]] = [
    {"name": name, "in": "header", "required": False, "description": text, "schema": {"type": "string"}}
    for name, text in (
        ("webhook-id", "The call's id: a second call with it changes nothing."),
        ("webhook-timestamp", "Seconds since 1970; at most five minutes from now."),
        ("webhook-signature", "`v1,` and the base64 of the HMAC-SHA256."),
        ("X-Hub-Task", "The `X-Hub-Task` of the hub's request that this answers."),
    )
]
_BODY = {"required": True, "content": {"application/json": {"schema": {}}}}
