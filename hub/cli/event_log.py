"""`hub events`: accepted events, found and explained, and sent again."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hub.cli import resend
from hub.cli.common import Before, JsonFlag, Limit, Since, open_records, parse_time, progress, usage
from hub.cli.output import err, print_json, show_object, show_rows

if TYPE_CHECKING:
    from hub.app.records import Records
    from hub.domain.search_query import Query

app = typer.Typer(no_args_is_help=True, help="Accepted events: found, explained, sent again.", rich_markup_mode=None)
app.command("resend")(resend.resend_event)
_COLUMNS = ("number", "created_at", "id", "name", "state", "pending", "delivered", "dead", "cancelled")


@app.command("list")
def list_(
    name: Annotated[str | None, typer.Option("--name", help="Name, or its beginning and *.")] = None,
    unmatched: Annotated[bool, typer.Option("--unmatched", help="Only those that matched no rule.")] = False,
    since: Since = None,
    until: Annotated[str | None, typer.Option("--until", help="ISO time, or an age.")] = None,
    before: Before = None,
    limit: Limit = 50,
    as_json: JsonFlag = False,
) -> None:
    """Events, newest first. --before takes a `number`."""
    filters: dict[str, Any] = {
        "name": name,
        "matched": False if unmatched else None,
        "since": parse_time(since),
        "until": parse_time(until),
        "before": before,
    }
    with open_records() as hub:
        rows = hub.views.event_log.list(**filters, limit=limit)
    show_rows(
        rows,
        _COLUMNS,
        as_json=as_json,
        filters=(name, unmatched, since, until, before),
        empty="no events yet",
    )


@app.command()
def search(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="Such as: relateduserid:42 status:dead since:7d")],
    before: Before = None,
    limit: Limit = 50,
    as_json: JsonFlag = False,
) -> None:
    """Find events, newest first.

    Terms, all of which must hold: path:value of the data; an id of any kind (task:7, dead-letter:7, delivery:7);
    event:NAME; service:NAME; status: pending, delivered, failed, dead, cancelled, unmatched or an HTTP status;
    error:"TEXT"; since:7d; until:TIME. Ctrl-C ends a search; what was found before was printed.
    """
    from hub.domain.search_query import parse_query
    from hub.errors import PayloadError

    try:
        wanted = parse_query(query, datetime.now(UTC))
    except PayloadError as e:
        raise usage(str(e)) from None
    with open_records() as hub:
        rows = _search(hub, wanted, before, limit, as_json=as_json)
    if as_json:
        print_json(rows)
    elif not rows:
        err.print("no event matches")


def _search(hub: Records, query: Query, before: int | None, limit: int, *, as_json: bool) -> list[dict[str, Any]]:
    """All pages up to `limit` rows; people see rows as they come, and how far the search is."""
    rows: list[dict[str, Any]] = []
    with progress("searching") as (bar, task):
        while True:
            page = hub.views.event_search.search(query, before=before, limit=limit - len(rows), seconds=1)
            if page.rows and not as_json:
                show_rows(page.rows, _COLUMNS, as_json=False, empty="")
                sys.stdout.flush()
            rows += page.rows
            if page.next is None or len(rows) >= limit:
                if page.next is not None and not as_json:
                    err.print(f"more: --before {page.next}")
                return rows
            before = page.next
            bar.update(task, total=max(page.high - page.low, 1), completed=page.high - page.next)


@app.command()
def show(
    id_: Annotated[
        str, typer.Argument(metavar="ID", help="As emit printed it, the sender's own, a task's or a dead letter's.")
    ],
    as_json: JsonFlag = False,
) -> None:
    """The whole story of one event: rules and why they match, tasks and what they wait for, deliveries."""
    with open_records() as hub:
        story = hub.views.stories.get(hub.views.event_log.find(id_))
    if as_json:
        print_json(story)
        return
    lists = ("rules", "tasks", "deliveries", "responses", "dead_letters", "caused")
    show_object({name: value for name, value in story.items() if name not in lists}, as_json=False)
    for name, columns in _TABLES.items():
        if story[name]:
            print(f"\n{name.replace('_', ' ')}:")
            show_rows(story[name], columns, as_json=False, empty="")


_TABLES = {
    "rules": ("rule", "service", "matched", "reason", "rule_is", "enabled"),
    "tasks": ("id", "rule", "service", "state", "waits_for", "attempts", "last_error"),
    "deliveries": ("id", "created_at", "task_id", "service", "attempt", "status", "success", "latency_ms", "error"),
    "responses": ("id", "created_at", "task_id", "service", "event", "success"),
    "dead_letters": ("id", "created_at", "task_id", "service", "reason", "error"),
    "caused": _COLUMNS,
}
