"""Errors as RFC 9457 problem details. They never repeat a value of the request."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from hub.errors import (
    ConfigError,
    ConflictError,
    DeliveryError,
    HubError,
    NotFoundError,
    PayloadError,
    StaleError,
    TooLargeError,
    UnavailableError,
)
from hub.web.rate_limits import Busy

log = structlog.get_logger("hub.web.problems")
MEDIA_TYPE = "application/problem+json"
RETRY_AFTER = 2  # seconds, when the database is unavailable or busy
_CSP = "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; frame-ancestors 'none'"
_NOTHING_HERE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Not found · Integration Hub</title><link rel="stylesheet" href="/static/hub.css"></head>
<body><header class="top"><a class="brand" href="/"><img src="/static/icon.svg" alt="" width="22" height="22">
Integration Hub</a></header><main><section class="card narrow"><h1>Not found</h1><p>This page does not exist.</p>
<p><a href="/">Go to the overview</a></p></section></main></body></html>
"""
_FIELD = re.compile(r"([A-Za-z_\[][\w.\[\]-]{0,200}): (.+)", re.DOTALL)
_STATUS: tuple[tuple[type[HubError], int], ...] = (
    (StaleError, 412),
    (ConflictError, 409),
    (NotFoundError, 404),
    (TooLargeError, 413),
    (ConfigError, 422),
    (PayloadError, 422),
    (DeliveryError, 502),
    (UnavailableError, 503),
)


class Problem(HTTPException):
    """A request that is refused.

    Args:
        field: the invalid part of the request, as a dotted path.
        extra: more members of the problem's JSON.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        field: str | None = None,
        headers: Mapping[str, str] | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(status, detail, headers)
        self.field = field
        self.extra = extra


def response_of(
    status: int,
    detail: str,
    *,
    errors: Sequence[tuple[str, str]] = (),
    headers: Mapping[str, str] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> JSONResponse:
    """A problem as a response; `errors` are (field, message)."""
    body: dict[str, Any] = {"type": "about:blank", "title": _title(status), "status": status, "detail": detail}
    if errors:
        body["errors"] = [{"field": field, "message": message} for field, message in errors]
    return JSONResponse(body | dict(extra or {}), status, dict(headers or {}), MEDIA_TYPE)


def of_hub_error(e: HubError, *, extra: Mapping[str, Any] | None = None) -> JSONResponse:
    """The response for an error of the hub."""
    status = next((status for kind, status in _STATUS if isinstance(e, kind)), 500)
    if status >= 500:
        log.warning("request failed", error=str(e))
    headers = {"Retry-After": str(RETRY_AFTER)} if status == 503 else {}
    detail = "the hub's database or broker is unavailable; try again" if status == 503 else str(e)
    errors: list[tuple[str, str]] = []
    if status in (413, 422):
        errors = [found for part in str(e).split("; ") if (found := _field(part))]
    return response_of(status, detail, errors=errors, headers=headers, extra=extra)


def busy(*, extra: Mapping[str, Any] | None = None) -> JSONResponse:
    """503: a concurrency limit is reached."""
    return response_of(503, "the hub is busy; try again", headers={"Retry-After": "1"}, extra=extra)


def internal_error(e: Exception, *, extra: Mapping[str, Any] | None = None) -> JSONResponse:
    """500 for an unexpected exception, which is logged with its place."""
    # Only the first line: further lines of a database error contain the values that were to be written.
    why = f"{type(e).__name__}: {str(e).partition(chr(10))[0][:300]}"
    log.error("internal error", error=why, at="".join(traceback.format_tb(e.__traceback__)[-8:]))
    return response_of(500, "internal error; the hub's log says more", extra=extra)


def install(app: FastAPI) -> None:
    """Make every error of the application a problem."""

    async def on_http(request: Request, e: Exception) -> Response:
        assert isinstance(e, HTTPException)
        headers = dict(e.headers or {})
        detail = str(e.detail)
        if isinstance(e, Problem):
            return response_of(
                e.status_code, detail, headers=headers, extra=e.extra, errors=[(e.field, detail)] if e.field else ()
            )
        if e.status_code == 404 and _is_person(request):
            return HTMLResponse(_NOTHING_HERE, 404, {"Content-Security-Policy": _CSP})
        if e.status_code == 404:
            detail = "there is nothing here; /api/docs lists what there is"
        if e.status_code == 405:
            headers["Allow"] = ", ".join(sorted(_methods(app.routes, request))) or headers.get("Allow", "GET")
            detail = f"only {headers['Allow']} can be done here"
        return response_of(e.status_code, detail, headers=headers)

    async def on_validation(request: Request, e: Exception) -> Response:
        assert isinstance(e, RequestValidationError)
        errors = [
            (_path(error["loc"]), _message(str(error["type"]), str(error["msg"]))) for error in list(e.errors())[:50]
        ]
        detail = "; ".join(f"{field}: {message}" for field, message in errors[:5])
        return response_of(422, detail, errors=errors)

    async def on_hub_error(request: Request, e: Exception) -> Response:
        assert isinstance(e, HubError)
        return of_hub_error(e)

    async def on_nesting(request: Request, e: Exception) -> Response:
        return response_of(422, "nested too deeply", errors=[("body", "nested too deeply")])

    async def on_busy(request: Request, e: Exception) -> Response:
        return busy()

    async def on_disconnect(request: Request, e: Exception) -> Response:
        return response_of(400, "the body ended before it was complete")

    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(RequestValidationError, on_validation)
    app.add_exception_handler(HubError, on_hub_error)
    app.add_exception_handler(RecursionError, on_nesting)
    app.add_exception_handler(Busy, on_busy)
    app.add_exception_handler(ClientDisconnect, on_disconnect)


def _is_person(request: Request) -> bool:
    """Whether a browser asks for a page."""
    return "text/html" in request.headers.get("accept", "") and not request.url.path.startswith(("/api/", "/webhook/"))


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def _field(text: str) -> tuple[str, str] | None:
    """(field, message) of a text that names its field first."""
    found = _FIELD.fullmatch(text)
    return (found[1], found[2]) if found else None


def _path(loc: Iterable[Any]) -> str:
    """A dotted field; the first member only says where in the request it is."""
    where, *path = loc
    return ".".join(map(str, path)) or str(where)


def _message(kind: str, text: str) -> str:
    return "unknown field" if kind == "extra_forbidden" else text.removeprefix("Value error, ")


def _methods(routes: Sequence[Any], request: Request) -> set[str]:
    """What may be done with a path, over all routes that have it."""
    return {
        method
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes)
    }
