"""Authentication of API requests: tokens, their scopes, and rate limits."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool

from hub.settings import Settings
from hub.store.accounts import Accounts
from hub.store.audit import Actor, act_as
from hub.store.token_cache import TokenCache
from hub.store.tokens import Scope, Token
from hub.web.authorization import Access, needs
from hub.web.bodies import JsonRequest
from hub.web.problems import Problem
from hub.web.rate_limits import RateLimiter

_ALLOWED: dict[Scope, frozenset[Scope]] = {
    "ingest": frozenset({"ingest"}),
    "view": frozenset({"view"}),
    "manage": frozenset({"ingest", "view", "manage"}),
}
_SCOPES: dict[Access, Scope] = {
    Access.SCOPE_INGEST: "ingest",
    Access.SCOPE_VIEW: "view",
    Access.SCOPE_MANAGE: "manage",
}
_CHALLENGE = 'Bearer realm="hub"'
_FAILURES = 20  # wrong tokens that one address may send at once
_FAILURE_RATE = 0.5  # wrong tokens per second in the long run; beyond it the response is 429


class Authenticator:
    """Checks API tokens. A valid token is accepted even from an address that sent too many wrong ones."""

    def __init__(self, accounts: Accounts, settings: Settings, generation: Callable[[], int | None]) -> None:
        self._accounts = accounts
        self._cache = TokenCache(accounts.tokens, generation)
        self._requests = RateLimiter(settings.token_rate, settings.token_rate)
        self._failures = RateLimiter(_FAILURE_RATE, _FAILURES)

    def check(self, secret: str | None, needed: Scope | None, address: str) -> Token:
        """Return the token if it is valid and its scope is sufficient. Reads the database.

        Args:
            needed: the scope that is needed; None accepts any scope.

        Raises:
            Problem: 401 without a valid token, 403 the scope is not sufficient, 429 too many requests.
        """
        if secret is None:
            raise no_token()
        token = self._cache.use(secret)
        if token is None:
            wait = self._failures.take(address)
            self._accounts.trace.happened("token", "refused", quiet=wait > 0, client=address)
            if wait:
                raise _too_many(wait)
            raise Problem(
                401,
                "the token is unknown, revoked or has expired",
                headers={"WWW-Authenticate": f'{_CHALLENGE}, error="invalid_token"'},
            )
        if wait := self._requests.take(token.id):
            raise too_often("this token makes too many requests", wait)
        if needed is not None and needed not in _ALLOWED[token.scope]:
            raise Problem(403, f"a token of scope {token.scope!r} may not do this; {needed!r} may")
        return token

    def cached(self, secret: str, needed: Scope) -> Token | None:
        """The token, if it is in memory and may do what is asked now; counts the request. Never waits.

        None says nothing about the token: `check` decides.
        """
        token = self._cache.get(secret)
        if token is None or needed not in _ALLOWED[token.scope] or self._requests.take(token.id):
            return None
        return token

    def look_up(self, secrets: Sequence[str], needed: Scope, address: str) -> tuple[Token, str]:
        """Return the first secret that is a token, checked as by `check`; raises `Problem` 401 or 429 if none is."""
        for secret in secrets[:-1]:
            if self._cache.use(secret) is not None:
                return self.check(secret, needed, address), secret
        if not secrets and (wait := self._failures.take(address)):
            raise _too_many(wait)
        if not secrets:
            raise no_token()
        return self.check(secrets[-1], needed, address), secrets[-1]

    def before_body(self, address: str) -> None:
        """Refuse an address that sent too many wrong tokens, before a large body is read."""
        if wait := self._failures.wait(address):
            raise _too_many(wait)


def no_token() -> Problem:
    """401 for a request without a token."""
    challenge = {"WWW-Authenticate": _CHALLENGE}
    return Problem(401, "an API token is needed: `Authorization: Bearer hub_...`", headers=challenge)


def _too_many(wait: float) -> Problem:
    return too_often("too many wrong tokens from this address", wait)


def too_often(detail: str, wait: float) -> Problem:
    """429 with `Retry-After`; `wait` is in seconds."""
    return Problem(429, detail, headers={"Retry-After": str(max(1, round(wait + 0.5)))})


def bearer(request: Request) -> str | None:
    """The token of the Authorization header, None when there is none."""
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" and secret.strip() else None


def address(request: Request) -> str:
    """The client's address; `?` if it is unknown."""
    return request.client.host if request.client else "?"


def guarded(authenticator: Authenticator, access: Access, *, limit: int) -> type[APIRoute]:
    """A route class that declares a scope. The token is checked before the body is read; `limit` bounds it in bytes.

    Handlers find the token as `request.state.token`.
    """
    scope = _SCOPES[access]

    class GuardedRoute(APIRoute):
        def __init__(self, path: str, endpoint: Callable[..., Any], **kwargs: Any) -> None:
            kwargs["openapi_extra"] = {**(kwargs.get("openapi_extra") or {}), "security": [{"token": [scope]}]}
            super().__init__(path, needs(access)(endpoint), **kwargs)

        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def guard(request: Request) -> Response:
                token = await run_in_threadpool(authenticator.check, bearer(request), scope, address(request))
                act_as(Actor(token.name, "token", address(request)))
                bounded = JsonRequest(request.scope, request.receive)
                bounded.limit = limit
                bounded.state.token = token
                return await handle(bounded)

            return guard

    return GuardedRoute
