"""The form that sends an event, to test rules."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from hub.codec import loads
from hub.domain.events import parse_event
from hub.errors import PayloadError
from hub.web.authorization import Access, needs
from hub.web.console.filters import digits, of, pretty
from hub.web.console.forms import Form
from hub.web.console.pages import Pages
from hub.web.console.rules import sample_event


def make_events(pages: Pages) -> APIRouter:
    """Return the routes of `/events/new`."""
    router = pages.router()
    hub = pages.hub

    def page(
        request: Request, name: str, data: str, *, source: str = "", problem: str = "", first: str = ""
    ) -> Response:
        fitting = [rule for rule in hub.configuration.rules() if rule.enabled]
        return pages.render(
            request,
            "event_form.html",
            422 if problem else 200,
            name=name,
            data=data,
            source=source,
            problem=problem,
            first=first,
            names=hub.views.events.names(limit=200),
            rules=fitting,
        )

    @router.get("/events/new")
    @needs(Access.ROLE_MANAGE)
    def new(request: Request, name: str = "", like: str = "") -> Response:
        if (number := digits(like)) is not None:
            seen = hub.views.stories.get(number)
            return page(request, seen["name"], pretty(seen["data"]), source=f"the data of event {seen['id']}")
        if not name:
            rules = [rule.event for rule in hub.configuration.rules() if rule.enabled]
            name = rules[0] if rules else "\\core\\event\\user_created"
        event, source = sample_event(hub, name)
        return page(request, event.name, pretty(event.data), source=source)

    @router.post("/events/new")
    @needs(Access.ROLE_MANAGE)
    def send(request: Request) -> Response:
        form: Form = request.state.form
        name, text = form.get("name"), form.raw("data")
        try:
            event = parse_event({"name": name, "data": loads(text)}, limit=hub.settings.event_limit)
            accepted = hub.intake.handle_event(event)
        except PayloadError as e:
            return page(request, name, text, problem=str(e))
        if accepted.duplicate:
            problem = "This event was accepted within the last minute already."
            return page(request, name, text, problem=problem, first=accepted.id)
        to = f"/events/{hub.views.event_log.find(accepted.id)}"
        if not accepted.tasks:
            return pages.go(to, "The event was accepted. No rule matches it.", bad=True)
        return pages.go(to, f"The event was accepted and created {of(len(accepted.tasks), 'task')}.")

    return router
