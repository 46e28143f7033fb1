"""`POST /api/v1/rules/{name}/backfill` and `/api/v1/backfills`: a rule over past events."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from hub.app.lifecycle import Hub
from hub.operations import backfill as operation
from hub.web.api import parameters, shapes
from hub.web.api.routers import PREFIX, routers
from hub.web.authentication import Authenticator

_PATIENCE = 10.0  # seconds of a count that a request waits for


class Start(parameters.Given):
    """Which past events, and how fast."""

    since: parameters.Moment = Field(description="Events accepted at this time or later.")
    until: parameters.Moment | None = Field(None, description="Events accepted before; left out: until now.")
    rate: Annotated[float, Field(gt=0, le=10_000)] = Field(operation.RATE, description="Most tasks made in a second.")
    dry_run: bool = Field(False, description="Only count.")


class Counted(BaseModel):
    rule: str
    since: shapes.Utc
    until: shapes.Utc
    matched: int = Field(description="Events that match the rule.")
    skipped: int = Field(description="Of those, events that have or had a task of this rule.")
    tasks: int = Field(description="Tasks that would be made.")
    complete: bool = Field(description="false: the count took too long; the numbers are what was found until then.")
    dry_run: bool = True


class Backfill(BaseModel):
    id: int
    rule: str
    state: Literal["running", "paused", "cancelled", "done"]
    since: shapes.Utc
    until: shapes.Utc
    rate: float
    progress: float = Field(description="Part of the events that was looked at, from 0 to 1.")
    expected: int | None = Field(description="Tasks that were counted at the start; null: the count took too long.")
    matched: int = Field(description="Events that matched so far.")
    skipped: int = Field(description="Of those, events that have or had a task of this rule.")
    tasks: int = Field(description="Tasks made so far.")
    waits_for: str | None = Field(description="Why no tasks are made at the moment.")
    actor: str
    created_at: shapes.Utc
    updated_at: shapes.Utc
    ended_at: shapes.Utc | None


def make_backfills(hub: Hub, authenticator: Authenticator) -> APIRouter:
    """The endpoints of backfills."""
    of_rules = routers(hub, authenticator, "/rules", "rules").manage
    r = routers(hub, authenticator, "/backfills", "backfills")

    @of_rules.post(
        "/{name}/backfill",
        status_code=202,
        summary="Backfill a rule over past events",
        response_model=Backfill | Counted,
    )
    def start(name: parameters.RuleName, what: Start) -> dict[str, Any]:
        """Counts, and starts a backfill: a worker makes a task of this rule for each event that has none.

        The tasks wait behind live ones. A dry run only counts. A count stops after 10 s.
        """
        rule = hub.configuration.rule(name)
        until = what.until or hub.clock.now()
        end = time.monotonic() + _PATIENCE
        counted = operation.count(hub, rule, what.since, until, go_on=lambda: time.monotonic() < end)
        if what.dry_run:
            return {
                "rule": rule.name,
                "since": what.since,
                "until": until,
                "matched": counted.matched,
                "skipped": counted.skipped,
                "tasks": counted.tasks,
                "complete": counted.complete,
            }
        expected = counted.tasks if counted.complete else None
        return _shown(operation.start(hub, rule, what.since, until, rate=what.rate, expected=expected))

    @r.view.get("", summary="List backfills", response_model=shapes.Page[Backfill])
    def list_backfills(
        rule: parameters.OfRule = None, before: parameters.Before = None, limit: parameters.Limit = 50
    ) -> dict[str, Any]:
        found = hub.backfills.list(rule=rule, before=before, limit=limit)
        return shapes.page([_shown(each) for each in found], limit)

    @r.view.get("/{backfill_id:id}", summary="Show a backfill", response_model=Backfill)
    def show(backfill_id: parameters.Id) -> dict[str, Any]:
        return _shown(hub.backfills.get(backfill_id))

    @r.manage.post("/{backfill_id:id}/pause", summary="Pause a backfill", response_model=Backfill)
    def pause(backfill_id: parameters.Id) -> dict[str, Any]:
        """No more tasks are made; those that were made go on."""
        return _shown(hub.backfills.pause(backfill_id))

    @r.manage.post("/{backfill_id:id}/resume", summary="Continue a paused backfill", response_model=Backfill)
    def resume(backfill_id: parameters.Id) -> dict[str, Any]:
        return _shown(hub.backfills.resume(backfill_id))

    @r.manage.post("/{backfill_id:id}/cancel", summary="Cancel a backfill", response_model=Backfill)
    def cancel(backfill_id: parameters.Id) -> dict[str, Any]:
        """It ends for good; those of its tasks that still wait are deleted."""
        return _shown(operation.cancel(hub, backfill_id)[0])

    router = APIRouter(prefix=PREFIX)
    for part in (of_rules, r.view, r.manage):
        router.include_router(part)
    return router


def _shown(found: operation.Backfill) -> dict[str, Any]:
    return {name: getattr(found, name) for name in Backfill.model_fields}
