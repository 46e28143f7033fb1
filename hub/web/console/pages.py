"""Shared by all pages: sessions, CSRF protection, templates, flash messages, error pages."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Callable, Coroutine, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, quote, urlencode

import structlog
from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from fastapi.routing import APIRoute
from jinja2 import Environment, PackageLoader
from starlette.concurrency import run_in_threadpool

from hub import __version__
from hub.app.lifecycle import Hub
from hub.errors import (
    HubError,
    NotFoundError,
    StaleError,
    UnavailableError,
)
from hub.store.audit import Actor, act_as
from hub.store.sessions import Session
from hub.web import bodies
from hub.web.authentication import address
from hub.web.authorization import Access, access_of
from hub.web.console import filters
from hub.web.problems import Problem
from hub.web.rate_limits import Busy

log = structlog.get_logger("hub.console")
COOKIE = "hub_session"
_FLASH = "hub_flash"
_ONLY_LOOKS = "Your role (view) does not allow changes."
_SAFE = ("GET", "HEAD")
_FORM_LIMIT = 2 * 1024 * 1024  # bytes
_OPEN_FORM_LIMIT = 16 * 1024  # bytes; before sign-in
_CSP = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
NAVIGATION = (
    ("/", "Overview"),
    ("/services", "Services"),
    ("/sources", "Sources"),
    ("/rules", "Rules"),
    ("/events", "Events"),
    ("/queue", "Queue"),
    ("/dead-letters", "Dead letters"),
    ("/deliveries", "Deliveries"),
    ("/schedules", "Schedules"),
    ("/activity", "Activity"),
    ("/access", "Access"),
)
Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class Form:
    """Values of a submitted form."""

    def __init__(self, values: Mapping[str, list[str]]) -> None:
        self._values = values

    def get(self, name: str, default: str = "") -> str:
        """The last value of a name, stripped."""
        return self.raw(name, default).strip()

    def raw(self, name: str, default: str = "") -> str:
        """The last value of a name as typed, with line ends as `\\n`."""
        return self._values.get(name, [default])[-1].replace("\r\n", "\n")

    def all(self, name: str) -> list[str]:
        """All values of a name."""
        return list(self._values.get(name, []))

    def __contains__(self, name: str) -> bool:
        return name in self._values


class Pages:
    """Renders pages and creates routers with access checks."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self._secure = (hub.settings.public_url or "").startswith("https://")
        self._templates = Environment(
            loader=PackageLoader("hub.web"),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters |= filters.ALL
        self._templates.globals |= {"hub_version": __version__, "navigation": NAVIGATION}

    def router(self) -> APIRouter:
        """A router for signed-in users. Each route declares the role it needs; POST requires the CSRF token."""
        return APIRouter(route_class=_guarded(self), include_in_schema=False)

    def open_router(self) -> APIRouter:
        """A router for public pages (sign-in). Each route declares that it is public."""
        return APIRouter(route_class=_open(self), include_in_schema=False)

    def render(self, request: Request, template: str, status: int = 200, /, **values: Any) -> Response:
        """Render a template with the values that every page needs."""
        session: Session | None = getattr(request.state, "session", None)
        flash = _unpack(request.cookies.get(_FLASH))
        html = self._templates.get_template(template).render(
            request=request,
            path=request.url.path,
            query=dict(request.query_params),
            flash=flash,
            user=session,
            csrf=session.csrf if session else "",
            may=bool(session and session.role == "manage"),
            **values,
        )
        response = HTMLResponse(html, status)
        if flash:
            response.delete_cookie(_FLASH, path="/")
        return response

    def go(self, to: str, message: str = "", *, bad: bool = False) -> Response:
        """Redirect to another page, which shows the message once."""
        response = RedirectResponse(to, 303)
        if message:
            packed = base64.urlsafe_b64encode(json.dumps([message[:500], bad]).encode()).decode()
            response.set_cookie(_FLASH, packed, max_age=60, httponly=True, samesite="lax", secure=self._secure)
        return response

    def sign_in(self, request: Request, response: Response, secret: str) -> Response:
        """Set the session cookie."""
        secure = self._secure or request.url.scheme == "https"
        response.set_cookie(COOKIE, secret, max_age=12 * 3600, httponly=True, samesite="lax", secure=secure, path="/")
        return response

    def sign_out(self, response: Response) -> Response:
        """Delete the session cookie."""
        response.delete_cookie(COOKIE, path="/")
        return response

    def session(self, request: Request) -> Session | None:
        """The session of the request; None if not signed in."""
        secret = request.cookies.get(COOKIE)
        return self.hub.accounts.sessions.get(secret) if secret else None

    def refusal(self, request: Request, status: int, text: str) -> Response:
        """An error page."""
        return self.render(request, "refused.html", status, status=status, title=HTTPStatus(status).phrase, text=text)

    @staticmethod
    def _with(response: Response, headers: Mapping[str, str] | None) -> Response:
        response.headers.update(headers or {})
        return response

    def of_error(self, request: Request, e: Exception) -> Response:
        """Map an error to its page."""
        if isinstance(e, Busy):
            response = self.refusal(request, 503, "The hub is busy. Try again in a moment.")
            return self._with(response, {"Retry-After": "2"})
        if isinstance(e, Problem):
            return self._with(self.refusal(request, e.status_code, str(e.detail)), e.headers)
        if isinstance(e, NotFoundError):
            return self.refusal(request, 404, str(e))
        if isinstance(e, StaleError):
            return self.refusal(request, 409, str(e))
        if isinstance(e, UnavailableError):
            log.warning("page not shown", error=str(e))
            return self.refusal(
                request, 503, "The hub's database or broker does not respond. No data is lost. Try again."
            )
        return self.refusal(request, 422, str(e))


def back(request: Request, default: str) -> str:
    """The `next` value of the form if it is a path of this site, else `default`."""
    given = request.state.form.get("next") if hasattr(request.state, "form") else ""
    return given if given.startswith("/") and not given.startswith(("//", "/\\")) else default


def link(path: str, /, **query: Any) -> str:
    """A URL with the query parameters that are set."""
    wanted = {name: value for name, value in query.items() if value not in (None, "", False)}
    return f"{quote(path)}?{urlencode(wanted)}" if wanted else quote(path)


def _unpack(cookie: str | None) -> tuple[str, bool] | None:
    try:
        text, bad = json.loads(base64.urlsafe_b64decode(cookie or ""))
        return str(text)[:500], bool(bad)
    except (ValueError, TypeError):
        return None


async def _read_form(request: Request, limit: int = _FORM_LIMIT) -> Form:
    kind = bodies.media_type(request)
    if kind not in ("", "application/x-www-form-urlencoded"):
        raise Problem(415, "send the form as application/x-www-form-urlencoded")
    text = (await bodies.read(request, limit)).decode("utf-8", "replace")
    try:
        return Form(parse_qs(text, keep_blank_values=True, max_num_fields=20_000))
    except ValueError:
        raise Problem(413, "the form has too many fields") from None


def _finish(response: Response) -> Response:
    response.headers["Content-Security-Policy"] = _CSP
    response.headers["X-Frame-Options"] = "DENY"
    return response


def _open(pages: Pages) -> type[APIRoute]:
    class OpenRoute(APIRoute):
        def get_route_handler(self) -> Handler:
            _declared(self, Access.PUBLIC)
            handle = super().get_route_handler()

            async def answer(request: Request) -> Response:
                try:
                    request.state.session = None
                    act_as(Actor("nobody", "link", address(request)))
                    if request.method not in _SAFE:
                        _same_site(request)
                        request.state.form = await _read_form(request, _OPEN_FORM_LIMIT)
                    return _finish(await handle(request))
                except (HubError, Problem, Busy) as e:
                    return _finish(pages.of_error(request, e))

            return answer

    return OpenRoute


def _guarded(pages: Pages) -> type[APIRoute]:
    class GuardedRoute(APIRoute):
        def get_route_handler(self) -> Handler:
            access = _declared(self, Access.ROLE_VIEW, Access.ROLE_MANAGE)
            handle = super().get_route_handler()

            async def answer(request: Request) -> Response:
                request.state.session = None
                try:
                    session = await run_in_threadpool(pages.session, request)
                    if session is None:
                        if request.method not in _SAFE:
                            raise Problem(401, "Your session has ended. Sign in again; nothing was changed.")
                        wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
                        return _finish(pages.go(link("/login", next=wanted if wanted != "/" else "")))
                    request.state.session = session
                    act_as(Actor(session.name, "user", address(request)))
                    if access is Access.ROLE_MANAGE and session.role != "manage":
                        raise Problem(403, _ONLY_LOOKS)
                    if request.method not in _SAFE:
                        request.state.form = await _read_form(request)
                        given = request.headers.get("x-csrf-token") or request.state.form.get("csrf")
                        if not hmac.compare_digest(given.encode(), session.csrf.encode()):
                            raise Problem(
                                403, "The form has expired or came from another site. Reload the page and try again."
                            )
                    return _finish(await handle(request))
                except (HubError, Problem, Busy) as e:
                    return _finish(await run_in_threadpool(pages.of_error, request, e))

            return answer

    return GuardedRoute


def _declared(route: APIRoute, *allowed: Access) -> Access:
    """The access that a route declares; raises `RuntimeError` if its router cannot enforce it."""
    access = access_of(route.endpoint)
    if access not in allowed:
        raise RuntimeError(f"{route.path} must declare one of: {', '.join(allowed)}")
    return access


def _same_site(request: Request) -> None:
    """Refuse sign-in forms of other sites (prevents login CSRF)."""
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise Problem(403, "The form came from another site.")
