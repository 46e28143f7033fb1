"""`/api/v1/dead-letters`: tasks that failed finally, kept until a person replays or deletes them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from hub.app.lifecycle import Hub
from hub.codec import readable
from hub.operations import dead_letters as operation
from hub.operations import replay as replays
from hub.web.api import parameters, shapes
from hub.web.api.routers import routers
from hub.web.authentication import Authenticator
from hub.web.problems import Problem

_MOST = 10_000  # replayed by one request

Reason = Annotated[Literal["attempts", "expired", "worker_lost"] | None, Query()]


class Replay(parameters.Given):
    """Which dead letters to replay: by id, by service and time, or all."""

    ids: parameters.Ids | None = None
    service: Annotated[str, Field(max_length=100, pattern=r"^[^\x00]*$")] | None = None
    since: parameters.Moment | None = None
    until: parameters.Moment | None = None
    all: bool = False
    up_to: Annotated[int, Field(ge=0, lt=2**63)] | None = Field(
        None, description="Only dead letters up to this id. To continue a run, the `up_to` of its last response."
    )
    before: bool = Field(
        False,
        description="Place them in front of the tasks that wait with the same ordering key; false: behind them.",
    )
    dry_run: bool = Field(False, description="Only count.")

    @property
    def chosen(self) -> bool:
        """Whether the request chooses anything. An empty choice does not mean all."""
        return self.all or any(v is not None for v in (self.ids, self.service, self.since, self.until))


class Replayed(BaseModel):
    replayed: int
    tasks: list[int] = Field(description="The new tasks.")
    orphans: int = Field(description="Not replayed, because their rule or service was deleted.")
    remaining: int = Field(
        description="Not replayed yet (at most 10,000 per request): repeat the request with `up_to`."
    )
    up_to: int = Field(0, description="The newest dead letter at the start; later ones are not replayed.")
    dry_run: bool = False


class Chosen(parameters.Given):
    ids: parameters.Ids


class Deleted(BaseModel):
    deleted: int


def make_dead_letters(hub: Hub, authenticator: Authenticator) -> APIRouter:
    """The endpoints of dead letters."""
    r = routers(hub, authenticator, "/dead-letters", "dead letters")

    @r.view.get("", summary="List dead letters", response_model=shapes.Page[shapes.DeadLetter])
    def list_dead_letters(
        service: parameters.OfService = None,
        rule: parameters.OfRule = None,
        event: parameters.OfEvent = None,
        reason: Reason = None,
        since: parameters.Since = None,
        until: parameters.Since = None,
        before: parameters.Before = None,
        limit: parameters.Limit = 50,
    ) -> dict[str, Any]:
        rows = hub.views.dead_letters.list(
            service=service,
            rule=rule,
            event=event,
            reason=reason,
            since=since,
            until=until,
            before=before,
            limit=limit,
        )
        return shapes.page(rows, limit)

    @r.view.get(
        "/export",
        summary="Export dead letters as NDJSON",
        response_class=Response,
        responses={
            200: {
                "content": {"application/x-ndjson": {"schema": {"type": "string"}}},
                "description": "One dead letter per line, newest first, with the event's data.",
            }
        },
    )
    def export(
        service: parameters.OfService = None,
        rule: parameters.OfRule = None,
        event: parameters.OfEvent = None,
        reason: Reason = None,
        since: parameters.Since = None,
        until: parameters.Since = None,
    ) -> StreamingResponse:
        rows = operation.export(hub, operation.Filter(service, rule, event, reason, since, until))
        first = next(rows, None)  # before the head is sent, so that an error has its own status
        return StreamingResponse(_lines(first, rows), media_type="application/x-ndjson")

    @r.manage.post("/replay", summary="Replay dead letters", response_model=Replayed)
    def replay(what: Replay) -> dict[str, Any]:
        """Each becomes a new task of the same rule and event, with attempts from 0 and a new idempotency key."""
        if not what.chosen:
            raise Problem(422, "give ids, service, since or until, or all: true", field="ids")
        if what.ids is not None and (what.service or what.since or what.until):
            raise Problem(422, "give either ids, or service and time", field="ids")
        if what.dry_run:
            return _counted(hub, what)
        return _replay(hub, what)

    @r.manage.post("/delete", summary="Delete dead letters", response_model=Deleted)
    def delete_many(chosen: Chosen) -> dict[str, Any]:
        """Their events are not delivered. Ids without a dead letter are ignored."""
        return {"deleted": operation.delete(hub, chosen.ids, missing_ok=True)}

    @r.view.get("/{dead_letter_id:id}", summary="Show a dead letter", response_model=shapes.DeadLetterDetail)
    def show(dead_letter_id: parameters.Id) -> dict[str, Any]:
        return _detail(hub, dead_letter_id)

    @r.manage.post("/{dead_letter_id:id}/replay", summary="Replay a dead letter", response_model=Replayed)
    def replay_one(dead_letter_id: parameters.Id, before: bool = False) -> dict[str, Any]:
        """With `before` it goes in front of the tasks that wait with the same ordering key, else behind them."""
        hub.views.dead_letters.get(dead_letter_id)
        result = _replay(hub, Replay.model_validate({"ids": [dead_letter_id], "before": before}))
        if not result["replayed"]:
            raise Problem(409, f"dead letter {dead_letter_id} cannot be replayed: its rule or service was deleted")
        return result

    @r.manage.delete("/{dead_letter_id:id}", summary="Delete a dead letter", response_model=Deleted)
    def delete(dead_letter_id: parameters.Id) -> dict[str, Any]:
        """Its event is not delivered. The table `cancellations` and the audit trail record who deleted it."""
        return {"deleted": operation.delete(hub, [dead_letter_id])}

    return r.joined()


def _chosen(what: Replay) -> replays.Chosen:
    ids = tuple(dict.fromkeys(what.ids)) if what.ids is not None else None
    return replays.Chosen(ids=ids, service=what.service, since=what.since, until=what.until, up_to=what.up_to)


def _counted(hub: Hub, what: Replay) -> dict[str, Any]:
    chosen = hub.dead_letters.bounded(_chosen(what))
    left, orphans = hub.dead_letters.would_replay(chosen)
    return {"replayed": 0, "tasks": [], "orphans": orphans, "remaining": left, "up_to": chosen.up_to, "dry_run": True}


def _replay(hub: Hub, what: Replay) -> dict[str, Any]:
    if what.ids is not None:
        done = replays.replay_ids(hub.dead_letters, what.ids, before=what.before)
    else:
        done = replays.replay(hub.dead_letters, _chosen(what), most=_MOST, before=what.before)
    return {
        "replayed": len(done.tasks),
        "tasks": done.tasks,
        "orphans": done.orphans,
        "remaining": done.remaining,
        "up_to": done.up_to,
    }


def _detail(hub: Hub, dead_letter_id: int) -> dict[str, Any]:
    row = hub.views.dead_letters.get(dead_letter_id)
    return row | {"event_data": readable(row["event_data"])}


def _lines(first: dict[str, Any] | None, rows: Iterator[dict[str, Any]]) -> Iterator[bytes]:
    """NDJSON lines."""
    while first is not None:
        yield shapes.DeadLetterDetail.model_validate(first).model_dump_json().encode() + b"\n"
        first = next(rows, None)
