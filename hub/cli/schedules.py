"""`hub schedule`: cron expressions of scheduled tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from hub.cli.common import JsonFlag, open_hub, open_records
from hub.cli.output import cell, print_json, show_object, show_rows

if TYPE_CHECKING:
    from hub.scheduling.schedule import ScheduledTask

app = typer.Typer(no_args_is_help=True, help="Scheduled tasks.", rich_markup_mode=None)
Name = Annotated[str, typer.Argument(help="consume_responses_task or housekeeping_task.")]


def _row(task: ScheduledTask) -> dict[str, Any]:
    return {
        "name": task.name,
        "cron": task.cron,
        "enabled": task.enabled,
        "last_run_at": task.last_run_at,
        "last_result": task.last_result,
        "next_run_at": task.next_run_at,
        "default_cron": task.default_cron,
        "last_duration_ms": task.last_duration_ms,
        "run_requested": task.run_requested_at is not None,
    }


@app.command("list")
def list_(as_json: JsonFlag = False) -> None:
    """List scheduled tasks."""
    with open_records() as hub:
        rows = [_row(task) for task in hub.schedule.list()]
    columns = ("name", "cron", "enabled", "last_run_at", "last_result", "last_duration_ms", "next_run_at")
    show_rows(rows, columns, as_json=as_json, empty="none")


@app.command()
def show(name: Name, as_json: JsonFlag = False) -> None:
    """Show a scheduled task and its next five runs."""
    with open_records() as hub:
        task = hub.schedule.show(name)
        row = {**_row(task), "next_runs": hub.schedule.preview(task.cron, 5, name=name)}
        row["time_zone"] = hub.settings.timezone
    show_object(row, as_json=as_json)


@app.command("set")
def set_(
    name: Name,
    cron: Annotated[str, typer.Argument(help="Five fields, quoted: '*/5 * * * *'.")],
    as_json: JsonFlag = False,
) -> None:
    """Change the cron expression. Takes effect at the next minute, in every process."""
    with open_hub() as hub:
        task = hub.schedule.set(name, cron)
    _said(task, "set to", as_json)


@app.command()
def reset(name: Name, as_json: JsonFlag = False) -> None:
    """Restore the default cron expression."""
    with open_hub() as hub:
        task = hub.schedule.reset(name)
    _said(task, "reset to", as_json)


@app.command()
def enable(name: Name, as_json: JsonFlag = False) -> None:
    """Enable the schedule of a task."""
    with open_hub() as hub:
        task = hub.schedule.enable(name, True)
    _said(task, "enabled:", as_json)


@app.command()
def disable(name: Name, as_json: JsonFlag = False) -> None:
    """Disable the schedule of a task."""
    with open_hub() as hub:
        task = hub.schedule.enable(name, False)
    _said(task, "disabled:", as_json)


@app.command()
def run(name: Name, as_json: JsonFlag = False) -> None:
    """Run a task at the next tick, within a minute. To run it in this process: hub tasks run --task NAME."""
    with open_hub() as hub:
        task = hub.schedule.request_run(name)
    if as_json:
        print_json(_row(task))
    else:
        print(f"{name} runs at the next tick, within a minute")


def _said(task: ScheduledTask, what: str, as_json: bool) -> None:
    if as_json:
        print_json(_row(task))
    else:
        print(f"{task.name} {what} {task.cron}; next run {cell(task.next_run_at)}")
