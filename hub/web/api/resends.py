"""Send again: `POST /api/v1/deliveries/{id}/resend`, `/deliveries/resend` and `/events/{id}/resend`."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field

from hub.app.lifecycle import Hub
from hub.operations import resend as operation
from hub.web.api import parameters
from hub.web.api.routers import PREFIX, routers
from hub.web.authentication import Authenticator
from hub.web.problems import Problem

_Text = Annotated[str, Field(max_length=255, pattern=r"^[^\x00]*$")]


class Edit(parameters.Given):
    """What this one resend sends in place of what its rule makes."""

    payload: Any = Field(None, description="JSON value to send; left out: what the rule makes of the event.")
    endpoint: Annotated[str, Field(max_length=8192)] | None = None

    def given(self) -> dict[str, Any]:
        """The arguments of the operation."""
        given: dict[str, Any] = {"endpoint": self.endpoint}
        return given | ({"payload": self.payload} if "payload" in self.model_fields_set else {})


class EventResend(Edit):
    """For which rules, and what is sent."""

    rules: Annotated[list[_Text], Field(min_length=1, max_length=100)] | None = Field(
        None, description="Names of rules; left out: all enabled rules that match the event."
    )


class Chosen(parameters.Given):
    """Which deliveries: by id, or by what they are, or all."""

    ids: parameters.Ids | None = None
    service: _Text | None = None
    event: _Text | None = Field(None, description="A name, or its beginning and `*`.")
    failed: bool | None = Field(None, description="true: only failures, false: only successes.")
    status: Annotated[int, Field(ge=100, le=999)] | None = None
    since: parameters.Moment | None = None
    until: parameters.Moment | None = None
    all: bool = False
    up_to: Annotated[int, Field(ge=0, lt=2**63)] | None = Field(
        None, description="Only deliveries up to this id: the `up_to` of a dry run, to send exactly what was counted."
    )
    dry_run: bool = Field(False, description="Only count.")

    def matching(self) -> operation.Matching:
        """The choice by what deliveries are."""
        return operation.Matching(
            self.service, self.event, self.failed, self.status, self.since, self.until, self.up_to
        )

    @property
    def filtered(self) -> bool:
        """Whether anything but ids was chosen."""
        wanted = (self.service, self.event, self.failed, self.status, self.since, self.until)
        return any(value is not None for value in wanted)


class Resent(BaseModel):
    resent: int = Field(description="Deliveries that were sent again; of a dry run, those that would be.")
    tasks: list[int] = Field(description="The new tasks.")
    skipped: dict[str, int] = Field({}, description="Left out, by reason: rule_deleted, event_gone, erased, live.")
    up_to: int = Field(0, description="The newest delivery at the start.")
    dry_run: bool = False


def make_resends(hub: Hub, authenticator: Authenticator) -> APIRouter:
    """The endpoints that send again."""
    deliveries = routers(hub, authenticator, "/deliveries", "deliveries").manage
    events = routers(hub, authenticator, "/events", "events").manage

    @deliveries.post("/resend", status_code=202, summary="Send deliveries again", response_model=Resent)
    def resend_many(chosen: Chosen) -> dict[str, Any]:
        """Each becomes a new task of the same event and rule with its own idempotency key.

        Of several attempts of one event and rule one is sent. All that match wait behind live tasks.
        """
        if chosen.ids is not None:
            if chosen.filtered or chosen.all or chosen.dry_run:
                raise Problem(422, "choose either by ids or by what the deliveries are", field="ids")
            return _shown(operation.resend(hub, chosen.ids))
        if not (chosen.filtered or chosen.all):
            raise Problem(422, "choose by ids, service, event, failed, status, since or until, or say all: true")
        if chosen.dry_run:
            return _shown(operation.would_resend(hub, chosen.matching())) | {"dry_run": True}
        return _shown(operation.resend_matching(hub, chosen.matching()))

    @deliveries.post(
        "/{delivery_id:id}/resend", status_code=202, summary="Send a delivery again", response_model=Resent
    )
    def resend_one(delivery_id: parameters.Id, edit: Edit | None = None) -> dict[str, Any]:
        """A new task of the same event and rule, with its own idempotency key and five attempts.

        `payload` and `endpoint` replace what the rule makes, for this one sending. A value that is shown as `***` is
        masked: it cannot be sent back.
        """
        return _shown(operation.resend(hub, [delivery_id], **(edit.given() if edit else {})))

    @events.post("/{event_id:path}/resend", status_code=202, summary="Send an event again", response_model=Resent)
    def resend_event(
        event_id: Annotated[str, Path(max_length=255, description="The id the event was accepted with.")],
        what: EventResend | None = None,
    ) -> dict[str, Any]:
        """A new task for each enabled rule that matches the event, or for the rules that are named."""
        given = what.given() if what else {}
        return _shown(operation.resend_event(hub, event_id, (what and what.rules) or (), **given))

    router = APIRouter(prefix=PREFIX)
    router.include_router(deliveries)
    router.include_router(events)
    return router


def _shown(outcome: operation.Outcome) -> dict[str, Any]:
    return {
        "resent": outcome.count,
        "tasks": outcome.tasks,
        "skipped": outcome.skipped,
        "up_to": outcome.up_to,
    }
