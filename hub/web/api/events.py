"""`POST /api/v1/events`: accepts one event, an array or a stream; 202 only after the ledger's commit."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from hub.app.lifecycle import Hub
from hub.codec import loads
from hub.errors import HubError, PayloadError, TooLargeError
from hub.models import JSON, Accepted, Event
from hub.store.tokens import Token
from hub.web import bodies, problems, uploads
from hub.web.api import event_schema, routers, shapes
from hub.web.api.body_token import candidates
from hub.web.api.event_parsing import checked_key, source_of, to_event
from hub.web.api.stream_response import StreamResponse, shown
from hub.web.authentication import (
    Authenticator,
    address,
    bearer,
    no_token,
)
from hub.web.authorization import Access, needs
from hub.web.problems import Problem
from hub.web.rate_limits import Busy, ConcurrencyLimiter

_AT_ONCE = 200  # requests with a complete body; more would only wait for the same database
_BODY_TOKENS = 50  # requests whose token is in the body; their own limit, so that they cannot block the others
_SHARE = 0.75  # part of these limits that one token or address may use
_SMALL = 65536  # bytes; a body up to this size is read before the token is checked
_KINDS = "must be application/json or application/x-ndjson"
_ARRAY = 4  # size limit of an array, as a multiple of the limit of one event
_LINES = 500  # lines of a stream written in one transaction
_BATCH_BYTES = 4 * 1024 * 1024
_MOST_LINES = 1_000_000


def make_events(hub: Hub, authenticator: Authenticator) -> APIRouter:
    """The endpoint that takes events."""
    router = APIRouter(prefix=routers.PREFIX, tags=["events"])
    ingest = _Ingest(hub, authenticator)

    @router.post(
        "/events",
        status_code=202,
        summary="Accept events",
        response_model=shapes.Accepted | list[shapes.Accepted] | shapes.AcceptedCounts,
        responses=routers.problems(408, 413, 415) | {202: {"description": "Every event is in the ledger."}},
        openapi_extra={
            "security": [{"token": ["ingest"]}],
            "parameters": [event_schema.KEY],
            "requestBody": event_schema.BODY,
        },
    )
    @needs(Access.SCOPE_INGEST)
    async def accept(request: Request) -> Response:
        """Accepts one event (an object; the response is an object), an array of at most 1,000, or NDJSON of any length.

        An event is `{"name": ..., "data": {...}, "id": optional}` or an unchanged Moodle event. The body of Moodle's
        `local_webhooks` needs no header: its `token` is the API token and is not stored, and its media type may be
        that of a form. An array is accepted as a whole or not at all. A stream is accepted 500 lines at a time: if a
        line is invalid, the response names it and says how many lines before it were accepted. If the list of results
        would be longer than 1 MiB, the response has counts instead: `{"accepted", "duplicates", "tasks"}`.
        """
        return await ingest.accept(request)

    return router


class _Ingest:
    def __init__(self, hub: Hub, authenticator: Authenticator) -> None:
        self._intake = hub.intake
        self._authenticator = authenticator
        self._limit = hub.settings.event_limit
        self._known = ConcurrencyLimiter(_AT_ONCE, math.ceil(_AT_ONCE * _SHARE))
        self._body_tokens = ConcurrencyLimiter(_BODY_TOKENS, math.ceil(_BODY_TOKENS * _SHARE))

    async def accept(self, request: Request) -> Response:
        kind = bodies.media_type(request)
        secret, sender = bearer(request), address(request)
        if _is_json(kind) and secret is None:
            if not _is_small(request):
                self._authenticator.before_body(sender)
            body = await bodies.read(request, self._limit)
            with self._body_tokens.acquire(sender):
                return await run_in_threadpool(self._with_own_token, body, request, sender)
        if _is_json(kind) and _is_small(request):
            # One thread checks the token and writes: single events must be cheap.
            body = await bodies.read(request, _SMALL)
            with self._known.acquire(secret):
                return await run_in_threadpool(self._checked, body, request, secret, sender)
        token = await run_in_threadpool(self._authenticator.check, secret, "ingest", sender)
        if kind in bodies.NDJSON:
            return await self._stream(request, _key(request), token)
        if not _is_json(kind):
            raise Problem(415, _KINDS, field="Content-Type")
        body = await bodies.read(request, self._limit * _ARRAY)
        key, source = _key(request), source_of(token)
        with self._known.acquire(token.id):
            return await run_in_threadpool(lambda: self._whole(_parsed(body, kind), key, source))

    def _checked(self, body: bytes, request: Request, secret: str | None, sender: str) -> Response:
        """Check the token of the header and accept the body."""
        known = self._authenticator.check(secret, "ingest", sender)
        return self._whole(
            _parsed(body, bodies.media_type(request)),
            _key(request),
            source_of(known),
        )

    def _with_own_token(self, body: bytes, request: Request, sender: str) -> Response:
        """Check the token of Moodle's body before the body is parsed, and accept the event."""
        token, secret = self._authenticator.look_up(candidates(body), "ingest", sender)
        value = _parsed(body, bodies.media_type(request))
        if not isinstance(value, dict) or "eventname" not in value or value.get("token") != secret:
            raise no_token()
        return self._whole(value, _key(request), source_of(token))

    def _whole(self, value: JSON, key: str | None, source: str) -> Response:
        """Accept one object or an array."""
        if not isinstance(value, list):
            return JSONResponse(shown(self._intake.handle_event(self._event(value, key, source))), 202)
        if len(value) > event_schema.MOST:
            raise Problem(
                413,
                f"an array holds at most {event_schema.MOST} events; send more as application/x-ndjson",
                field="body",
            )
        events = []
        for i, item in enumerate(value):
            try:
                events.append(self._event(item, f"{key}:{i}" if key else None, source))
            except PayloadError as e:
                raise type(e)(f"[{i}].{e}") from None
        accepted = self._intake.handle_events(events) if events else []
        return JSONResponse([shown(a) for a in accepted], 202)

    def _event(self, value: JSON, key: str | None, source: str) -> Event:
        return to_event(value, limit=self._limit, key=key, source=source)

    async def _stream(self, request: Request, key: str | None, token: Token) -> Response:
        """Accept batch by batch. An error response says how many lines were accepted before it."""
        result = StreamResponse()
        try:
            async for batch in self._batches(request):
                with self._known.acquire(token.id):
                    result.add(await run_in_threadpool(self._lines, batch, key, source_of(token)))
                uploads.release(request.scope)
        except HubError as e:
            return problems.of_hub_error(e, extra={"accepted": result.lines})
        except Problem as e:
            e.extra["accepted"] = result.lines
            raise
        except Busy:
            return problems.busy(extra={"accepted": result.lines})
        except ClientDisconnect:
            raise
        except Exception as e:
            return problems.internal_error(e, extra={"accepted": result.lines})
        return result.response()

    async def _batches(self, request: Request) -> AsyncIterator[list[tuple[int, bytes]]]:
        """Batches of (line number, line), bounded in lines and bytes; blank lines are left out."""
        batch: list[tuple[int, bytes]] = []
        size, number = 0, 0
        async for line in _split(request, self._limit * 2):
            number += 1
            if number > _MOST_LINES:
                if batch:
                    yield batch
                raise Problem(413, f"a stream holds at most {_MOST_LINES} lines; send the rest in another request")
            if not line.strip():
                continue
            batch.append((number, line))
            size += len(line)
            if len(batch) >= _LINES or size >= _BATCH_BYTES:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def _lines(self, batch: list[tuple[int, bytes]], key: str | None, source: str) -> list[Accepted]:
        events = []
        for number, line in batch:
            try:
                events.append(self._event(loads(line), f"{key}:{number}" if key else None, source))
            except TooLargeError as e:
                raise _wrong(413, number, str(e)) from None
            except PayloadError as e:
                raise _wrong(422, number, str(e)) from None
        return self._intake.handle_events(events)


async def _split(request: Request, limit: int) -> AsyncIterator[bytes]:
    """The body's lines. Holds at most one chunk and `limit` bytes."""
    rest = b""
    number = 0
    async for chunk in bodies.chunks(request):
        lines = (rest + chunk).split(b"\n") if rest else chunk.split(b"\n")
        rest = lines.pop()
        for line in lines:
            number += 1
            yield line
        if len(rest) > limit:
            number += 1
            raise _wrong(413, number, f"has more than {limit} bytes")
    if rest:
        yield rest


def _wrong(status: int, number: int, why: str) -> Problem:
    return Problem(status, f"line {number}: {why}", field=f"line {number}", line=number)


def _parsed(body: bytes, kind: str) -> JSON:
    """The body as JSON. With the media type of a form, only a Moodle event is accepted."""
    if not bodies.is_moodle_form(kind):
        return bodies.parse(body)
    try:
        value = bodies.parse(body)
    except Problem:
        value = None
    if not isinstance(value, dict) or "eventname" not in value:
        raise Problem(415, _KINDS, field="Content-Type")
    return value


def _is_json(kind: str) -> bool:
    return bodies.is_json(kind) or bodies.is_moodle_form(kind)


def _is_small(request: Request) -> bool:
    length = request.headers.get("content-length", "")
    return length.isdigit() and int(length) <= _SMALL


def _key(request: Request) -> str | None:
    return checked_key(request.headers.get("idempotency-key"))
