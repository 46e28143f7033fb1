"""`hub rule backfill` and `hub backfill`: a rule over past events."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hub.cli.common import Before, JsonFlag, Limit, Yes, confirm, open_hub, parse_time, progress, usage
from hub.cli.output import err, print_json, show_object, show_rows

if TYPE_CHECKING:
    from hub.app.lifecycle import Hub
    from hub.store.backfills import Backfill

app = typer.Typer(no_args_is_help=True, help="Backfills of rules over past events.", rich_markup_mode=None)
_FIELDS = (
    "id",
    "rule",
    "state",
    "since",
    "until",
    "rate",
    "progress",
    "expected",
    "matched",
    "skipped",
    "tasks",
    "waits_for",
    "actor",
    "created_at",
    "updated_at",
    "ended_at",
)
_COLUMNS = ("id", "rule", "state", "progress", "expected", "tasks", "skipped", "rate", "waits_for", "created_at")
_LOOK = 1.0  # seconds between two looks at a backfill that is waited for
Id = Annotated[int, typer.Argument(metavar="ID", help="Of a backfill.")]


def backfill(
    name: Annotated[str, typer.Argument(help="Of the rule.")],
    since: Annotated[str, typer.Option("--since", help="Events accepted since: ISO time, or an age: 2h, 7d.")],
    until: Annotated[str | None, typer.Option("--until", help="Events accepted before; else until now.")] = None,
    rate: Annotated[float, typer.Option("--rate", help="Most tasks made in a second.")] = 50.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for its end, with progress on stderr.")] = False,
    yes: Yes = False,
    as_json: JsonFlag = False,
) -> None:
    """Send past events to one rule. Counts first; events that have a task of the rule, or had one, are skipped.

    A worker makes the tasks in the background; they wait behind live ones.
    """
    from hub.operations import backfill as operation

    with open_hub() as hub:
        rule = hub.configuration.rule(name)
        start, end = parse_time(since), parse_time(until) or hub.clock.read()
        assert start is not None
        with progress("events read", 1000) as (bar, bar_task):
            counted = operation.count(
                hub, rule, start, end, told=lambda part: bar.update(bar_task, completed=int(part * 1000))
            )
        if dry_run:
            row = {"rule": name, "since": start, "until": end, "matched": counted.matched}
            row |= {"skipped": counted.skipped, "tasks": counted.tasks, "dry_run": True}
            show_object(row, as_json=as_json)
            return
        if not (rule.enabled and rule.service_enabled):
            err.print(f"rule {name!r} or its service is disabled: the tasks are held until it is enabled")
        question = f"Backfill rule {name!r}: {counted.tasks} task(s) for {counted.matched} event(s) that match"
        confirm(f"{question}, {counted.skipped} of them skipped?", yes=yes)
        found = operation.start(hub, rule, start, end, rate=rate, expected=counted.tasks)
        if wait:
            found = _wait(hub, found)
    if as_json:
        print_json(_row(found))
    else:
        print(f"backfill {found.id} {found.state}: {counted.tasks} task(s) expected, {found.tasks} made")
        if found.state == "running":
            err.print(f"`hub backfill show {found.id}` shows its progress; a worker must run")


def _wait(hub: Hub, found: Backfill) -> Backfill:
    with progress("tasks made", found.expected) as (bar, bar_task):
        while found.state == "running":
            time.sleep(_LOOK)
            found = hub.backfills.get(found.id)
            bar.update(bar_task, completed=found.tasks)
    return found


@app.command("list")
def list_(
    rule: Annotated[str | None, typer.Option("--rule", help="Only of this rule.")] = None,
    before: Before = None,
    limit: Limit = 50,
    as_json: JsonFlag = False,
) -> None:
    """Backfills, newest first."""
    with open_hub() as hub:
        rows = [_row(found) for found in hub.backfills.list(rule=rule, before=before, limit=limit)]
    show_rows(rows, _COLUMNS, as_json=as_json, empty="no backfill yet", filters=(rule, before))


@app.command()
def show(id_: Id, as_json: JsonFlag = False) -> None:
    """One backfill with its progress."""
    with open_hub() as hub:
        found = hub.backfills.get(id_)
    show_object(_row(found), as_json=as_json)


@app.command()
def pause(id_: Id, as_json: JsonFlag = False) -> None:
    """Make no more tasks until it is resumed; those that were made go on."""
    with open_hub() as hub:
        found = hub.backfills.pause(id_)
    _say(found, as_json=as_json)


@app.command()
def resume(id_: Id, as_json: JsonFlag = False) -> None:
    """Continue a paused backfill where it stands."""
    with open_hub() as hub:
        found = hub.backfills.resume(id_)
    _say(found, as_json=as_json)


@app.command()
def cancel(id_: Id, yes: Yes = False, as_json: JsonFlag = False) -> None:
    """End a backfill for good, and delete those of its tasks that still wait."""
    from hub.operations import backfill as operation

    with open_hub() as hub:
        found = hub.backfills.get(id_)
        if found.state not in ("running", "paused"):
            raise usage(f"backfill {id_} is {found.state}; there is nothing to cancel")
        confirm(f"Cancel backfill {id_} of rule {found.rule!r}?", yes=yes)
        found, dropped = operation.cancel(hub, id_)
    if as_json:
        print_json(_row(found) | {"tasks_deleted": dropped})
    else:
        print(f"backfill {id_} cancelled, {dropped} waiting task(s) deleted")


def _say(found: Backfill, *, as_json: bool) -> None:
    if as_json:
        print_json(_row(found))
    else:
        print(f"backfill {found.id} {found.state}")


def _row(found: Backfill) -> dict[str, Any]:
    return {name: getattr(found, name) for name in _FIELDS} | {"progress": round(found.progress, 4)}
