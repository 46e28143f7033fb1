"""`/api/v1/schedules`: scheduled tasks, their cron expressions and their runs."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field

from hub.app.lifecycle import Hub
from hub.web.api import parameters, shapes
from hub.web.api.routers import routers
from hub.web.authentication import Authenticator

Name = Annotated[str, Path(max_length=100, pattern=r"^[a-z_]+$", description="Name of a scheduled task.")]


class SetSchedule(parameters.Given):
    """What to change."""

    cron: Annotated[str, Field(max_length=1000, examples=["*/5 * * * *"])] | None = None
    enabled: bool | None = None


class Schedules(BaseModel):
    items: list[shapes.Schedule]


class NextRuns(BaseModel):
    cron: str
    next_runs: list[shapes.Utc]


def make_schedules(hub: Hub, authenticator: Authenticator) -> APIRouter:
    """The endpoints of scheduled tasks."""
    r = routers(hub, authenticator, "/schedules", "schedules")
    schedule = hub.schedule

    def shown(name: str) -> dict[str, Any]:
        row = hub.views.overview.schedule(name)
        runs: list[datetime] = schedule.preview(row["cron"], 5, name=name) if row["enabled"] else []
        return row | {"next_run_at": row["next_run_at"] or (runs[0] if runs else None), "next_runs": runs}

    @r.view.get("", summary="List scheduled tasks", response_model=Schedules)
    def list_schedules() -> dict[str, Any]:
        return {"items": [shown(row["name"]) for row in hub.views.overview.schedules()]}

    @r.view.get("/preview", summary="Preview the runs of a cron expression", response_model=NextRuns)
    def preview(
        cron: Annotated[str, Query(max_length=1000)], n: Annotated[int, Query(ge=1, le=100)] = 5
    ) -> dict[str, Any]:
        return {"cron": cron, "next_runs": schedule.preview(cron, n)}

    @r.view.get("/{name}", summary="Show a scheduled task", response_model=shapes.ScheduleDetail)
    def show(name: Name) -> dict[str, Any]:
        return shown(name)

    @r.manage.put("/{name}", summary="Change a scheduled task", response_model=shapes.ScheduleDetail)
    def put(name: Name, change: SetSchedule) -> dict[str, Any]:
        """The same as PATCH."""
        return edit(name, change)

    @r.manage.patch("/{name}", summary="Change a scheduled task", response_model=shapes.ScheduleDetail)
    def edit(name: Name, change: SetSchedule) -> dict[str, Any]:
        """Takes effect at the next minute, in every process."""
        hub.views.overview.schedule(name)
        if change.cron is not None:
            schedule.set(name, change.cron)
        if change.enabled is not None:
            schedule.enable(name, change.enabled)
        return shown(name)

    @r.manage.post("/{name}/run", status_code=202, summary="Run at the next tick", response_model=shapes.ScheduleDetail)
    def run(name: Name) -> dict[str, Any]:
        schedule.request_run(name)
        return shown(name)

    @r.manage.post("/{name}/enable", summary="Enable", response_model=shapes.ScheduleDetail)
    def enable(name: Name) -> dict[str, Any]:
        schedule.enable(name, True)
        return shown(name)

    @r.manage.post("/{name}/disable", summary="Disable", response_model=shapes.ScheduleDetail)
    def disable(name: Name) -> dict[str, Any]:
        schedule.enable(name, False)
        return shown(name)

    @r.manage.post("/{name}/reset", summary="Restore the default cron expression", response_model=shapes.ScheduleDetail)
    def reset(name: Name) -> dict[str, Any]:
        schedule.reset(name)
        return shown(name)

    @r.view.get("/{name}/runs", summary="List runs of a scheduled task", response_model=shapes.Page[shapes.Run])
    def runs(
        name: Name,
        service: parameters.OfService = None,
        failed: bool = False,
        before: parameters.Before = None,
        limit: parameters.Limit = 50,
    ) -> dict[str, Any]:
        hub.views.overview.schedule(name)
        rows = hub.views.runs.scheduled(name=name, service=service, failed=failed, before=before, limit=limit)
        return shapes.page(rows, limit)

    return r.joined()
