"""Scheduled tasks: expression, run now, enable, run log."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from hub.errors import ConfigError
from hub.web.authorization import Access, needs
from hub.web.console.links import back
from hub.web.console.pages import Pages

_ABOUT = {
    "consume_responses_task": "Reads the response queue of every enabled AMQP service that has one.",
    "housekeeping_task": "Deletes rows older than the retention, expired keys and lost runs.",
}


def make_schedules(pages: Pages) -> APIRouter:
    """Return the routes of `/schedules`."""
    router = pages.router()
    hub = pages.hub

    def page(request: Request, *, problem: tuple[str, str, str] | None = None, status: int = 200) -> Response:
        tasks = hub.schedule.list()
        query = request.query_params
        only = {"task": query.get("task", ""), "failed": query.get("failed", "")}
        return pages.render(
            request,
            "schedules.html",
            status,
            tasks=tasks,
            about=_ABOUT,
            problem=problem,
            zone=hub.settings.timezone,
            next_runs={t.name: hub.schedule.preview(t.cron, 5, name=t.name) for t in tasks},
            runs=hub.views.runs.all(task=only["task"] or None, failed=bool(only["failed"]), limit=40),
            only=only,
            classes=("dispatch_event_task", *_ABOUT),
        )

    @router.get("/schedules")
    @needs(Access.ROLE_VIEW)
    def list_(request: Request) -> Response:
        return page(request)

    @router.get("/schedules/{name}/preview")
    @needs(Access.ROLE_VIEW)
    def preview(request: Request, name: str, cron: str = "") -> Response:
        try:
            return JSONResponse({"runs": [at.isoformat() for at in hub.schedule.preview(cron, 5, name=name)]})
        except ConfigError as e:
            return JSONResponse({"error": str(e), "field": e.field})

    @router.post("/schedules/{name}/set")
    @needs(Access.ROLE_MANAGE)
    def set_(request: Request, name: str) -> Response:
        cron = request.state.form.get("cron")
        try:
            task = hub.schedule.set(name, cron)
        except ConfigError as e:
            return page(request, problem=(name, cron, str(e)), status=422)
        return pages.go("/schedules", f"{name} now runs at {task.cron}.")

    @router.post("/schedules/{name}/reset")
    @needs(Access.ROLE_MANAGE)
    def reset(request: Request, name: str) -> Response:
        task = hub.schedule.reset(name)
        return pages.go("/schedules", f"{name} runs at {task.cron} again.")

    @router.post("/schedules/{name}/run")
    @needs(Access.ROLE_MANAGE)
    def run(request: Request, name: str) -> Response:
        hub.schedule.request_run(name)
        return pages.go(back(request, "/schedules"), f"{name} runs within a minute.")

    @router.post("/schedules/{name}/enable")
    @needs(Access.ROLE_MANAGE)
    def enable(request: Request, name: str) -> Response:
        hub.schedule.enable(name, True)
        return pages.go("/schedules", f"{name} was enabled.")

    @router.post("/schedules/{name}/disable")
    @needs(Access.ROLE_MANAGE)
    def disable(request: Request, name: str) -> Response:
        hub.schedule.enable(name, False)
        return pages.go("/schedules", f"{name} was disabled.")

    return router
