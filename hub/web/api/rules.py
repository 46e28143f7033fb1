"""`/api/v1/rules`: which events are sent to which service, and as which request."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Response
from pydantic import BaseModel, Field

from hub.app.lifecycle import Hub
from hub.codec import loads
from hub.config.definitions import RuleSpec
from hub.config.documents import rule_document
from hub.domain import rules
from hub.models import Event, Rule
from hub.operations.preview import latest_event, preview
from hub.operations.trial import MOST, trial
from hub.web.api import config_shapes, parameters, shapes
from hub.web.api.partial import partial
from hub.web.api.routers import problems, routers
from hub.web.api.versions import (
    IfMatch,
    changes,
    expected,
    tagged,
)
from hub.web.authentication import Authenticator
from hub.web.problems import Problem

_READ_ONLY = frozenset({"id", "created_at", "updated_at"})
_PATCH = partial(RuleSpec)


class Rules(BaseModel):
    items: list[config_shapes.Rule]


class Deleted(BaseModel):
    deleted: str


class PreviewOf(parameters.Given):
    """A rule and the event to preview it with."""

    rule: RuleSpec | None = Field(None, description="An unsaved rule; without it, the rule of the path.")
    event: Annotated[str, Field(max_length=255, pattern=r"^[^\x00]*$")] | None = Field(
        None, description="Use the latest data of this event; without it, of an event that the rule matches."
    )
    data: Any = Field(None, description="Data to use instead of the latest data.")


class Preview(BaseModel):
    matches: bool = Field(description="The event's name and data match the rule.")
    event: str
    data: Any
    method: str
    endpoint: str | None
    body: Any = Field(None, description="The body of the request; null if there is none or rendering failed.")
    error: str | None = Field(None, description="Why no valid request can be made.")


class TrialOf(parameters.Given):
    """A rule and how many of the latest events to try it on."""

    rule: RuleSpec | None = Field(None, description="An unsaved rule; left out: the rule of the path.")
    last: int = Field(MOST, ge=1, le=MOST)


class TrialError(BaseModel):
    error: str
    events: int


class TrialRequest(BaseModel):
    event_id: str
    event: str
    created_at: shapes.Utc
    method: str
    endpoint: str
    body: Any


class Trial(BaseModel):
    events: int = Field(description="Events that were looked at, the latest ones.")
    since: shapes.Utc | None = Field(description="When the oldest of them was accepted.")
    other_name: int = Field(description="Events whose name the rule does not match.")
    conditions_failed: int = Field(description="Events whose name the rule matches, and whose data it does not.")
    matched: int = Field(description="Events that would have become a task.")
    failed: int = Field(description="Those of them that make no valid request.")
    errors: list[TrialError] = Field(description="Why, the most frequent first.")
    requests: list[TrialRequest] = Field(description="The latest requests, masked.")
    rendered: bool = Field(description="false: no requests were made, because the rule looks data up in a source.")


def shown(rule: Rule) -> dict[str, Any]:
    """A rule as the API returns it."""
    return rule_document(rule) | {
        "id": rule.id,
        "version": rule.version,
        "created_at": rule.created_at,
        "updated_at": rule.updated_at,
    }


def make_rules(hub: Hub, authenticator: Authenticator) -> APIRouter:
    """The endpoints of rules."""
    r = routers(hub, authenticator, "/rules", "rules")

    @r.view.get("", summary="List rules", response_model=Rules)
    def list_rules(
        service: parameters.OfService = None,
        event: Annotated[
            str | None, Query(max_length=255, description="Only rules that match this event name.")
        ] = None,
    ) -> dict[str, Any]:
        found = [rule for rule in hub.configuration.rules() if service is None or rule.service == service]
        if event is not None:
            found = [rule for rule in found if _fits(rule, event)]
        return {"items": [shown(rule) for rule in found]}

    @r.manage.post("", status_code=201, summary="Add a rule", response_model=config_shapes.Rule)
    def add_rule(spec: RuleSpec, response: Response) -> dict[str, Any]:
        return tagged(response, shown(hub.registry.rules.add(spec)))

    @r.view.post("/preview", summary="Preview an unsaved rule", response_model=Preview, responses=problems(413, 415))
    def preview_new(what: PreviewOf) -> dict[str, Any]:
        """Renders the request of the rule for an event. Nothing is sent."""
        if what.rule is None:
            raise Problem(422, "is missing", field="rule")
        return _preview(hub, _unsaved(what.rule), what)

    @r.view.get("/{name}", summary="Show a rule", response_model=config_shapes.Rule)
    def show_rule(name: parameters.RuleName, response: Response) -> dict[str, Any]:
        return tagged(response, shown(hub.configuration.rule(name)))

    @r.manage.patch(
        "/{name}",
        summary="Change a rule",
        responses=problems(412),
        openapi_extra={"requestBody": _PATCH},
        response_model=config_shapes.Rule,
    )
    def edit_rule(
        name: parameters.RuleName,
        document: Annotated[dict[str, Any], Body()],
        response: Response,
        if_match: IfMatch = None,
    ) -> dict[str, Any]:
        """Missing members stay unchanged."""
        changed, version = changes(document, if_match, read_only=_READ_ONLY)
        return tagged(response, shown(hub.registry.rules.update(name, changed, version)))

    @r.manage.delete("/{name}", summary="Delete a rule", responses=problems(412), response_model=Deleted)
    def delete_rule(name: parameters.RuleName, if_match: IfMatch = None) -> dict[str, Any]:
        """Its tasks become orphans, which can be purged."""
        hub.registry.rules.delete(name, expected(if_match))
        return {"deleted": name}

    def switch(name: str, enabled: bool, response: Response) -> dict[str, Any]:
        hub.registry.rules.enable(name, enabled)
        return tagged(response, shown(hub.configuration.rule(name)))

    @r.manage.post("/{name}/enable", summary="Enable a rule", response_model=config_shapes.Rule)
    def enable_rule(name: parameters.RuleName, response: Response) -> dict[str, Any]:
        return switch(name, True, response)

    @r.manage.post("/{name}/disable", summary="Disable a rule: its tasks are held", response_model=config_shapes.Rule)
    def disable_rule(name: parameters.RuleName, response: Response) -> dict[str, Any]:
        return switch(name, False, response)

    @r.view.post("/{name}/preview", summary="Preview a rule", response_model=Preview, responses=problems(413, 415))
    def preview_rule(name: parameters.RuleName, what: PreviewOf) -> dict[str, Any]:
        """Renders the request of the rule for an event. Nothing is sent."""
        return _preview(hub, _unsaved(what.rule) if what.rule else hub.configuration.rule(name), what)

    @r.view.post("/{name}/trial", summary="Try a rule on the latest events", response_model=Trial)
    def try_rule(name: parameters.RuleName, what: TrialOf | None = None) -> dict[str, Any]:
        """What the rule would have done with the latest stored events, enabled or not. Nothing is sent."""
        what = what or TrialOf.model_validate({})
        rule = _unsaved(what.rule) if what.rule else hub.configuration.rule(name)
        found = trial(hub, rule, what.last)
        return asdict(found) | {"errors": [{"error": error, "events": events} for error, events in found.errors]}

    return r.joined()


def _fits(rule: Rule, event: str) -> bool:
    return rules.matches(_bare(rule), Event(event, {}))


def _bare(rule: Rule) -> Rule:
    return Rule(rule.id, rule.name, rule.event, rule.service_id, rule.service)


def _unsaved(spec: RuleSpec) -> Rule:
    return Rule(
        id=0,
        name=spec.name,
        event=spec.event,
        service_id=0,
        service=spec.service,
        endpoint=spec.endpoint,
        method=spec.method,
        payload=spec.template(),
        conditions=spec.conditions,
        strict=spec.strict,
        ordering_key=spec.ordering_key,
        on_failure=spec.on_failure,
    )


def _preview(hub: Hub, rule: Rule, what: PreviewOf) -> dict[str, Any]:
    """The request of a rule for the latest event, or for the given data."""
    if "data" in what.model_fields_set:
        seen = latest_event(hub, rule.event) if what.event is None and "*" in rule.event else None
        event = Event(what.event or (seen.name if seen else rule.event), what.data)
    else:
        latest = latest_event(hub, rule.event if what.event is None else what.event)
        if latest is None:
            raise Problem(422, "no event of that name was accepted yet; give `data`", field="event")
        event = latest
    found = preview(hub, rule, event)
    return {
        "matches": found.matches,
        "event": event.name,
        "data": event.data,
        "method": rule.method,
        "endpoint": found.endpoint,
        "body": None if found.body is None else loads(found.body),
        "error": str(found.error) if found.error else None,
    }
