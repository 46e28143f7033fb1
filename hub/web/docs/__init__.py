"""`/api/docs` and `/api/openapi.json`: the API reference, readable without JavaScript and without the internet.

Both need an API token of any scope, or a session of the console.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup, escape
from starlette.concurrency import run_in_threadpool

from hub import __version__
from hub.app.lifecycle import Hub
from hub.web.api.shapes import ProblemShape
from hub.web.authentication import Authenticator, address, bearer
from hub.web.authorization import Access, needs
from hub.web.console.pages import COOKIE
from hub.web.problems import Problem

_HERE = Path(__file__).parent
_CSP = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_SCHEMES = {
    "token": {"type": "http", "scheme": "bearer", "description": "An API token, of `hub token add` or the console."},
    "inbound": {"type": "http", "scheme": "bearer", "description": "The service's inbound token."},
    "apikey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The service's inbound token."},
    "signature": {
        "type": "apiKey",
        "in": "header",
        "name": "webhook-signature",
        "description": "A Standard Webhooks signature.",
    },
}
_METHODS = ("get", "post", "put", "patch", "delete")


def describe(app: FastAPI) -> dict[str, Any]:
    """The application's OpenAPI document."""
    document = get_openapi(
        title="Integration Hub",
        version=__version__,
        summary="Events in, reliable deliveries out.",
        description="JSON in and out, times in ISO 8601 UTC, lists in pages, errors as RFC 9457 problem details.",
        routes=app.routes,
    )
    components = document.setdefault("components", {})
    components["securitySchemes"] = _SCHEMES
    schemas = components.setdefault("schemas", {})
    schemas["Problem"] = ProblemShape.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas |= schemas["Problem"].pop("$defs")
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    return document


def _prose(text: str | None) -> Markup:
    """A description as HTML: escaped, text between backticks as code."""
    parts = str(text or "").split("`")
    return Markup("").join(Markup("<code>{}</code>").format(p) if i % 2 else escape(p) for i, p in enumerate(parts))


def make_docs(hub: Hub, authenticator: Authenticator, app: FastAPI) -> APIRouter:
    """The endpoints of the API reference."""
    router = APIRouter(include_in_schema=False)
    page = Environment(loader=FileSystemLoader(_HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page.filters["pretty"] = lambda value: json.dumps(value, indent=2, ensure_ascii=False)
    page.filters["prose"] = _prose
    known: dict[str, Any] = {}

    def document() -> dict[str, Any]:
        if not known:
            known.update(describe(app))
        return known

    app.openapi = document  # type: ignore[method-assign]

    def admit(request: Request) -> None:
        secret = bearer(request)
        cookie = request.cookies.get(COOKIE)
        if secret is None and cookie and hub.accounts.sessions.get(cookie) is not None:
            return
        authenticator.check(secret, None, address(request))

    @router.get("/api/openapi.json")
    @needs(Access.SIGNED_IN)
    async def openapi(request: Request) -> Response:
        await run_in_threadpool(admit, request)
        return JSONResponse(document())

    @router.get("/api/docs")
    @needs(Access.SIGNED_IN)
    async def docs(request: Request) -> Response:
        try:
            await run_in_threadpool(admit, request)
        except Problem as e:
            if e.status_code == 401 and bearer(request) is None and "text/html" in request.headers.get("accept", ""):
                return RedirectResponse("/login?next=/api/docs", 303)  # a browser: send the person to the log-in
            raise
        operations = [
            {"method": method.upper(), "path": path, **operation}
            for path, item in document()["paths"].items()
            for method, operation in item.items()
            if method in _METHODS
        ]
        groups: dict[str, list[dict[str, Any]]] = {}
        for operation in operations:
            groups.setdefault(operation.get("tags", ["other"])[0], []).append(operation)
        html = page.get_template("page.html").render(
            groups=groups, schemas=document()["components"]["schemas"], version=__version__
        )
        return HTMLResponse(html, headers={"Content-Security-Policy": _CSP})

    @router.get("/api/docs.css")
    @needs(Access.PUBLIC)
    async def css() -> Response:
        return Response(
            (_HERE / "page.css").read_bytes(), media_type="text/css", headers={"Cache-Control": "max-age=3600"}
        )

    return router
