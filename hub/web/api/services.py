"""`/api/v1/services`: external systems that the hub delivers to."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Body, Response
from pydantic import BaseModel, Field

from hub.app.lifecycle import Hub
from hub.config.definitions import ServiceSpec
from hub.config.documents import service_document
from hub.models import Service
from hub.operations import services
from hub.operations.service_test import run_service_test
from hub.web.api import config_shapes, parameters
from hub.web.api.partial import partial
from hub.web.api.routers import problems, routers
from hub.web.api.versions import (
    IfMatch,
    changes,
    expected,
    tagged,
)
from hub.web.authentication import Authenticator

_READ_ONLY = frozenset({"id", "created_at", "updated_at", "secrets_unreadable"})
_PATCH = partial(ServiceSpec)


class Services(BaseModel):
    items: list[config_shapes.Service]


class Deleted(BaseModel):
    deleted: str
    rules: int = Field(description="Number of its rules, which were deleted too.")


class Tested(BaseModel):
    ok: bool
    message: str = Field(description="Result in words.")


def shown(service: Service) -> dict[str, Any]:
    """A service as the API returns it, with secrets masked."""
    return service_document(service) | {
        "id": service.id,
        "version": service.version,
        "created_at": service.created_at,
        "updated_at": service.updated_at,
        "secrets_unreadable": service.secrets_unreadable,
    }


def _note(saved: services.Saved) -> dict[str, str]:
    return {"note": saved.note} if saved.note else {}


def make_services(hub: Hub, authenticator: Authenticator) -> APIRouter:
    """The endpoints of services."""
    r = routers(hub, authenticator, "/services", "services")
    as_written: dict[str, Any] = {"response_model": config_shapes.Service, "response_model_exclude_unset": True}

    @r.view.get("", summary="List services", response_model=Services, response_model_exclude_unset=True)
    def list_services() -> dict[str, Any]:
        return {"items": [shown(service) for service in hub.configuration.services()]}

    @r.manage.post("", status_code=201, summary="Add a service", **as_written)
    def add_service(spec: ServiceSpec, response: Response) -> dict[str, Any]:
        saved = services.add_service(hub, spec)
        response.headers["Location"] = f"/api/v1/services/{quote(saved.service.name)}"
        return tagged(response, shown(saved.service) | _note(saved))

    @r.view.get("/{name}", summary="Show a service", **as_written)
    def show_service(name: parameters.ServiceName, response: Response) -> dict[str, Any]:
        return tagged(response, shown(hub.configuration.service(name)))

    @r.manage.patch(
        "/{name}",
        summary="Change a service",
        responses=problems(412),
        openapi_extra={"requestBody": _PATCH},
        **as_written,
    )
    def edit_service(
        name: parameters.ServiceName,
        document: Annotated[dict[str, Any], Body()],
        response: Response,
        if_match: IfMatch = None,
    ) -> dict[str, Any]:
        """Missing members and secrets given as `***` stay unchanged; `auth` and `inbound` are merged."""
        changed, version = changes(document, if_match, read_only=_READ_ONLY)
        saved = services.update_service(hub, name, changed, version)
        return tagged(response, shown(saved.service) | _note(saved))

    @r.manage.delete(
        "/{name}", summary="Delete a service and its rules", responses=problems(412), response_model=Deleted
    )
    def delete_service(name: parameters.ServiceName, if_match: IfMatch = None) -> dict[str, Any]:
        """Its tasks become orphans, to be purged or kept."""
        return {"deleted": name, "rules": hub.registry.services.delete(name, expected(if_match))}

    def switch(name: str, enabled: bool, response: Response) -> dict[str, Any]:
        hub.registry.services.enable(name, enabled)
        return tagged(response, shown(hub.configuration.service(name)))

    @r.manage.post("/{name}/enable", summary="Enable a service", **as_written)
    def enable_service(name: parameters.ServiceName, response: Response) -> dict[str, Any]:
        return switch(name, True, response)

    @r.manage.post("/{name}/disable", summary="Disable a service: its tasks are held", **as_written)
    def disable_service(name: parameters.ServiceName, response: Response) -> dict[str, Any]:
        return switch(name, False, response)

    @r.manage.post("/{name}/test", summary="Test the connection to a service", response_model=Tested)
    def test_service(name: parameters.ServiceName) -> dict[str, Any]:
        tested = run_service_test(hub, name)
        return {"ok": tested.ok, "message": tested.message}

    return r.joined()
