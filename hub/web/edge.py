"""The outermost layer of every answer: the headers all of them carry, and what is said when the hub itself fails."""

from __future__ import annotations

import traceback

import structlog
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hub.web import problems

log = structlog.get_logger("hub.web")


class Edge:
    """ASGI middleware. Headers that an answer has already stay as they are."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def answer(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                headers = MutableHeaders(scope=message)
                headers.setdefault("X-Content-Type-Options", "nosniff")
                headers.setdefault("Cache-Control", "no-store")
                headers.setdefault("Referrer-Policy", "no-referrer")
            await send(message)

        try:
            await self._app(scope, receive, answer)
        except Exception as e:
            if begun:
                raise
            # Not the whole text: a database's says in its further lines what was to be written.
            why = f"{type(e).__name__}: {str(e).partition(chr(10))[0][:300]}"
            log.error("the hub's own fault", error=why, at="".join(traceback.format_tb(e.__traceback__)[-8:]))
            await problems.answer(500, "the hub's own fault; its log says more")(scope, receive, answer)
