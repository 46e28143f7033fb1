"""`hub dlq`: list, replay, delete and export dead letters."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from hub.cli.common import (
    Before,
    JsonFlag,
    Limit,
    ServiceFilter,
    Since,
    Yes,
    confirm,
    open_hub,
    open_records,
    parse_time,
    progress,
    usage,
    writing,
)
from hub.cli.output import err, plain, print_json, show_object, show_rows

app = typer.Typer(no_args_is_help=True, help="The dead-letter queue.", rich_markup_mode=None)
_COLUMNS = ("id", "task_id", "event", "rule", "service", "attempts", "reason", "created_at", "error")
Until = Annotated[str | None, typer.Option("--until", help="ISO time, or an age: 30m, 2h, 3d.")]
IdOption = Annotated[list[int] | None, typer.Option("--id", help="Id of a dead letter; may be repeated.")]
IdArgument = Annotated[list[int] | None, typer.Argument(metavar="[ID]...", help="More ids.")]
All = Annotated[bool, typer.Option("--all", help="All dead letters.")]


@app.command("list")
def list_(
    service: ServiceFilter = None,
    rule: Annotated[str | None, typer.Option("--rule", help="Only of this rule.")] = None,
    event: Annotated[str | None, typer.Option("--event", help="Name, or a prefix and *.")] = None,
    reason: Annotated[str | None, typer.Option("--reason", help="attempts, expired or worker_lost.")] = None,
    since: Since = None,
    until: Until = None,
    before: Before = None,
    limit: Limit = 50,
    as_json: JsonFlag = False,
) -> None:
    """List dead letters, newest first."""
    filters: dict[str, Any] = {
        "service": service,
        "rule": rule,
        "event": event,
        "reason": reason,
        "since": parse_time(since),
        "until": parse_time(until),
        "before": before,
    }
    with open_records() as hub:
        rows = hub.views.dead_letters.list(**filters, limit=limit)
    show_rows(rows, _COLUMNS, as_json=as_json, empty="no dead letters", filters=filters.values())


@app.command()
def show(id_: Annotated[int, typer.Argument(metavar="ID")], as_json: JsonFlag = False) -> None:
    """Show a dead letter with its event, last request, last response and attempts."""
    from hub.codec import readable

    with open_records() as hub:
        row = hub.views.dead_letters.get(id_)
        row["event_data"] = readable(row["event_data"])
        row["deliveries"] = hub.views.deliveries.list(task=row["task_id"], limit=100)[::-1]
    show_object(row, as_json=as_json)


@app.command()
def replay(
    ids: IdArgument = None,
    id_option: IdOption = None,
    service: ServiceFilter = None,
    since: Since = None,
    until: Until = None,
    all_: All = False,
    before: Annotated[
        bool,
        typer.Option("--before", help="Place them before the waiting tasks of their ordering key. Default: behind."),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show how many would be replayed.")] = False,
    yes: Yes = False,
    as_json: JsonFlag = False,
) -> None:
    """Requeue dead letters: same rule and event, attempts from 0. Leaves alone what fails again during the run."""
    from hub.operations import replay as operation

    wanted = _chosen(ids, id_option, service, since, until, all_)
    chosen = operation.Chosen(
        ids=tuple(wanted) or None, service=service, since=parse_time(since), until=parse_time(until)
    )
    ahead = 0
    with open_hub() as hub:
        chosen = hub.dead_letters.bounded(chosen)
        count, orphans = hub.dead_letters.would_replay(chosen)
        if dry_run:
            if as_json:
                print_json({"replayed": 0, "would_replay": count, "tasks": [], "orphans": orphans})
            else:
                print(f"{count} dead letter(s) would be replayed")
            return
        if wanted:
            ahead = sum(hub.views.dead_letters.get(id_)["waiting"] or 0 for id_ in wanted) if len(wanted) == 1 else 0
            done = operation.replay_ids(hub.dead_letters, wanted, before=before)
        else:
            if count > 1 and sys.stdin.isatty():
                confirm(f"Replay {count} dead letter(s)?", yes=yes)
            with progress("replayed", count) as (bar, bar_task):
                done = operation.replay(
                    hub.dead_letters, chosen, progress=lambda n: bar.update(bar_task, completed=n), before=before
                )
    tasks, orphans = done.tasks, done.orphans
    if as_json:
        print_json({"replayed": len(tasks), "tasks": tasks, "orphans": orphans})
    else:
        where = f", {'before' if before else 'behind'} {ahead} task(s) of its ordering key" if ahead else ""
        print(f"{len(tasks)} dead letter(s) replayed{where}")
    if orphans:
        err.print(f"{orphans} not replayed: their rule or service was deleted")
        if wanted:
            raise typer.Exit(1)


@app.command()
def delete(
    ids: IdArgument = None,
    id_option: IdOption = None,
    service: ServiceFilter = None,
    since: Since = None,
    until: Until = None,
    all_: All = False,
    yes: Yes = False,
    as_json: JsonFlag = False,
) -> None:
    """Delete dead letters. Their events are not delivered. The audit trail records who deleted them."""
    from hub.errors import NotFoundError
    from hub.operations import dead_letters as operation
    from hub.store.dead_letters import Chosen

    wanted = _chosen(ids, id_option, service, since, until, all_)
    start, end = parse_time(since), parse_time(until)
    with open_hub() as hub:
        if wanted:
            if missing := hub.views.dead_letters.missing(wanted):
                raise NotFoundError(f"no dead letter {missing[0]}")
            confirm(f"Delete {len(wanted)} dead letter(s)?", yes=yes)
            gone = operation.delete(hub, wanted, missing_ok=True)
        else:
            count = hub.dead_letters.count(Chosen(service=service, since=start, until=end))
            confirm(f"Delete {count} dead letter(s)?", yes=yes)
            chosen = operation.Filter(service=service, since=start, until=end)
            with progress("deleted", count) as (bar, task):
                gone = operation.delete_matching(hub, chosen, progress=lambda n: bar.update(task, completed=n))
    if as_json:
        print_json({"deleted": gone})
    else:
        print(f"{gone} dead letter(s) deleted")


@app.command()
def export(
    service: ServiceFilter = None,
    since: Since = None,
    until: Until = None,
    output: Annotated[str, typer.Option("--output", "-o", help="A file; - is stdout.")] = "-",
) -> None:
    """Export dead letters as NDJSON with event data and payload."""
    from hub.operations import dead_letters as operation

    chosen = operation.Filter(service=service, since=parse_time(since), until=parse_time(until))
    count = 0
    with open_hub() as hub, writing(output) as out, progress("exported") as (bar, task):
        for count, row in enumerate(operation.export(hub, chosen), 1):
            out.write(json.dumps(plain(row), ensure_ascii=False) + "\n")
            bar.update(task, completed=count)
    err.print(f"{count} dead letter(s) exported")


def _chosen(
    ids: list[int] | None, more: list[int] | None, service: str | None, since: str | None, until: str | None, all_: bool
) -> list[int]:
    """The ids; empty if filters are given. Refuses a command without ids and filters."""
    wanted = list(dict.fromkeys([*(more or []), *(ids or [])]))
    filters = service is not None or since is not None or until is not None
    if wanted and (filters or all_):
        raise usage("give either ids, or --service, --since, --until, --all")
    if not wanted and not filters and not all_:
        raise usage("give --id N, --service S, --since T or --all")
    return wanted
