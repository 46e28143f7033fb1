"""Request bodies: bounded, uncompressed, parsed as strict JSON."""

from __future__ import annotations

from collections.abc import AsyncIterator
from email.message import Message
from typing import Any

from fastapi import Request

from hub.codec import loads
from hub.errors import PayloadError
from hub.web import uploads
from hub.web.problems import Problem

_DRAINED = 64 * 1024 * 1024  # bytes read and dropped, so that the client reads the response before a reset
NDJSON = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"})


def media_type(request: Request) -> str:
    """The declared media type, in lower case and without parameters; empty if there is none."""
    given = request.headers.get("content-type")
    if not given:
        return ""
    message = Message()
    message["content-type"] = given
    return message.get_content_type() if "/" in given else "?"


def is_json(kind: str) -> bool:
    """Whether a media type is JSON."""
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


def is_moodle_form(kind: str) -> bool:
    """Whether a media type is the form type of Moodle's `local_webhooks`, whose body is nevertheless JSON."""
    return kind == "application/x-www-form-urlencoded"


async def chunks(request: Request) -> AsyncIterator[bytes]:
    """The body in chunks, as they arrive.

    Raises:
        Problem: 415 it is compressed, 408 it arrives too slowly, 503 its place was needed for faster bodies.
    """
    if request.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise Problem(
            415,
            "compressed bodies are not supported; send the body uncompressed",
            field="Content-Encoding",
            headers={"Accept-Encoding": "identity"},
        )
    async for chunk in request.stream():
        if chunk:
            yield chunk


async def read(request: Request, limit: int) -> bytes:
    """The whole body. Holds at most `limit` bytes of it.

    Raises:
        Problem: 413 it is longer than `limit`; and those of `chunks`.
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
            uploads.release(request.scope)
    if size > limit:
        raise too_long
    return bytes(body)


def parse(body: bytes) -> Any:
    """Parse the body as JSON; raises `Problem` 422."""
    try:
        return loads(body)
    except PayloadError as e:
        raise Problem(422, str(e), field="body") from None


class JsonRequest(Request):
    """A request whose body is bounded and parsed as strict JSON. FastAPI calls `body` and `json`."""

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
