"""The HTTP API under `/api/v1`. `make_api(hub, authenticator)` returns its router."""

from __future__ import annotations

from fastapi import APIRouter

from hub.app.lifecycle import Hub
from hub.web.api.activity import make_activity
from hub.web.api.backfills import make_backfills
from hub.web.api.dead_letters import make_dead_letters
from hub.web.api.deliveries import make_deliveries
from hub.web.api.event_log import make_event_log
from hub.web.api.events import make_events
from hub.web.api.overview import make_overview
from hub.web.api.resends import make_resends
from hub.web.api.rules import make_rules
from hub.web.api.schedules import make_schedules
from hub.web.api.services import make_services
from hub.web.api.sources import make_sources
from hub.web.api.tasks import make_tasks
from hub.web.api.tokens import make_tokens
from hub.web.authentication import Authenticator

_PARTS = (
    make_events,
    make_event_log,
    make_services,
    make_rules,
    make_backfills,
    make_sources,
    make_tasks,
    make_dead_letters,
    make_deliveries,
    make_resends,
    make_schedules,
    make_overview,
    make_tokens,
    make_activity,
)


def make_api(hub: Hub, authenticator: Authenticator) -> APIRouter:
    """The router of all endpoints under `/api/v1`."""
    router = APIRouter()
    for make in _PARTS:
        router.include_router(make(hub, authenticator))
    return router
