"""How the API's routers are made: who may use them, and which problems they document."""

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
    400: "The request cannot be read",
    401: "No token, or none that is valid",
    403: "The token's scope does not allow it",
    404: "There is no such thing",
    408: "The body did not come",
    409: "The name is taken, or it cannot be done now",
    412: "It has changed since it was read (If-Match)",
    413: "The body is too large",
    415: "The body is not JSON",
    422: "Something in the request is wrong; `errors` names the fields",
    429: "Too many requests; Retry-After says when to come again",
    500: "The hub's own fault",
    502: "The service does not answer as it should",
    503: "The database is away or busy; Retry-After says when to come again",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """These problems, and those of every endpoint, for the OpenAPI document."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    every = (400, 401, 403, 422, 429, 500, 503)
    return {status: {"description": _TEXTS[status], "content": content} for status in sorted({*every, *statuses})}


class _Id(Convertor[str]):
    """`{task_id:id}` in a path: a number, so that a word in its place (`/tasks/run`) finds its own route or none.

    The number's range is checked where the parameter is declared.
    """

    regex = "-?[0-9]+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("id", _Id())


@dataclass(frozen=True, slots=True)
class Routers:
    """A resource's routers: `view` needs the scope view, `manage` the scope manage."""

    view: APIRouter
    manage: APIRouter

    def joined(self) -> APIRouter:
        """Both as one, under the API's prefix."""
        router = APIRouter(prefix=PREFIX)
        router.include_router(self.view)
        router.include_router(self.manage)
        return router


def routers(hub: Hub, authenticator: Authenticator, path: str, tag: str) -> Routers:
    """Routers of one resource."""
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
