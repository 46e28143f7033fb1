"""Route classes of the console: access checks, CSRF protection, security headers, errors as pages."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from fastapi import Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool

from hub.errors import HubError
from hub.store.audit import Actor, act_as
from hub.web.authentication import address
from hub.web.authorization import Access, access_of
from hub.web.console.forms import OPEN_FORM_LIMIT, read_form
from hub.web.console.links import link
from hub.web.problems import Problem
from hub.web.rate_limits import Busy

if TYPE_CHECKING:
    from hub.web.console.pages import Pages

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
_READ_ONLY = "Your role (view) does not allow changes."
_SAFE = ("GET", "HEAD")
_CSP = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


def _finish(response: Response) -> Response:
    response.headers["Content-Security-Policy"] = _CSP
    response.headers["X-Frame-Options"] = "DENY"
    return response


def public(pages: Pages) -> type[APIRoute]:
    """The route class of pages before sign-in. POST is accepted from this site only."""

    class OpenRoute(APIRoute):
        def get_route_handler(self) -> Handler:
            _declared(self, Access.PUBLIC)
            handle = super().get_route_handler()

            async def respond(request: Request) -> Response:
                try:
                    request.state.session = None
                    act_as(Actor("nobody", "link", address(request)))
                    if request.method not in _SAFE:
                        _same_site(request)
                        request.state.form = await read_form(request, OPEN_FORM_LIMIT)
                    return _finish(await handle(request))
                except (HubError, Problem, Busy) as e:
                    return _finish(pages.of_error(request, e))

            return respond

    return OpenRoute


def guarded(pages: Pages) -> type[APIRoute]:
    """The route class of pages for signed-in users: session, role and, for POST, CSRF token."""

    class GuardedRoute(APIRoute):
        def get_route_handler(self) -> Handler:
            access = _declared(self, Access.ROLE_VIEW, Access.ROLE_MANAGE)
            handle = super().get_route_handler()

            async def respond(request: Request) -> Response:
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
                        raise Problem(403, _READ_ONLY)
                    if request.method not in _SAFE:
                        request.state.form = await read_form(request)
                        given = request.headers.get("x-csrf-token") or request.state.form.get("csrf")
                        if not hmac.compare_digest(given.encode(), session.csrf.encode()):
                            raise Problem(
                                403, "The form has expired or came from another site. Reload the page and try again."
                            )
                    return _finish(await handle(request))
                except (HubError, Problem, Busy) as e:
                    return _finish(await run_in_threadpool(pages.of_error, request, e))

            return respond

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
