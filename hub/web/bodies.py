"""Request bodies, read with limits: so many bytes and no more, uncompressed, strict JSON."""

from __future__ import annotations

from collections.abc import AsyncIterator
from email.message import Message
from typing import Any

from fastapi import Request

from hub.codec import loads
from hub.errors import PayloadError
from hub.web.problems import Problem
from hub.web.uploads import dropped

_DRAINED = 64 * 1024 * 1024  # so much is read and thrown away, so that the sender gets to read the refusal
NDJSON = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"})


def media_type(request: Request) -> str:
    """What the body is said to be, in lower case and without parameters; empty when nothing is said."""
    given = request.headers.get("content-type")
    if not given:
        return ""
    message = Message()
    message["content-type"] = given
    return message.get_content_type() if "/" in given else "?"


def is_json(kind: str) -> bool:
    """Whether a media type says JSON."""
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


def is_moodle_form(kind: str) -> bool:
    """Whether a media type is the one that Moodle's `local_webhooks` may be set to; its body is JSON all the same."""
    return kind == "application/x-www-form-urlencoded"


async def chunks(request: Request) -> AsyncIterator[bytes]:
    """The body as it comes.

    Raises:
        Problem: 415 it is compressed, 408 it comes too slowly, 503 its place was needed.
    """
    if request.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise Problem(
            415,
            "a compressed body is not read; send it as it is",
            field="Content-Encoding",
            headers={"Accept-Encoding": "identity"},
        )
    async for chunk in request.stream():
        if chunk:
            yield chunk


async def read(request: Request, limit: int) -> bytes:
    """The whole body; never holds more than `limit` bytes of it.

    Raises:
        Problem: 413 it is longer; and those of `chunks`.
    """
    length = request.headers.get("content-length", "")
    too_long = Problem(413, f"the body has more than {limit} bytes", field="body")
    if length.isdigit() and int(length) > _DRAINED:
        too_long.headers = {"Connection": "close"}
        raise too_long
    body, size = bytearray(), 0
    async for chunk in chunks(request):
        size += len(chunk)
        if size <= limit:
            body += chunk
        elif size > _DRAINED:
            too_long.headers = {"Connection": "close"}
            break
        else:
            body.clear()
            dropped(request.scope)
    if size > limit:
        raise too_long
    return bytes(body)


def parse(body: bytes) -> Any:
    """The body as JSON; raises `Problem` 422."""
    try:
        return loads(body)
    except PayloadError as e:
        raise Problem(422, str(e), field="body") from None


class JsonRequest(Request):
    """A request whose body is bounded and strict JSON: what FastAPI reads when a handler wants a body."""

    limit = 0

    async def body(self) -> bytes:
        if not hasattr(self, "_body"):
            kind = media_type(self)
            body = await read(self, self.limit)
            if body and not is_json(kind):
                raise Problem(415, "must be application/json", field="Content-Type")
            self._body = body
        return self._body

    async def json(self) -> Any:
        if not hasattr(self, "_json"):
            self._json = parse(await self.body())
        return self._json
