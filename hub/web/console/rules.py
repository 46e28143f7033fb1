"""Rules: list, form with a live preview."""

from __future__ import annotations

import re
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from hub.app.lifecycle import Hub
from hub.codec import loads
from hub.config.definitions import METHODS, RuleSpec, parse_spec
from hub.config.documents import rule_document
from hub.errors import (
    ConfigError,
    ConflictError,
    HubError,
    PayloadError,
    StaleError,
)
from hub.models import JSON, Event, Rule
from hub.operations import preview as operation
from hub.web.authorization import Access, needs
from hub.web.console.filters import digits, pretty, segment
from hub.web.console.form_errors import RULE_LABELS, FormError, form_errors
from hub.web.console.forms import Form
from hub.web.console.links import back
from hub.web.console.pages import Pages

_BLANK: dict[str, Any] = {
    "name": "",
    "event": "",
    "service": "",
    "endpoint": "",
    "method": "POST",
    "payload": None,
    "conditions": None,
    "strict": False,
    "ordering_key": "",
    "on_failure": "block",
    "enabled": True,
}
_AT = re.compile(r"line (\d+) column (\d+)")
_PLACEHOLDERS = ("event.name", "event.id", "task.id", "now")


def make_rules(pages: Pages) -> APIRouter:
    """Return the routes of `/rules`."""
    router = pages.router()
    hub = pages.hub

    @router.get("/rules")
    @needs(Access.ROLE_VIEW)
    def list_(request: Request, service: str = "") -> Response:
        rows = [rule for rule in hub.configuration.rules() if not service or rule.service == service]
        services = [s.name for s in hub.configuration.services()]
        return pages.render(request, "rules.html", rows=rows, service=service, services=services)

    def form_page(
        request: Request,
        document: dict[str, Any],
        *,
        old: str | None,
        version: int,
        problem: str = "",
        errors: list[FormError] | None = None,
        status: int = 200,
    ) -> Response:
        return pages.render(
            request,
            "rule_form.html",
            status,
            d=document,
            payload=_text(document["payload"]),
            conditions=_text(document["conditions"]),
            old=old,
            version=version,
            problem=problem,
            errors=errors,
            methods=METHODS,
            services=[s.name for s in hub.configuration.services()],
            names=hub.views.events.names(limit=200),
            placeholders=_PLACEHOLDERS,
        )

    @router.get("/rules/new")
    @needs(Access.ROLE_MANAGE)
    def new(request: Request, event: str = "", service: str = "") -> Response:
        return form_page(request, _BLANK | {"event": event, "service": service}, old=None, version=0)

    @router.post("/rules/new")
    @needs(Access.ROLE_MANAGE)
    def add(request: Request) -> Response:
        form: Form = request.state.form
        try:
            rule = hub.registry.rules.add(parse_spec(RuleSpec, _document(form)))
        except HubError as e:
            return form_page(request, _typed(form), old=None, version=0, errors=form_errors(e, RULE_LABELS), status=422)
        return pages.go("/rules", f"Rule {rule.name} was added. Matching events create tasks from now on.")

    @router.get("/rules/{name}/edit")
    @needs(Access.ROLE_MANAGE)
    def edit(request: Request, name: str) -> Response:
        rule = hub.configuration.rule(name)
        return form_page(request, rule_document(rule), old=name, version=rule.version)

    @router.post("/rules/{name}/edit")
    @needs(Access.ROLE_MANAGE)
    def save(request: Request, name: str) -> Response:
        form: Form = request.state.form
        version = digits(form.get("version"))
        try:
            rule = hub.registry.rules.update(name, _document(form), version)
        except StaleError:
            problem = (
                "Somebody else changed this rule while you edited it. The form shows your version; saving again"
                " overwrites theirs. Cancel to see theirs."
            )
            return form_page(
                request,
                _typed(form),
                old=name,
                version=hub.configuration.rule(name).version,
                problem=problem,
                status=409,
            )
        except (ConfigError, ConflictError, PayloadError) as e:
            errors = form_errors(e, RULE_LABELS)
            return form_page(request, _typed(form), old=name, version=version or 0, errors=errors, status=422)
        return pages.go("/rules", f"Rule {rule.name} was saved.")

    @router.post("/rules/preview")
    @needs(Access.ROLE_VIEW)
    def preview(request: Request) -> Response:
        return JSONResponse(_preview(hub, request.state.form))

    @router.post("/rules/{name}/enable")
    @needs(Access.ROLE_MANAGE)
    def enable(request: Request, name: str) -> Response:
        hub.registry.rules.enable(name, True)
        return pages.go(back(request, "/rules"), f"{name} was enabled. Its held tasks continue.")

    @router.post("/rules/{name}/disable")
    @needs(Access.ROLE_MANAGE)
    def disable(request: Request, name: str) -> Response:
        hub.registry.rules.enable(name, False)
        return pages.go(back(request, "/rules"), f"{name} was disabled. Its tasks are held.")

    @router.post("/rules/{name}/delete")
    @needs(Access.ROLE_MANAGE)
    def delete(request: Request, name: str) -> Response:
        hub.registry.rules.delete(name)
        return pages.go("/rules", f"{name} was deleted. Its remaining tasks are orphans in the queue.")

    @router.get("/rules/{name}")
    @needs(Access.ROLE_VIEW)
    def show(request: Request, name: str) -> Response:
        rule = hub.configuration.rule(name)
        if request.state.session.role == "manage":
            return pages.go(f"/rules/{segment(name)}/edit")
        document = rule_document(rule)
        texts = {field: _text(document[field]) for field in ("payload", "conditions")}
        return pages.render(request, "rule.html", rule=rule, texts=texts, found=_rendered(hub, rule))

    return router


def _text(value: JSON) -> str:
    return value if isinstance(value, str) else "" if value is None else pretty(value)


def _typed(form: Form) -> dict[str, Any]:
    """The form's values as typed, to be shown again."""
    return {
        "name": form.get("name"),
        "event": form.get("event"),
        "service": form.get("service"),
        "endpoint": form.get("endpoint"),
        "method": form.get("method", "POST"),
        "payload": form.raw("payload"),
        "conditions": form.raw("conditions"),
        "strict": "strict" in form,
        "ordering_key": form.get("ordering_key"),
        "on_failure": form.get("on_failure", "block"),
        "enabled": "enabled" in form,
    }


def _document(form: Form) -> dict[str, Any]:
    document = _typed(form)
    document["payload"] = document["payload"] or None
    text = document["conditions"]
    try:
        document["conditions"] = loads(text) if text.strip() else None
    except PayloadError as e:
        raise ConfigError(str(e), field="conditions") from None
    return document


def _preview(hub: Hub, form: Form) -> dict[str, Any]:
    """Render the typed rule for the latest event of its name; saves and sends nothing."""
    name = form.get("event")
    try:
        document = _document(form) | {"name": "preview", "service": "preview"}
        spec: RuleSpec = parse_spec(RuleSpec, document | {"event": name or "*"})
    except ConfigError as e:
        event, source = sample_event(hub, name)
        return {"source": source, "sample": pretty(event.data), "body": None, "endpoint": None} | _problem(e)
    return _rendered(
        hub,
        Rule(0, "preview", name, 0, "", spec.endpoint, spec.method, spec.template(), spec.conditions, spec.strict),
    )


def _rendered(hub: Hub, rule: Rule) -> dict[str, Any]:
    event, source = sample_event(hub, rule.event)
    shown: dict[str, Any] = {"source": source, "sample": pretty(event.data), "body": None, "endpoint": None}
    found = operation.preview(hub, rule, event)
    if found.error is not None:
        return shown | _problem(found.error)
    matches = not rule.event or found.matches
    return shown | {"body": pretty(found.body), "endpoint": found.endpoint, "matches": matches, "error": None}


def _problem(e: HubError) -> dict[str, Any]:
    at = _AT.search(str(e))
    return {
        "error": str(e),
        "line": int(at[1]) if at else None,
        "column": int(at[2]) if at else None,
        "field": str(e).partition(":")[0],
    }


def sample_event(hub: Hub, name: str) -> tuple[Event, str]:
    """(event, its source in words): the latest event that matches the name, or an example."""
    latest = operation.latest_event(hub, name)
    if latest is not None:
        return latest, f"the latest {latest.name}"
    chosen = name.replace("*", "user_created") if name else "\\core\\event\\user_created"
    example: dict[str, JSON] = {
        "eventname": chosen,
        "objectid": 5,
        "userid": 2,
        "courseid": 0,
        "relateduserid": None,
        "other": {"username": "student1"},
        "timecreated": 1708258939,
    }
    return Event(chosen, example), "an example, because no such event was received yet"
