"""`/api/v1/breakers`, `/stats` and `/event-names`: circuits, counts and known events."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from hub.app.lifecycle import Hub
from hub.operations.circuits import reset_circuits
from hub.web.api import parameters, shapes
from hub.web.api.routers import routers
from hub.web.authentication import Authenticator


class Breakers(BaseModel):
    items: list[shapes.Breaker]


class Counts(BaseModel):
    pending: int
    running: int
    delayed: int
    held: int


class Heartbeat(shapes.Shape):
    component: str
    at: shapes.Utc
    alive: int = Field(description="Processes with a heartbeat within the last minute (scheduler: three minutes).")
    clock_offset: float | None = Field(
        description="Seconds by which a machine's clock is ahead of the database's; the largest of these processes."
    )


class Stats(shapes.Shape):
    queue_depth: int = Field(description="Tasks that are due.")
    tasks: Counts
    services: dict[str, Counts]
    dead_letters: int = Field(description="Counted up to 10,000.")
    breakers: list[shapes.Breaker]
    schedules: list[shapes.Schedule]
    heartbeats: list[Heartbeat]
    oldest_due_at: shapes.Utc | None


class EventName(shapes.Shape):
    name: str
    last_seen: shapes.Utc


class EventNames(BaseModel):
    items: list[EventName]


def make_overview(hub: Hub, authenticator: Authenticator) -> APIRouter:
    """The endpoints of circuits, counts and event names."""
    r = routers(hub, authenticator, "", "overview")

    @r.view.get("/breakers", summary="List circuits", response_model=Breakers)
    def list_breakers() -> dict[str, Any]:
        return {"items": hub.views.overview.breakers()}

    @r.view.get("/breakers/{service}", summary="Show a circuit", response_model=shapes.Breaker)
    def show_breaker(service: parameters.ServiceName) -> dict[str, Any]:
        return hub.views.overview.breaker(service)

    @r.manage.post("/breakers/{service}/reset", summary="Close a circuit", response_model=shapes.Breaker)
    def reset_breaker(service: parameters.ServiceName) -> dict[str, Any]:
        reset_circuits(hub, hub.configuration.service(service))
        return hub.views.overview.breaker(service)

    @r.view.get("/stats", summary="Show counts, circuits and heartbeats", response_model=Stats)
    def stats() -> dict[str, Any]:
        return hub.views.overview.stats()

    @r.view.get("/event-names", summary="List names of accepted events", response_model=EventNames)
    def event_names(limit: parameters.Limit = 500) -> dict[str, Any]:
        return {"items": hub.views.events.names(limit=limit)}

    return r.joined()
