"""Authorization: each route declares what its caller needs.

`needs` stands beside the route's path. `check_declared` refuses to start an application that has a route without a
declaration. Nothing is derived from a path, so the name of a rule or service cannot change what is allowed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import Any, NamedTuple, TypeVar

from fastapi.routing import iter_route_contexts
from starlette.routing import BaseRoute

F = TypeVar("F", bound=Callable[..., Any])
_ATTRIBUTE = "hub_access"


class Access(StrEnum):
    """What the caller of a route needs.

    Roles belong to sessions of console users, scopes to API tokens.
    """

    PUBLIC = "public"  # everybody; the route may have a check of its own, as `/metrics` does
    SERVICE = "service"  # a service's own inbound token or signature
    SIGNED_IN = "any token or session"
    ROLE_VIEW = "role view"
    ROLE_MANAGE = "role manage"
    SCOPE_INGEST = "scope ingest"
    SCOPE_VIEW = "scope view"
    SCOPE_MANAGE = "scope manage"


class Declared(NamedTuple):
    """One route of an application; `access` is None where nothing is declared."""

    path: str
    methods: tuple[str, ...]
    access: Access | None


def needs(access: Access) -> Callable[[F], F]:
    """Declare what the caller of a route needs. Place it between the route decorator and the function."""

    def declare(endpoint: F) -> F:
        setattr(endpoint, _ATTRIBUTE, access)
        return endpoint

    return declare


def access_of(endpoint: object) -> Access | None:
    """What a route's function declares; None if it declares nothing."""
    found = getattr(endpoint, _ATTRIBUTE, None)
    return found if isinstance(found, Access) else None


def declared(routes: Sequence[BaseRoute]) -> Iterator[Declared]:
    """Every route, including those of included routers, with what it declares."""
    for route in iter_route_contexts(routes):
        yield Declared(route.path or "?", tuple(sorted(route.methods or ())), access_of(route.endpoint))


def check_declared(routes: Sequence[BaseRoute]) -> None:
    """Raise `RuntimeError` that names the routes without a declaration."""
    missing = [f"{' '.join(route.methods) or '*'} {route.path}" for route in declared(routes) if route.access is None]
    if missing:
        raise RuntimeError(f"these routes do not declare who may use them: {', '.join(missing)}")
