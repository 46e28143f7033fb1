"""Rendering of pages: templates, flash messages, session cookie, error pages."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import Environment, PackageLoader

from hub import __version__
from hub.app.lifecycle import Hub
from hub.errors import (
    NotFoundError,
    StaleError,
    UnavailableError,
)
from hub.store.sessions import Session
from hub.web.console import filters
from hub.web.console.guards import guarded, public
from hub.web.problems import Problem
from hub.web.rate_limits import Busy

log = structlog.get_logger("hub.web.console.pages")
COOKIE = "hub_session"
_FLASH = "hub_flash"
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
        return APIRouter(route_class=guarded(self), include_in_schema=False)

    def open_router(self) -> APIRouter:
        """A router for public pages (sign-in). Each route declares that it is public."""
        return APIRouter(route_class=public(self), include_in_schema=False)

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


def _unpack(cookie: str | None) -> tuple[str, bool] | None:
    try:
        text, bad = json.loads(base64.urlsafe_b64decode(cookie or ""))
        return str(text)[:500], bool(bad)
    except (ValueError, TypeError):
        return None
