"""Outermost ASGI middleware: bounds request bodies, sets security headers, turns unhandled exceptions into 500."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hub.web import problems
from hub.web.uploads import Uploads


class OuterMiddleware:
    """The outermost middleware. Keeps the headers that a response already has."""

    def __init__(self, app: ASGIApp, uploads: Uploads) -> None:
        self._app = app
        self._uploads = uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def respond(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                headers = MutableHeaders(scope=message)
                headers.setdefault("X-Content-Type-Options", "nosniff")
                headers.setdefault("Cache-Control", "no-store")
                headers.setdefault("Referrer-Policy", "no-referrer")
            await send(message)

        upload = self._uploads.upload(scope, receive)
        try:
            await self._app(scope, upload.receive if upload else receive, respond)
        except Exception as e:
            if begun:
                raise
            await problems.internal_error(e)(scope, receive, respond)
        finally:
            if upload:
                upload.close()
