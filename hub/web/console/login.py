"""Signing in and out, and the one-time link that makes the first administrator."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from hub.errors import ConfigError, ConflictError
from hub.web.console.pages import COOKIE, Pages
from hub.web.gate import address
from hub.web.limits import Limiter
from hub.web.passwords import hash_password, verify_password

_RATE = 1 / 30  # wrong passwords a second in the long run,
_BY_NAME, _BY_ADDRESS = 10, 100  # and at once: many people may share an address


def make_login(pages: Pages) -> APIRouter:
    """`/login`, `/logout`, `/login/link/...`."""
    router = pages.open_router()
    accounts = pages.hub.accounts
    by_name, by_address = Limiter(_RATE, _BY_NAME), Limiter(_RATE * 10, _BY_ADDRESS)

    @router.get("/login")
    def form(request: Request, next: str = "") -> Response:
        if pages.session(request) is not None:
            return pages.go(_local(next))
        return pages.render(request, "login.html", next=next, name="", problem="", first=not accounts.users())

    @router.post("/login")
    def sign_in(request: Request) -> Response:
        given = request.state.form
        name, password, wanted = given.get("name"), given.raw("password"), given.get("next")
        # Taken before the slow check, so that many at once gain nothing.
        wait = max(by_name.take(name.lower()), by_address.take(address(request)))
        problem = f"Too many wrong passwords. Try again in {round(wait + 0.5)} seconds." if wait else ""
        status = 429
        if not problem:
            found = accounts.password_hash(name)
            if verify_password(found[1] if found else None, password) and found:
                by_name.forget(name.lower())
                _end_old(pages, request)
                return pages.sign_in(request, pages.go(_local(wanted)), accounts.start_session(found[0].id))
            problem, status = "Name or password is wrong.", 401
        response = pages.render(request, "login.html", status, next=wanted, name=name, problem=problem, first=False)
        if wait:
            response.headers["Retry-After"] = str(round(wait + 0.5))
        return response

    @router.get("/login/link/{secret}")
    def link(request: Request, secret: str) -> Response:
        if not accounts.link_is_good(secret):
            return pages.refusal(
                request, 404, "This link was used already, or is too old. `hub user link` prints a new one."
            )
        return pages.render(request, "link.html", name="", problem="")

    @router.post("/login/link/{secret}")
    def use_link(request: Request, secret: str) -> Response:
        given = request.state.form
        name, password = given.get("name"), given.raw("password")
        try:
            if password != given.raw("again"):
                raise ConfigError("the two passwords differ", field="password")
            hashed = hash_password(password)
            if any(user.name == name for user in accounts.users()):
                raise ConflictError(f"there is a user named {name!r} already")
            if not accounts.use_link(secret):
                return pages.refusal(request, 404, "This link was used already. `hub user link` prints a new one.")
            user = accounts.add_user(name, hashed, "manage")
        except (ConfigError, ConflictError) as e:
            return pages.render(request, "link.html", 422, name=name, problem=str(e))
        _end_old(pages, request)
        return pages.sign_in(request, pages.go("/", f"Welcome, {name}."), accounts.start_session(user.id))

    signed_in = pages.router()

    @signed_in.post("/logout")
    def sign_out(request: Request) -> Response:
        _end_old(pages, request)
        return pages.sign_out(pages.go("/login"))

    router.include_router(signed_in)
    return router


def _end_old(pages: Pages, request: Request) -> None:
    """A session that was there before counts no more: nobody can plant one."""
    if secret := request.cookies.get(COOKIE):
        pages.hub.accounts.end_session(secret)


def _local(path: str) -> str:
    """One of our own pages, whatever somebody wrote into the link."""
    good = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return path if good else "/"
