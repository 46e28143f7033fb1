"""`hub erase`: one person's data."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from hub.cli.common import JsonFlag, Yes, confirm, open_hub, progress
from hub.cli.output import err, print_json


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(erase)


def erase(
    where: Annotated[
        list[str], typer.Option("--where", help="PATH:VALUE of event data, such as userid:42; may be repeated (or).")
    ],
    include_live: Annotated[bool, typer.Option("--include-live", help="Delete live tasks of these events.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count.")] = False,
    yes: Yes = False,
    as_json: JsonFlag = False,
) -> None:
    """Erase one person's data from events, deliveries, dead letters and search keys, for good.

    Blanks the events whose data has the value at the path, their deliveries, the responses and webhooks that belong to
    them, and deletes their dead letters. Repeat an interrupted run: it continues.
    """
    from hub.operations import erase as operation

    wanted = [operation.parse_where(text) for text in where]
    with open_hub() as hub:
        with progress("rows read", 1000) as (bar, task):
            found = operation.find(hub, wanted, progress=lambda part: bar.update(task, completed=int(part * 1000)))
        counted = operation.count(hub, found)
        if dry_run:
            if as_json:
                print_json({"where": [each.masked for each in wanted], "dry_run": True, **asdict(counted)})
            else:
                print(_text(counted, "would be erased"))
            return
        if counted.tasks and not include_live:
            operation.erase(hub, wanted, found)  # says why not
        confirm(f"{_text(counted, 'will be erased for good')}. Go on?", yes=yes)
        with progress("events erased", counted.events) as (bar, task):
            done = operation.erase(
                hub, wanted, found, include_live=include_live, progress=lambda n: bar.update(task, completed=n)
            )
    if as_json:
        print_json({"where": [each.masked for each in wanted], "dry_run": False, **asdict(done)})
    else:
        print(_text(done, "erased"))
    if done.running:
        err.print(f"{done.running} event(s) stay: a worker runs a task of them; run the command again")
        raise typer.Exit(1)


def _text(erased: object, what: str) -> str:
    numbers = {
        "event(s)": "events",
        "delivery(s)": "deliveries",
        "dead letter(s)": "dead_letters",
        "live task(s)": "tasks",
    }
    parts = [f"{getattr(erased, name)} {label}" for label, name in numbers.items()]
    return f"{', '.join(parts)} {what}"
