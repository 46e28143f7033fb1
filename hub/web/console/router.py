"""The console as one router: pages and static files."""

from __future__ import annotations

import hashlib
from importlib import resources

from fastapi import APIRouter, Request
from fastapi.responses import Response

from hub.app.lifecycle import Hub
from hub.web.authorization import Access, needs
from hub.web.console.access import make_access
from hub.web.console.activity import make_activity
from hub.web.console.deliveries import make_deliveries
from hub.web.console.dlq import make_dlq
from hub.web.console.event_log import make_event_log
from hub.web.console.events import make_events
from hub.web.console.login import make_login
from hub.web.console.overview import make_overview
from hub.web.console.pages import Pages
from hub.web.console.queue import make_queue
from hub.web.console.rules import make_rules
from hub.web.console.schedules import make_schedules
from hub.web.console.send_again import make_send_again
from hub.web.console.services import make_services
from hub.web.console.sources import make_sources
from hub.web.failed_logins import FailedLogins
from hub.web.passwords import HashPool

_STATIC = {
    "hub.css": "text/css",
    "hub.js": "text/javascript",
    "idiomorph.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}


def make_console(hub: Hub) -> APIRouter:
    """Return the console's router."""
    pages = Pages(hub)
    router = APIRouter(include_in_schema=False)
    guesses, pool = FailedLogins(), HashPool()
    hub.on_close(pool.close)
    router.include_router(make_login(pages, guesses, pool))
    router.include_router(make_access(pages, guesses, pool))
    for make in (
        make_overview,
        make_services,
        make_rules,
        make_sources,
        make_events,
        make_event_log,
        make_queue,
        make_dlq,
        make_deliveries,
        make_send_again,
        make_schedules,
        make_activity,
    ):
        router.include_router(make(pages))
    files = {name: (resources.files("hub.web") / "static" / name).read_bytes() for name in _STATIC}
    tags = {name: f'"{hashlib.sha256(content).hexdigest()[:16]}"' for name, content in files.items()}

    @router.get("/static/{name}")
    @needs(Access.PUBLIC)
    async def static(request: Request, name: str) -> Response:
        if name not in files:
            return Response(status_code=404)
        headers = {"ETag": tags[name], "Cache-Control": "no-cache"}
        if request.headers.get("if-none-match") == tags[name]:
            return Response(status_code=304, headers=headers)
        return Response(files[name], media_type=_STATIC[name], headers=headers)

    return router
