"""Users, API tokens, sessions and the own password."""

from __future__ import annotations

from datetime import timedelta

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from hub.errors import ConfigError, ConflictError
from hub.web.authentication import address
from hub.web.authorization import Access, needs
from hub.web.console.pages import COOKIE, Pages
from hub.web.failed_logins import FailedLogins
from hub.web.passwords import HashPool, hash_password, verify_password
from hub.web.problems import Problem

_DONE = {
    "view": "now has the role view",
    "manage": "now has the role manage",
    "enable": "is enabled",
    "disable": "is disabled",
    "delete": "was deleted",
}


def make_access(pages: Pages, guesses: FailedLogins, pool: HashPool) -> APIRouter:
    """Return the routes of `/access`."""
    router = pages.router()
    accounts = pages.hub.accounts

    def page(
        request: Request, *, token: tuple[str, str] | None = None, problem: str = "", status: int = 200
    ) -> Response:
        may = request.state.session.role == "manage"
        return pages.render(
            request,
            "access.html",
            status,
            users=accounts.users.list() if may else [],
            tokens=accounts.tokens.list() if may else [],
            sessions=accounts.sessions.list(None if may else request.state.session.name),
            this=request.state.session.id,
            new_token=token,
            problem=problem,
            now=pages.hub.clock.now(),
        )

    @router.get("/access")
    @needs(Access.ROLE_VIEW)
    def show(request: Request) -> Response:
        return page(request)

    @router.post("/access/tokens")
    @needs(Access.ROLE_MANAGE)
    def add_token(request: Request) -> Response:
        form = request.state.form
        name, days = form.get("name"), form.get("days")
        try:
            if days and not (days.isdigit() and 1 <= int(days) <= 3650):
                raise ConfigError("must be a number of days up to 3650", field="expires")
            until = pages.hub.clock.now() + timedelta(days=int(days)) if days else None
            token, secret = accounts.tokens.add(name, form.get("scope"), expires_at=until)
        except (ConfigError, ConflictError) as e:
            return page(request, problem=str(e), status=422)
        return page(request, token=(token.name, secret))

    @router.post("/access/tokens/revoke")
    @needs(Access.ROLE_MANAGE)
    def revoke(request: Request) -> Response:
        name = request.state.form.get("name")
        accounts.tokens.revoke(name)
        return pages.go("/access", f"Token {name} was revoked.")

    @router.post("/access/users")
    @needs(Access.ROLE_MANAGE)
    async def add_user(request: Request) -> Response:
        form = request.state.form
        name, password, role = form.get("name"), form.raw("password"), form.get("role")
        try:
            hashed = await pool.run(lambda: hash_password(password, about=[name]))
            user = await run_in_threadpool(accounts.users.add, name, hashed, role)
        except (ConfigError, ConflictError) as e:
            return await run_in_threadpool(page, request, problem=str(e), status=422)
        return pages.go("/access", f"User {user.name} was added.")

    @router.post("/access/users/change")
    @needs(Access.ROLE_MANAGE)
    def change(request: Request) -> Response:
        form = request.state.form
        name, what = form.get("name"), form.get("act")
        try:
            if what in ("view", "manage"):
                accounts.users.set_role(name, what)
            elif what in ("enable", "disable"):
                accounts.users.enable(name, what == "enable")
            elif what == "delete":
                accounts.users.delete(name)
            else:
                raise ConfigError("is not a known action", field="act")
        except (ConfigError, ConflictError) as e:
            return page(request, problem=str(e), status=409)
        return pages.go("/access", f"User {name} {_DONE[what]}.")

    @router.post("/access/sessions/revoke")
    @needs(Access.ROLE_VIEW)
    def revoke_session(request: Request) -> Response:
        number, session = request.state.form.get("id"), request.state.session
        if not number.isascii() or not number.isdigit() or len(number) > 18:
            raise Problem(422, "No such session.")
        accounts.sessions.revoke(int(number), name=None if session.role == "manage" else session.name)
        return pages.go("/access", "The session was ended.")

    @router.post("/access/password")
    @needs(Access.ROLE_VIEW)
    async def password(request: Request) -> Response:
        form, name = request.state.form, request.state.session.name
        old, new = form.raw("old"), form.raw("password")
        try:
            if wait := guesses.name(name, address(request)):
                raise Problem(
                    429, "Too many wrong passwords. Try again later.", headers={"Retry-After": str(round(wait + 0.5))}
                )
            found = await run_in_threadpool(accounts.users.password_hash, name)
            if not await pool.run(lambda: verify_password(found[1] if found else None, old)):
                raise ConfigError("is not your password", field="old password")
            guesses.right(name, address(request))
            if new != form.raw("again"):
                raise ConfigError("the two passwords differ", field="password")
            hashed = await pool.run(lambda: hash_password(new, about=[name]))
            await run_in_threadpool(accounts.users.set_password, name, hashed, keep=request.cookies.get(COOKIE))
        except ConfigError as e:
            return await run_in_threadpool(page, request, problem=str(e), status=422)
        return pages.go("/access", "Your password was changed. Your other sessions were ended.")

    return router
