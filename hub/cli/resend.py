"""`hub log resend` and `hub events resend`: send again what was sent before."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hub.cli.common import (
    JsonFlag,
    ServiceFilter,
    Since,
    Yes,
    confirm,
    open_hub,
    parse_json,
    parse_time,
    progress,
    read_text,
    usage,
)
from hub.cli.output import err, print_json

if TYPE_CHECKING:
    from hub.operations.resend import Outcome

Payload = Annotated[str | None, typer.Option("--payload", help="Send this JSON instead, once: JSON or @file.")]
Endpoint = Annotated[str | None, typer.Option("--endpoint", help="Send to this endpoint instead, once.")]
_SKIPPED = {
    "rule_deleted": "their rule or service was deleted",
    "event_gone": "their event is no longer stored",
    "erased": "the data of their event was erased",
    "live": "their task is still live",
}


def resend(
    ids: Annotated[list[int] | None, typer.Argument(metavar="[ID]...", help="Deliveries.")] = None,
    service: ServiceFilter = None,
    event: Annotated[str | None, typer.Option("--event", help="Name, or its beginning and *.")] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Only failures.")] = False,
    status: Annotated[int | None, typer.Option("--status", help="HTTP status.")] = None,
    since: Since = None,
    until: Annotated[str | None, typer.Option("--until", help="ISO time, or an age.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    payload: Payload = None,
    endpoint: Endpoint = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many it would be.")] = False,
    yes: Yes = False,
    as_json: JsonFlag = False,
) -> None:
    """Send deliveries again, successful ones too: a new task of the same event and rule with its own key."""
    filters = (service, event, status, since, until)
    chosen = any(value is not None for value in filters) or failed
    if ids and (chosen or all_):
        raise usage("give either ids, or --service, --event, --failed, --status, --since, --until, --all")
    if not ids and not chosen and not all_:
        raise usage("which ones? ID, --service S, --event E, --failed, --since T, or --all")
    edit = _edit(payload, endpoint)
    if edit and (ids is None or len(ids) != 1):
        raise usage("--payload and --endpoint go with one ID")
    if ids and dry_run:
        raise usage("--dry-run counts what matches; an ID is one")
    from hub.operations import resend as operation

    with open_hub() as hub:
        if ids:
            _report(operation.resend(hub, ids, **edit), as_json=as_json)
            return
        wanted = operation.Matching(
            service=service,
            event=event,
            failed=True if failed else None,
            status=status,
            since=parse_time(since),
            until=parse_time(until),
        )
        would = operation.would_resend(hub, wanted)
        if dry_run:
            if as_json:
                print_json({"resent": 0, "would_resend": would.count, "tasks": [], "skipped": would.skipped})
            else:
                print(f"{would.count} delivery(s) would be sent again")
                _say_skipped(would)
            return
        if would.count:
            confirm(f"Send {would.count} delivery(s) again?", yes=yes)
        with progress("sent again", would.count) as (bar, bar_task):
            done = operation.resend_matching(
                hub,
                replace(wanted, up_to=would.up_to),
                told=lambda n: bar.update(bar_task, completed=n),
            )
    _report(done, as_json=as_json)


def resend_event(
    id_: Annotated[str, typer.Argument(metavar="ID", help="Of the event, as `hub emit` printed it.")],
    rule: Annotated[
        list[str] | None, typer.Option("--rule", help="Only for this rule; may be repeated. Else all that match.")
    ] = None,
    payload: Payload = None,
    endpoint: Endpoint = None,
    as_json: JsonFlag = False,
) -> None:
    """Send an event again: a new task for each enabled rule that matches it."""
    from hub.operations import resend as operation

    with open_hub() as hub:
        done = operation.resend_event(hub, id_, rule or (), **_edit(payload, endpoint))
    _report(done, as_json=as_json)


def _edit(payload: str | None, endpoint: str | None) -> dict[str, Any]:
    edit: dict[str, Any] = {}
    if payload is not None:
        edit["payload"] = parse_json(read_text(payload), "--payload")
    if endpoint is not None:
        edit["endpoint"] = endpoint
    return edit


def _report(done: Outcome, *, as_json: bool) -> None:
    if as_json:
        print_json({"resent": done.count, "tasks": done.tasks, "skipped": done.skipped})
        return
    tasks = f": task {', '.join(map(str, done.tasks))}" if 0 < len(done.tasks) <= 10 else ""
    print(f"{done.count} sent again{tasks}")
    _say_skipped(done)


def _say_skipped(outcome: Outcome) -> None:
    for why, count in outcome.skipped.items():
        err.print(f"{count} left out: {_SKIPPED.get(why, why)}")
