"""`GET /api/v1/events`: accepted events, listed, searched, and one with its whole story."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field

from hub.app.lifecycle import Hub
from hub.domain.search_query import parse_query
from hub.web.api import parameters, shapes
from hub.web.api.routers import routers
from hub.web.authentication import Authenticator

_SECONDS = 5.0  # of one page of a search


class Event(shapes.Shape):
    number: int = Field(description="Its number in the ledger, in the order of acceptance.")
    id: str = Field(description="The id that it was accepted with.")
    name: str
    created_at: shapes.Utc
    source: str | None = Field(description="Who sent it, such as `token:7`; null: a command or Python.")
    depth: int = Field(description="How many events caused each other before it.")
    matched: int | None = Field(description="Rules that matched when it was accepted; null: accepted before 0.3.")
    state: Literal["dead", "pending", "delivered", "cancelled", "unmatched"]
    pending: int = Field(description="Live tasks.")
    delivered: int
    dead: int
    cancelled: int


class EventPage(BaseModel):
    """Events, newest first. Of a search, a page may be short although `next` is given: its time was up."""

    items: list[Event]
    next: int | None = Field(None, description="Give it as `before` to go on; null: this is the last page.")
    indexed: bool = Field(True, description="Whether search keys found them; false: events were read one by one.")
    read: int = Field(0, description="Events that were read one by one for this page.")
    low: int = Field(0, description="Number at which the search ends; `next` moves towards it.")


class RuleReason(shapes.Shape):
    rule: str
    service: str
    matched: bool = Field(description="Whether the rule, as it is now, matches the event.")
    reason: str = Field(description="Why it matches, or which conditions do not hold.")
    rule_is: Literal["unchanged", "changed", "added", "deleted"] = Field(
        description="What happened to the rule since the event was accepted."
    )
    enabled: bool
    tasks: list[int] = Field(description="Tasks that it made of the event.")


class StoryTask(shapes.Shape):
    id: int
    rule: str | None
    service: str | None
    state: str = Field(description="pending, running, delayed, blocked, held, delivered, dead, cancelled or replayed.")
    attempts: int
    next_run_at: shapes.Utc | None
    waits_for: str | None
    waits_until: shapes.Utc | None
    ended_at: shapes.Utc | None
    last_error: str | None
    dead_letter_id: int | None


class Cause(shapes.Shape):
    task_id: int
    number: int
    id: str


class EventStory(Event):
    data: Any = None
    rules: list[RuleReason]
    tasks: list[StoryTask]
    deliveries: list[shapes.Delivery] = Field(description="Attempts, oldest first; the latest 200.")
    responses: list[shapes.Delivery] = Field(description="Messages and webhook calls that answer to its tasks.")
    dead_letters: list[shapes.DeadLetter]
    caused: list[Event] = Field(description="Events made of those responses.")
    caused_by: Cause | None


def make_event_log(hub: Hub, authenticator: Authenticator) -> APIRouter:
    """The endpoints that read events."""
    r = routers(hub, authenticator, "/events", "events")

    @r.view.get("", summary="List or search events", response_model=EventPage)
    def list_events(
        q: Annotated[
            str | None,
            Query(max_length=2000, description="A search, such as `relateduserid:42 status:dead since:7d`."),
        ] = None,
        name: parameters.OfEvent = None,
        matched: Annotated[bool | None, Query(description="Whether a rule matched it when it was accepted.")] = None,
        since: parameters.Since = None,
        until: parameters.Since = None,
        before: parameters.Before = None,
        limit: parameters.Limit = 50,
    ) -> dict[str, Any]:
        """With `q` a search; the other filters are for a list without it.

        Terms of a search, all of which must hold: `path:value` of the data, `event:NAME`, `service:NAME`, `status:`
        (pending, delivered, failed, dead, cancelled, unmatched, or an HTTP status), `error:"TEXT"`, `since:7d`,
        `until:TIME`, and ids of any kind (`task:7`, `dead-letter:7`, `delivery:7`). A search that no search key can
        answer reads events for at most five seconds per page, one page at a time per token.
        """
        if q is None or not q.strip():
            rows = hub.views.event_log.list(
                name=name, matched=matched, since=since, until=until, before=before, limit=limit
            )
            return {"items": rows, "next": rows[-1]["number"] if len(rows) == limit else None}
        found = hub.views.event_search.search(
            parse_query(q, hub.clock.now()), before=before, limit=limit, seconds=_SECONDS
        )
        return {
            "items": found.rows,
            "next": found.next,
            "indexed": found.indexed,
            "read": found.read,
            "low": found.low,
        }

    @r.view.get("/{event_id:path}", summary="Show an event with its whole story", response_model=EventStory)
    def show_event(
        event_id: Annotated[
            str,
            Path(max_length=300, description="The id it was accepted with, a task's, or `task:7`, `dead-letter:7`."),
        ],
    ) -> dict[str, Any]:
        """By an id of any kind. A number is an event's own id if there is one, else a task's, else a dead letter's."""
        return hub.views.stories.get(hub.views.event_log.find(event_id))

    return r.joined()
