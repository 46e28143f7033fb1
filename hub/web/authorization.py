"""Authorization: what every route asks of its caller, declared on the route itself.

`needs` declares it beside the route's path; `check_declared` refuses to start an application that has a route
without a declaration. Nothing is derived from a path, so no name of a rule or service can change what is allowed.
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
    """What a route asks of its caller.

    A role is that of a console user's session, a scope that of an API token.
    """

    PUBLIC = "public"  # everybody; the route itself may ask for a proof, as `/metrics` does
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
    """Declare what a route asks of its caller; stands between the route's path and its function."""

    def declare(endpoint: F) -> F:
        setattr(endpoint, _ATTRIBUTE, access)
        return endpoint

    return declare


def access_of(endpoint: object) -> Access | None:
    """What a route's function declares; None: nothing."""
    found = getattr(endpoint, _ATTRIBUTE, None)
    return found if isinstance(found, Access) else None


def declared(routes: Sequence[BaseRoute]) -> Iterator[Declared]:
    """Every route, those of included routers too, with what it declares."""
    for route in iter_route_contexts(routes):
        yield Declared(route.path or "?", tuple(sorted(route.methods or ())), access_of(route.endpoint))


def check_declared(routes: Sequence[BaseRoute]) -> None:
    """Raises `RuntimeError` that names the routes which declare nothing."""
    missing = [f"{' '.join(route.methods) or '*'} {route.path}" for route in declared(routes) if route.access is None]
    if missing:
        raise RuntimeError(f"these routes do not declare who may use them: {', '.join(missing)}")
