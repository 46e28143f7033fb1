"""`/api/v1/sources`: event sources that the hub reads by itself."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Body, Response
from pydantic import BaseModel, Field

from hub.app.lifecycle import Hub
from hub.config.sources import SourceSpec
from hub.operations import sources
from hub.web.api import config_shapes, parameters
from hub.web.api.partial import partial
from hub.web.api.routers import problems, routers
from hub.web.api.versions import IfMatch, changes, expected, tagged
from hub.web.authentication import Authenticator

_READ_ONLY = frozenset({"id", "created_at", "updated_at", "secrets_unreadable"})
_PATCH = partial(SourceSpec)


class Sources(BaseModel):
    items: list[config_shapes.Source]


class SourceStates(BaseModel):
    items: list[config_shapes.SourceStatus]


class DeletedSource(BaseModel):
    deleted: str


class TestedSource(BaseModel):
    ok: bool
    message: str = Field(description="Result in words.")


class Reset(parameters.Given):
    to: str | int = Field("now", description="`now`, the id of a row, or a time.")


def make_sources(hub: Hub, authenticator: Authenticator) -> APIRouter:
    """The endpoints of event sources."""
    r = routers(hub, authenticator, "/sources", "sources")
    store = hub.registry.sources
    as_written: dict[str, Any] = {"response_model": config_shapes.Source}

    @r.view.get("", summary="List event sources", response_model=Sources)
    def list_sources() -> dict[str, Any]:
        return {"items": [sources.shown(source) for source in store.sources()]}

    @r.manage.post("", status_code=201, summary="Add an event source", **as_written)
    def add_source(spec: SourceSpec, response: Response) -> dict[str, Any]:
        source = store.add(spec)
        response.headers["Location"] = f"/api/v1/sources/{quote(source.name)}"
        return tagged(response, sources.shown(source))

    @r.view.get("/status", summary="Show how far event sources have been read", response_model=SourceStates)
    def list_states() -> dict[str, Any]:
        return {"items": sources.source_status(hub)}

    @r.view.get("/{name}", summary="Show an event source", **as_written)
    def show_source(name: parameters.SourceName, response: Response) -> dict[str, Any]:
        return tagged(response, sources.shown(store.source(name)))

    @r.view.get(
        "/{name}/status",
        summary="Show how far an event source has been read",
        response_model=config_shapes.SourceStatus,
    )
    def show_status(name: parameters.SourceName) -> dict[str, Any]:
        return sources.source_status(hub, name)[0]

    @r.manage.patch(
        "/{name}",
        summary="Change an event source",
        responses=problems(412),
        openapi_extra={"requestBody": _PATCH},
        **as_written,
    )
    def edit_source(
        name: parameters.SourceName,
        document: Annotated[dict[str, Any], Body()],
        response: Response,
        if_match: IfMatch = None,
    ) -> dict[str, Any]:
        """Missing members stay unchanged, and so does a password given as `***`. A new `start` counts after a reset."""
        changed, version = changes(document, if_match, read_only=_READ_ONLY)
        return tagged(response, sources.shown(store.update(name, changed, version)))

    @r.manage.delete("/{name}", summary="Delete an event source", responses=problems(412), response_model=DeletedSource)
    def delete_source(name: parameters.SourceName, if_match: IfMatch = None) -> dict[str, Any]:
        """Its position is deleted too; events that were read stay."""
        store.delete(name, expected(if_match))
        return {"deleted": name}

    @r.manage.post("/{name}/enable", summary="Enable an event source", **as_written)
    def enable_source(name: parameters.SourceName, response: Response) -> dict[str, Any]:
        return tagged(response, sources.shown(store.enable(name, True)))

    @r.manage.post("/{name}/disable", summary="Disable an event source: its position stays", **as_written)
    def disable_source(name: parameters.SourceName, response: Response) -> dict[str, Any]:
        return tagged(response, sources.shown(store.enable(name, False)))

    @r.manage.post("/{name}/test", summary="Test the connection to an event source", response_model=TestedSource)
    def test_source(name: parameters.SourceName) -> dict[str, Any]:
        tested = sources.run_source_test(hub, name)
        return {"ok": tested.ok, "message": tested.message}

    @r.manage.post("/{name}/reset", summary="Read an event source from another place on", **as_written)
    def reset_source(name: parameters.SourceName, given: Reset, response: Response) -> dict[str, Any]:
        """Events that were accepted within 24 hours are not accepted again."""
        return tagged(response, sources.shown(sources.reset_source(hub, name, str(given.to))))

    return r.joined()
