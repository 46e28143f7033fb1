"""Routers of the API, with the scope that they need and the problems that they document."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter
from starlette.convertors import Convertor, register_url_convertor

from hub.app.lifecycle import Hub
from hub.web.api.shapes import ProblemShape
from hub.web.authentication import Authenticator, guarded
from hub.web.authorization import Access
from hub.web.problems import MEDIA_TYPE

PREFIX = "/api/v1"
_TEXTS = {
    400: "The request is malformed",
    401: "No valid token",
    403: "The token's scope does not allow it",
    404: "Not found",
    408: "The body did not arrive in time",
    409: "The name is in use, or the operation is not possible in the current state",
    412: "It has changed since it was read (If-Match)",
    413: "The body is too large",
    415: "The body is not JSON",
    422: "The request is invalid; `errors` names the fields",
    429: "Too many requests; see Retry-After",
    500: "Internal error",
    502: "The service failed",
    503: "The database is unavailable or busy; see Retry-After",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI responses: these problems and those of every endpoint."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    every = (400, 401, 403, 422, 429, 500, 503)
    return {status: {"description": _TEXTS[status], "content": content} for status in sorted({*every, *statuses})}


class _Id(Convertor[str]):
    """`{task_id:id}` in a path matches numbers only, so that `/tasks/run` is not taken for an id.

    The range is checked where the parameter is declared.
    """

    regex = "-?[0-9]+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("id", _Id())


@dataclass(frozen=True, slots=True)
class Routers:
    """The routers of a resource. `view` needs the scope `view`, `manage` the scope `manage`."""

    view: APIRouter
    manage: APIRouter

    def joined(self) -> APIRouter:
        """One router with both, under the prefix of the API."""
        router = APIRouter(prefix=PREFIX)
        router.include_router(self.view)
        router.include_router(self.manage)
        return router


def routers(hub: Hub, authenticator: Authenticator, path: str, tag: str) -> Routers:
    """Make the routers of one resource."""
    limit = hub.settings.event_limit
    return Routers(
        APIRouter(
            prefix=path,
            tags=[tag],
            route_class=guarded(authenticator, Access.SCOPE_VIEW, limit=limit),
            responses=problems(404),
        ),
        APIRouter(
            prefix=path,
            tags=[tag],
            route_class=guarded(authenticator, Access.SCOPE_MANAGE, limit=limit),
            responses=problems(404, 408, 409, 413, 415),
        ),
    )


Part = Callable[[Hub, Authenticator], APIRouter]
__all__ = ["PREFIX", "Part", "ProblemShape", "Routers", "problems", "routers"]
