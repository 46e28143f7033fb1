"""`hub tasks`: list, run, retry and delete tasks."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hub.cli.common import Before, JsonFlag, Limit, ServiceFilter, Yes, confirm, open_hub, open_records, progress, usage
from hub.cli.output import err, print_json, show_object, show_rows

app = typer.Typer(
    no_args_is_help=True, help="Tasks: one rule x one event, until delivered or dead.", rich_markup_mode=None
)
_COLUMNS = (
    "id",
    "event",
    "rule",
    "service",
    "state",
    "waits_for",
    "attempts",
    "next_run_at",
    "created_at",
    "last_error",
)
Ids = Annotated[list[int], typer.Argument(help="Ids of tasks.")]
TASKS = ("dispatch_event_task", "consume_responses_task", "housekeeping_task")


def task_class(name: str) -> str:
    """One of `TASKS`; accepts Moodle's class name, `\\local_integrationhub\\task\\dispatch_event_task`."""
    short = name.strip().replace("/", "\\").rsplit("\\", 1)[-1]
    if short not in TASKS:
        raise usage(f"--task is one of {', '.join(TASKS)}, not {name!r}")
    return short


@app.command("list")
def list_(
    state: Annotated[str | None, typer.Option("--state", help="pending, running, delayed or held.")] = None,
    service: ServiceFilter = None,
    rule: Annotated[str | None, typer.Option("--rule", help="Only of this rule.")] = None,
    event: Annotated[str | None, typer.Option("--event", help="Name, or a prefix and *.")] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Only tasks that failed at least once.")] = False,
    orphan: Annotated[bool, typer.Option("--orphan", help="Only tasks whose rule or service was deleted.")] = False,
    overdue: Annotated[bool, typer.Option("--overdue", help="Only tasks that are due for more than a minute.")] = False,
    before: Before = None,
    limit: Limit = 50,
    as_json: JsonFlag = False,
) -> None:
    """List tasks, newest first."""
    if state not in (None, "pending", "running", "delayed", "blocked", "held"):
        raise usage("--state must be pending, running, delayed, blocked or held")
    filters: dict[str, Any] = {
        "state": state,
        "service": service,
        "rule": rule,
        "event": event,
        "failed": failed,
        "orphan": orphan,
        "overdue": overdue,
        "before": before,
    }
    with open_records() as hub:
        rows = hub.views.tasks.list(**filters, limit=limit)
    show_rows(
        rows,
        _COLUMNS,
        as_json=as_json,
        filters=filters.values(),
        empty="no tasks; dead letters are in `hub dlq list`",
    )


@app.command()
def show(id_: Annotated[int, typer.Argument(metavar="ID")], as_json: JsonFlag = False) -> None:
    """Show a task with the data of its event and its attempts; also a task that has ended."""
    from hub.codec import readable
    from hub.errors import NotFoundError

    with open_records() as hub:
        attempts = hub.views.deliveries.list(task=id_, limit=100)
        origin = hub.views.origins.get(id_)
        try:
            row = hub.views.tasks.get(id_)
            row["event_data"] = readable(row["event_data"])
        except NotFoundError:
            ended = hub.views.tasks.ended(id_)
            if ended is None:
                raise
            row = {"id": id_, "state": ended["how"], "ended_at": ended["at"]}
            row |= {k: v for k, v in ended.items() if k not in ("how", "at")}
    row["origin"] = origin
    row["deliveries"] = attempts[::-1]
    show_object(row, as_json=as_json)


@app.command()
def run(
    ids: Annotated[list[int] | None, typer.Option("--id", help="Only this task, due or not; may be repeated.")] = None,
    task: Annotated[str, typer.Option("--task", help=f"Kind of task: {', '.join(TASKS)}.")] = TASKS[0],
    failed: Annotated[bool, typer.Option("--failed", help="Tasks that failed before, due or not.")] = False,
    parallel: Annotated[int, typer.Option("--parallel", "-p", min=1, max=256, help="Attempts at once.")] = 1,
    as_json: JsonFlag = False,
) -> None:
    """Run all due tasks in this process. Exits with 1 if a task failed. Ctrl-C stops after the running attempts."""
    from hub.cli import run_tasks as running

    task = task_class(task)
    if task != TASKS[0] and (ids or failed):
        raise usage("--id and --failed are for dispatch_event_task")
    with open_hub() as hub:
        if task == TASKS[0]:
            result = running.dispatch(hub, ids, failed=failed, parallel=parallel)
        elif task == TASKS[1]:
            result = running.consume(hub, parallel=parallel)
        else:
            result = running.run_housekeeping(hub)
    if as_json:
        print_json(result)
    else:
        running.print_each(result.get("tasks") or [])
        running.tell(result.get("tasks") or result.get("services") or [])
        counts = ", ".join(f"{n} {word}" for word, n in result.items() if isinstance(n, int) and word != "ran" and n)
        print(f"{result['ran']} run" + (f": {counts}" if counts else "; nothing is due" if not result["ran"] else ""))
    if running.bad(result):
        raise typer.Exit(1)


@app.command("fails", hidden=True)
@app.command()
def failures(
    service: ServiceFilter = None, before: Before = None, limit: Limit = 50, as_json: JsonFlag = False
) -> None:
    """List tasks that failed and will be retried, and failed runs of scheduled tasks."""
    with open_records() as hub:
        rows = hub.views.tasks.list(service=service, failed=True, before=before, limit=limit)
        runs = hub.views.runs.scheduled(failed=True, limit=min(limit, 20))
    show_rows(
        rows,
        _COLUMNS,
        as_json=as_json,
        filters=(service, before),
        empty="no failed tasks; dead letters are in `hub dlq list`",
    )
    if not as_json and runs:
        err.print("\nfailed runs of scheduled tasks:")
        show_rows(runs, ("id", "name", "service", "started_at", "result", "error"), as_json=False, empty="")


@app.command()
def retry(
    ids: Annotated[list[int] | None, typer.Argument(help="Ids of tasks.")] = None,
    failed: Annotated[bool, typer.Option("--failed", help="All tasks that failed before.")] = False,
    service: ServiceFilter = None,
    restart: Annotated[bool, typer.Option("--restart", help="Reset the count of attempts to 0.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Make tasks due now. Attempts stay counted, unless --restart is given."""
    from hub.errors import NotFoundError
    from hub.operations import tasks as operation

    if bool(ids) == failed:
        raise usage("give ids, or --failed")
    with open_hub() as hub:
        if ids:
            for id_ in ids:
                if not hub.admin.exists(id_):
                    raise NotFoundError(f"no task {id_}; replay a dead letter with `hub dlq replay`")
            done, _ = operation.retry(hub, ids, restart=restart)
        else:
            done = operation.retry_failed(hub, service=service, restart=restart)
    if as_json:
        print_json({"retried": done, "attempts_restarted": restart})
    else:
        print(f"{len(done)} task(s) due now; attempts {'start from 0' if restart else 'stay counted'}")
    if ids and len(done) < len(set(ids)):
        err.print("running tasks were skipped")


@app.command()
def delete(ids: Ids, yes: Yes = False, as_json: JsonFlag = False) -> None:
    """Delete tasks. Their events are not delivered. The audit trail records who deleted them."""
    from hub.errors import ConflictError, NotFoundError
    from hub.operations import tasks as operation

    with open_hub() as hub:
        for id_ in ids:
            if not hub.admin.exists(id_):
                raise NotFoundError(f"no task {id_}")
        confirm(f"Delete {len(ids)} task(s)?", yes=yes)
        gone = operation.cancel(hub, ids)
    if as_json:
        print_json({"deleted": gone})
    else:
        print(f"{len(gone)} task(s) deleted")
    if len(gone) < len(set(ids)):
        raise ConflictError("running tasks were not deleted; repeat the command after their attempts")


@app.command("purge-orphans")
def purge_orphans(yes: Yes = False, as_json: JsonFlag = False) -> None:
    """Delete tasks whose rule or service was deleted."""
    from hub.operations import tasks as operation

    with open_hub() as hub:
        if hub.admin.orphans(1):
            confirm("Delete all tasks whose rule or service was deleted?", yes=yes)
        with progress("orphans") as (bar, task):
            gone = operation.purge_orphans(hub, progress=lambda n: bar.update(task, completed=n))
    if as_json:
        print_json({"purged": gone})
    else:
        print(f"{gone} orphan(s) purged")
