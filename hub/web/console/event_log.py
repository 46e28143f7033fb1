"""The event log: search, and the page of one event with its whole story."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from hub.domain.search_query import Query, parse_query
from hub.errors import ConflictError, PayloadError
from hub.store.views.event_search import Found
from hub.web.authorization import Access, needs
from hub.web.console.filters import digits
from hub.web.console.links import link
from hub.web.console.pages import Pages

_PAGE = 50
_SECONDS = 2.0  # of one page of a search


def make_event_log(pages: Pages) -> APIRouter:
    """Return the routes of `/events`."""
    router = pages.router()
    hub = pages.hub

    @router.get("/events")
    @needs(Access.ROLE_VIEW)
    def list_(request: Request, q: str = "", unmatched: str = "", before: str = "") -> Response:
        problem, found = "", Found()
        try:
            query = parse_query(q, hub.clock.now())
        except PayloadError as e:
            query, problem = Query(), str(e)
        if problem:
            pass
        elif query == Query():
            rows = hub.views.event_log.list(
                matched=False if unmatched else None, before=digits(before), limit=_PAGE + 1
            )
            found = Found(rows[:_PAGE], rows[_PAGE - 1]["number"] if len(rows) > _PAGE else None, indexed=True)
        else:
            try:
                found = hub.views.event_search.search(query, before=digits(before), limit=_PAGE, seconds=_SECONDS)
            except ConflictError as e:
                problem = str(e)
            if query.id is not None and len(found.rows) == 1 and found.next is None:
                return pages.go(f"/events/{found.rows[0]['number']}")
        return pages.render(
            request,
            "events.html",
            422 if problem else 200,
            q=q,
            unmatched=unmatched,
            problem=problem,
            found=found,
            more=link("/events", q=q, unmatched=unmatched, before=found.next) if found.next else "",
            live=query == Query(),
            keys=hub.settings.search_keys,
            names=hub.views.events.names(limit=200),
        )

    @router.get("/events/find")
    @needs(Access.ROLE_VIEW)
    def find(id: str = "") -> Response:
        return pages.go(f"/events/{hub.views.event_log.find(id)}")

    @router.get("/events/{number}")
    @needs(Access.ROLE_VIEW)
    def show(request: Request, number: int) -> Response:
        story = hub.views.stories.get(number)
        named = [rule for rule in story["rules"] if rule["tasks"] or not rule["reason"].startswith("the event's name")]
        return pages.render(request, "event.html", event=story, rules=named, others=len(story["rules"]) - len(named))

    return router
