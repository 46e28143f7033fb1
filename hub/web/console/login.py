"""Sign-in, sign-out and the one-time link that creates an administrator."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from hub.errors import ConfigError, ConflictError
from hub.store.tokens import check_name
from hub.web.authentication import address
from hub.web.authorization import Access, needs
from hub.web.console.pages import COOKIE, Pages
from hub.web.failed_logins import FailedLogins
from hub.web.passwords import HashPool, hash_password, verify_password
from hub.web.problems import Problem
from hub.web.rate_limits import Busy, RateLimiter

_WRONG = "Name or password is wrong."
_NO_LINK = "This link was used already or has expired. `hub user link` prints a new one."


def make_login(pages: Pages, guesses: FailedLogins, pool: HashPool) -> APIRouter:
    """Return the routes of `/login`, `/logout` and `/login/link/...`.

    Handlers that hash are coroutines, so that a request waiting for the pool blocks no server thread.
    """
    router = pages.open_router()
    accounts = pages.hub.accounts
    lines = RateLimiter(1.0, 10.0)  # limits log lines of refused sign-ins

    @router.get("/login")
    @needs(Access.PUBLIC)
    def form(request: Request, next: str = "") -> Response:
        if pages.session(request) is not None:
            return pages.go(_local(next))
        return pages.render(request, "login.html", next=next, name="", problem="", first=not accounts.users.list())

    @router.post("/login")
    @needs(Access.PUBLIC)
    async def sign_in(request: Request) -> Response:
        given, origin = request.state.form, address(request)
        name, password, wanted = given.get("name"), given.raw("password"), given.get("next")

        def refused(status: int, problem: str, wait: float = 0.0) -> Response:
            response = pages.render(
                request, "login.html", status, next=wanted, name=name[:100], problem=problem, first=False
            )
            if wait:
                response.headers["Retry-After"] = str(round(wait + 0.5))
            return response

        # Counted before the slow check, so that parallel guesses are limited too.
        try:
            wait = guesses.address(origin) or guesses.name(name, origin)
        except ValueError:
            accounts.trace.happened("login", "failed", user=None)
            return refused(401, _WRONG)
        if wait:
            quiet = lines.take("locked") > 0
            accounts.trace.happened("login", "locked", quiet=quiet)
            return refused(429, f"Too many wrong passwords. Try again in {round(wait + 0.5)} seconds.", wait)
        found = await run_in_threadpool(accounts.users.password_hash, name)
        try:
            good = await pool.run(lambda: verify_password(found[1] if found else None, password))
        except Busy:
            accounts.trace.happened("login", "busy", quiet=True)
            raise
        if not good or found is None:
            # Only existing names are logged: people type passwords into the name field.
            accounts.trace.happened("login", "failed", user=found[0].name if found else None)
            return refused(401, _WRONG)
        guesses.right(name, origin)
        accounts.trace.happened("login", "ok", user=found[0].name)
        secret = await run_in_threadpool(_new_session, pages, request, found[0].id)
        return pages.sign_in(request, pages.go(_local(wanted)), secret)

    def check_link(request: Request, secret: str) -> None:
        """Raise `Problem` unless the link is valid."""
        if wait := guesses.link(address(request)):
            raise Problem(
                429, "Too many wrong links. Try again later.", headers={"Retry-After": str(round(wait + 0.5))}
            )
        if not accounts.links.is_valid(secret):
            accounts.trace.happened("link", "refused")
            raise Problem(404, _NO_LINK)
        guesses.right_link(address(request))

    @router.get("/login/link/{secret}")
    @needs(Access.PUBLIC)
    def link(request: Request, secret: str) -> Response:
        check_link(request, secret)
        return pages.render(request, "link.html", name="", problem="")

    @router.post("/login/link/{secret}")
    @needs(Access.PUBLIC)
    async def use_link(request: Request, secret: str) -> Response:
        await run_in_threadpool(check_link, request, secret)
        given = request.state.form
        name, password = given.get("name"), given.raw("password")
        try:
            check_name(name)
            if password != given.raw("again"):
                raise ConfigError("the two passwords differ", field="password")
            hashed = await pool.run(lambda: hash_password(password, about=[name]))
            user = await run_in_threadpool(accounts.links.use, secret, name, hashed)
        except (ConfigError, ConflictError) as e:
            return pages.render(request, "link.html", 422, name=name[:100], problem=str(e))
        if user is None:
            raise Problem(404, _NO_LINK)
        session = await run_in_threadpool(_new_session, pages, request, user.id)
        return pages.sign_in(request, pages.go("/", f"Welcome, {name}."), session)

    signed_in = pages.router()

    @signed_in.post("/logout")
    @needs(Access.ROLE_VIEW)
    def sign_out(request: Request) -> Response:
        _end_old(pages, request)
        return pages.sign_out(pages.go("/login"))

    router.include_router(signed_in)
    return router


def _end_old(pages: Pages, request: Request) -> None:
    """End the browser's previous session (prevents session fixation)."""
    if secret := request.cookies.get(COOKIE):
        pages.hub.accounts.sessions.end(secret)


def _new_session(pages: Pages, request: Request, user_id: int) -> str:
    _end_old(pages, request)
    return pages.hub.accounts.sessions.start(user_id)


def _local(path: str) -> str:
    """A path of this site; `/` for anything else (prevents open redirects)."""
    good = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return path if good else "/"
