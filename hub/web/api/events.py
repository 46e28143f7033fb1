"""`POST /api/v1/events`: events come in, one, many or as a stream; 202 only when the ledger has them."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from typing import IO, Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool

from hub.app import Hub
from hub.codec import dumps, loads
from hub.errors import HubError, PayloadError, TooLargeError
from hub.models import JSON, Accepted, Event
from hub.observer import parse_event
from hub.store.tokens import Token
from hub.web import bodies, problems
from hub.web.api import event_schema, routers, shapes
from hub.web.authorization import Access, needs
from hub.web.gate import Gate, address, bearer
from hub.web.limits import Places
from hub.web.problems import Problem

_AT_ONCE = 200  # requests under way; more would only wait for the same database
_STRANGERS = 50  # of those that tell only in the body who they are: they cannot keep out the others
_SMALL = 65536  # bytes that may be read before it is known who sends them
_KINDS = "must be application/json or application/x-ndjson"
_ARRAY = 4  # times the limit of one event
_LINES = 500  # of a stream that become one transaction
_BATCH_BYTES = 4 * 1024 * 1024
_MOST_LINES = 1_000_000
_IN_MEMORY = 1024 * 1024  # answers to a stream beyond that wait in a file


def make_events(hub: Hub, gate: Gate) -> APIRouter:
    """The endpoint that takes events."""
    router = APIRouter(prefix=routers.PREFIX, tags=["events"])
    ingest = _Ingest(hub, gate)

    @router.post(
        "/events",
        status_code=202,
        summary="Accept events",
        response_model=shapes.Accepted | list[shapes.Accepted],
        responses=routers.problems(408, 413, 415) | {202: {"description": "Every event is in the ledger."}},
        openapi_extra={
            "security": [{"token": ["ingest"]}],
            "parameters": [event_schema.KEY],
            "requestBody": event_schema.BODY,
        },
    )
    @needs(Access.SCOPE_INGEST)
    async def accept(request: Request) -> Response:
        """Takes one event (an object, answered by an object), an array of at most 1,000, or NDJSON of any length.

        An event is `{"name": ..., "data": {...}, "id": optional}` or a Moodle event as it is; the body of Moodle's
        `local_webhooks` needs no header, its `token` is the API token and is not kept, and its media type may be that
        of a form. An array is accepted as a whole or not at all. A stream is accepted 500 lines at a time: if one line
        is wrong, the answer says which one, and how many before it were accepted.
        """
        return await ingest.accept(request)

    return router


class _Ingest:
    def __init__(self, hub: Hub, gate: Gate) -> None:
        self._observer = hub.observer
        self._gate = gate
        self._limit = hub.settings.event_limit
        self._known = Places(_AT_ONCE)
        self._strangers = Places(_STRANGERS)

    async def accept(self, request: Request) -> Response:
        kind = bodies.media_type(request)
        secret, sender = bearer(request), address(request)
        if _is_json(kind) and secret is None:
            with self._strangers.one():
                body = await bodies.read(request, self._limit)
                return await run_in_threadpool(self._checked, body, request, None, sender)
        if _is_json(kind) and _is_small(request):
            # One thread checks the token and writes: what comes one by one must be cheap.
            body = await bodies.read(request, _SMALL)
            with self._known.one():
                return await run_in_threadpool(self._checked, body, request, secret, sender)
        token = await run_in_threadpool(self._gate.check, secret, "ingest", sender)
        with self._known.one():
            if kind in bodies.NDJSON:
                return await self._stream(request, _header_key(request), _source(token))
            if not _is_json(kind):
                raise Problem(415, _KINDS, field="Content-Type")
            body = await bodies.read(request, self._limit * _ARRAY)
            key, source = _header_key(request), _source(token)
            return await run_in_threadpool(lambda: self._whole(_parsed(body, kind), key, source))

    def _checked(self, body: bytes, request: Request, secret: str | None, sender: str) -> Response:
        """Check the token, of the header or of Moodle's body, and accept."""
        if secret is not None:
            known = self._gate.check(secret, "ingest", sender)
            return self._whole(_parsed(body, bodies.media_type(request)), _header_key(request), _source(known))
        try:
            value = _parsed(body, bodies.media_type(request))
        except Problem:
            value = None  # who says neither who they are nor anything sensible is told the former
        token = value.get("token") if isinstance(value, dict) and "eventname" in value else None
        known = self._gate.check(token if isinstance(token, str) else None, "ingest", sender)
        return self._whole(value, _header_key(request), _source(known))

    def _whole(self, value: JSON, key: str | None, source: str) -> Response:
        """One object or an array."""
        if not isinstance(value, list):
            return JSONResponse(_shown(self._observer.handle_event(self._event(value, key, source))), 202)
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
        accepted = self._observer.handle_events(events) if events else []
        return JSONResponse([_shown(a) for a in accepted], 202)

    def _event(self, value: JSON, key: str | None, source: str) -> Event:
        if isinstance(value, dict) and "token" in value and "eventname" in value:
            value = {k: v for k, v in value.items() if k != "token"}
        return parse_event(value, limit=self._limit, key=key, source=source)

    async def _stream(self, request: Request, key: str | None, source: str) -> Response:
        answers = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115 - the response closes it
        done = 0
        try:
            answers.write(b"[")
            async for batch in self._batches(request):
                accepted = await run_in_threadpool(self._lines, batch, key, source)
                text = ",".join(dumps(_shown(a)) for a in accepted)
                answers.write((b"," if done else b"") + text.encode())
                done += len(batch)
            answers.write(b"]")
        except HubError as e:
            answers.close()
            return problems.of_hub_error(e, extra={"accepted": done})
        except Problem as e:
            e.extra["accepted"] = done
            answers.close()
            raise
        except BaseException:
            answers.close()
            raise
        answers.seek(0)
        return StreamingResponse(_pieces(answers), 202, media_type="application/json")

    async def _batches(self, request: Request) -> AsyncIterator[list[tuple[int, bytes]]]:
        """(line number, line) of what comes, in batches of bounded size."""
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
        return self._observer.handle_events(events)


async def _split(request: Request, limit: int) -> AsyncIterator[bytes]:
    """The body's lines; never holds more than one chunk and `limit` bytes."""
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


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while piece := file.read(65536):
            yield piece


def _source(token: Token) -> str:
    """Whose ids these are: a token's ids collide with no other token's."""
    return f"token:{token.id}"


def _parsed(body: bytes, kind: str) -> JSON:
    """The body as JSON; of what says that it is a form only a Moodle event."""
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


def _header_key(request: Request) -> str | None:
    key = request.headers.get("idempotency-key")
    if key is not None and (not 1 <= len(key) <= 200 or not key.isprintable()):
        raise Problem(422, "must have 1 to 200 printable characters", field="Idempotency-Key")
    return key


def _shown(accepted: Accepted) -> dict[str, Any]:
    return {"id": accepted.id, "duplicate": accepted.duplicate, "tasks": list(accepted.tasks)}
