"""Accepts single small events before FastAPI sees them: the common request, for a quarter of the CPU time.

Only a plain request takes this way: `POST /api/v1/events`, `application/json`, at most 64 KiB, a bearer token that is
in memory. Every other request, and every event that is refused, is left to the API, which says what is wrong.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hub.codec import dumps, loads
from hub.errors import HubError, PayloadError, UnavailableError
from hub.models import Event
from hub.pipeline.intake import Intake
from hub.store.tokens import Token
from hub.web import problems
from hub.web.api.event_parsing import is_key, source_of, to_event
from hub.web.api.stream_response import shown
from hub.web.authentication import Authenticator
from hub.web.batches import Batches
from hub.web.connections import COMPLETE
from hub.web.rate_limits import Busy, ConcurrencyLimiter

PATH = "/api/v1/events"
_SMALL = 65536  # bytes of a body
_SOON = 0.1  # seconds; many clients send a body right after its head
_BATCH = 100  # events of one transaction
_AT_ONCE = 1000  # requests that wait
_SHARE = 750  # of them with one token
_JSON = frozenset({b"application/json", b"application/json; charset=utf-8", b"application/json;charset=utf-8"})

_HEADERS = [
    (b"content-type", b"application/json"),
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
]


class _Request(NamedTuple):
    """What the headers say."""

    secret: str
    key: str | None


class _Item(NamedTuple):
    """One event on its way to a thread."""

    body: bytes
    key: str | None
    source: str


class FastAccept:
    """ASGI middleware in front of everything else.

    Args:
        app: serves every other request.
        limit: most bytes of an event's data.
    """

    def __init__(self, app: ASGIApp, *, intake: Intake, authenticator: Authenticator, limit: int) -> None:
        self._app = app
        self._intake = intake
        self._authenticator = authenticator
        self._limit = limit
        self._places = ConcurrencyLimiter(_AT_ONCE, _SHARE)
        self._batches: Batches[_Item, bytes] = Batches(self._accept, limit=_BATCH, name="hub-accept")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == PATH and scope["method"] == "POST":
            request = _plain(scope["headers"])
            token = None if request is None else self._authenticator.cached(request.secret, "ingest")
            if request is not None and token is not None:
                await self._serve(request, token, scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _serve(self, request: _Request, token: Token, scope: Scope, receive: Receive, send: Send) -> None:
        message = await _received(scope, receive)
        if message is None:
            await self._app(scope, receive, send)
            return
        body = message.get("body", b"")
        if message.get("more_body") or body[:1] == b"[":
            await self._app(scope, _again(message, receive), send)
            return
        try:
            with self._places.acquire(token.id):
                response = await self._batches.put(_Item(body, request.key, source_of(token)))
        except UnavailableError as e:
            await problems.of_hub_error(e)(scope, receive, send)
            return
        except (HubError, Busy):
            await self._app(scope, _again(message, receive), send)
            return
        except Exception as e:
            await problems.internal_error(e)(scope, receive, send)
            return
        headers = [(b"content-length", b"%d" % len(response)), *_HEADERS]
        await send({"type": "http.response.start", "status": 202, "headers": headers})
        await send({"type": "http.response.body", "body": response})

    def _accept(self, items: Sequence[_Item]) -> list[bytes | Exception]:
        """On a thread: parse, accept in one transaction, write the responses."""
        parsed: list[Event | Exception] = []
        for body, key, source in items:
            try:
                parsed.append(to_event(loads(body), limit=self._limit, key=key, source=source))
            except PayloadError as e:
                parsed.append(e)
        accepted = iter(self._intake.handle_each([event for event in parsed if isinstance(event, Event)]))
        results: list[bytes | Exception] = []
        for event in parsed:
            result = next(accepted) if isinstance(event, Event) else event
            results.append(result if isinstance(result, Exception) else dumps(shown(result)).encode())
        return results


def _plain(headers: Sequence[tuple[bytes, bytes]]) -> _Request | None:
    """What the headers of a plain request say; None: it is another request."""
    kind = secret = key = None
    length = 0
    for name, value in headers:
        if name == b"content-type":
            kind = value if kind is None else b""
        elif name == b"authorization":
            if secret is not None or value[:7].lower() != b"bearer ":
                return None
            secret = value[7:].strip().decode("latin-1")
        elif name == b"content-length":
            length = int(value) if value.isdigit() else 0
        elif name == b"idempotency-key":
            if key is not None:
                return None
            key = value.decode("latin-1")
            if not is_key(key):
                return None
        elif name in (b"transfer-encoding", b"content-encoding"):
            return None
    if kind is None or kind.lower() not in _JSON or not secret or not 0 < length <= _SMALL:
        return None
    return _Request(secret, key)


async def _received(scope: Scope, receive: Receive) -> Message | None:
    """The body, or its first part; None: nothing came in time, and the limits on slow bodies must apply."""
    if COMPLETE in scope:
        return await receive()
    try:
        async with asyncio.timeout(_SOON):
            return await receive()
    except TimeoutError:
        return None


def _again(first: Message, receive: Receive) -> Receive:
    """An ASGI `receive` that begins with a message that was received before."""
    messages = [first]

    async def replayed() -> Message:
        return messages.pop() if messages else await receive()

    return replayed
