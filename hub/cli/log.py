"""`hub log` and `hub stats`: deliveries, runs and the current state."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hub.cli.common import Before, JsonFlag, Limit, ServiceFilter, Since, open_hub, open_records, parse_time, usage
from hub.cli.output import print_json, show_object, show_rows
from hub.cli.resend import resend

if TYPE_CHECKING:
    from hub.app.records import Records

app = typer.Typer(no_args_is_help=True, help="Delivery log and run log.", rich_markup_mode=None)
app.command()(resend)
_COLUMNS = (
    "id",
    "created_at",
    "direction",
    "service",
    "event",
    "endpoint",
    "attempt",
    "tries",
    "status",
    "latency_ms",
    "success",
    "error",
)
_FOLLOW = 1.0  # seconds between two queries
_PAGE = 1000


def register(root: typer.Typer) -> None:
    """Add `hub stats`."""
    root.command()(stats)


@app.command("list")
def list_(
    service: ServiceFilter = None,
    direction: Annotated[str | None, typer.Option("--direction", help="inbound or outbound.")] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Only failures.")] = False,
    task: Annotated[int | None, typer.Option("--task", help="Only attempts of this task.")] = None,
    event: Annotated[str | None, typer.Option("--event", help="Name, or a prefix and *.")] = None,
    status: Annotated[int | None, typer.Option("--status", help="HTTP status.")] = None,
    since: Since = None,
    until: Annotated[str | None, typer.Option("--until", help="ISO time, or an age: 30m, 2h, 3d.")] = None,
    before: Before = None,
    limit: Limit = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Show new deliveries until Ctrl-C.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """List deliveries, newest first. With --follow oldest first, and with --json one object per line."""
    if direction not in (None, "inbound", "outbound"):
        raise usage("--direction must be inbound or outbound")
    filters: dict[str, Any] = {
        "service": service,
        "direction": direction,
        "failed": True if failed else None,
        "task": task,
        "event": event,
        "status": status,
        "since": parse_time(since),
        "until": parse_time(until),
    }
    with open_records() as hub:
        rows = hub.views.deliveries.list(**filters, before=before, limit=limit)
        if not follow:
            show_rows(
                rows,
                _COLUMNS,
                as_json=as_json,
                empty="no deliveries yet",
                filters=(*filters.values(), before),
            )
            return
        for row in _following(hub, filters, rows[::-1]):
            _line(row, as_json)


def _following(hub: Records, filters: dict[str, Any], rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """`rows`, then new deliveries, each once. Rereads the last ids, since a lower id may be committed later."""
    shown: deque[int] = deque(maxlen=_PAGE * 2)
    if not rows:
        newest = hub.views.deliveries.list(limit=1)
        shown.extend(row["id"] for row in newest)
    while True:
        for row in rows:
            shown.append(row["id"])
            yield row
        if len(rows) < _PAGE // 2:
            time.sleep(_FOLLOW)
        known = set(shown)
        after = max(max(known, default=0) - _PAGE // 2, min(known, default=0) - 1)
        found = hub.views.deliveries.list(**filters, after=after, limit=_PAGE)
        rows = [row for row in found if row["id"] not in known]


def _line(row: dict[str, Any], as_json: bool) -> None:
    import json

    from hub.cli.output import cell, plain

    if as_json:
        print(json.dumps(plain(row), ensure_ascii=False), flush=True)
        return
    result = "ok" if row["success"] else f"FAILED {cell(row['error'])}"
    print(
        f"{cell(row['created_at'])} {row['direction']:8} {cell(row['service'])} {cell(row['event'])}"
        f" {cell(row['endpoint'])} {cell(row['status'])} {cell(row['latency_ms'])} ms {result}",
        flush=True,
    )


@app.command()
def show(
    id_: Annotated[int, typer.Argument(metavar="ID")],
    raw: Annotated[bool, typer.Option("--raw", help="Write the bytes of a non-JSON message to stdout.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Show a delivery with request and response. Shows a message that is not JSON as a hex dump."""
    from hub.operations.raw_message import hex_preview, raw_message

    with open_hub() as hub:
        if raw:
            sys.stdout.buffer.write(raw_message(hub, id_))
            return
        row = dict(hub.views.deliveries.get(id_))
        row["origin"] = hub.views.origins.get(row["task_id"])
        if hexed := hex_preview(hub, id_):
            row["raw_hex"] = hexed
    show_object(row, as_json=as_json)


@app.command()
def runs(
    name: Annotated[
        str | None, typer.Option("--task", help="dispatch_event_task, consume_responses_task or housekeeping_task.")
    ] = None,
    service: ServiceFilter = None,
    failed: Annotated[bool, typer.Option("--failed", help="Only failures.")] = False,
    before: Before = None,
    limit: Limit = 50,
    as_json: JsonFlag = False,
) -> None:
    """List runs, newest first: attempts of dispatch_event_task and runs of the scheduled tasks."""
    from hub.cli.tasks import task_class

    task = task_class(name) if name is not None else None
    if before is not None and task is None:
        raise usage("--before needs --task: each kind of task has ids of its own")
    with open_records() as hub:
        rows = hub.views.runs.all(task=task, service=service, failed=failed, before=before, limit=limit)
    columns = ("id", "name", "service", "started_at", "ended_at", "result", "host", "pid", "summary", "error")
    show_rows(rows, columns, as_json=as_json, empty="no runs yet", filters=(name, service, failed, before))


def stats(as_json: JsonFlag = False) -> None:
    """Show queue depth, tasks by state, circuits, last runs, and what is wrong with the hub itself."""
    from hub.operations.health import check_all

    with open_records() as hub:
        now = hub.views.overview.stats()
        planned = {task.name: task.next_run_at for task in hub.schedule.list()}
        for row in now["schedules"]:
            row["next_run_at"] = planned.get(row["name"])
        runs = hub.views.runs.scheduled(limit=5)
        checks = check_all(hub)
    if as_json:
        tasks = now["tasks"]
        print_json(
            {
                **now,
                "health": [{"check": c.name, "ok": c.ok, "text": c.text} for c in checks],
                "pending": tasks["pending"],
                "running": tasks["running"],
                "delayed": tasks["delayed"],
                "blocked": tasks["blocked"],
                "held": tasks["held"],
                "dead": now["dead_letters"],
                "last_runs": runs,
            }
        )
        return
    show_object(
        {
            "queue_depth": now["queue_depth"],
            **{k: v for k, v in now["tasks"].items() if k != "pending"},
            "dead_letters": now["dead_letters"],
            "oldest_due": now["oldest_due_at"],
        },
        as_json=False,
    )
    print("\nhealth")
    for check in checks:
        print(f"{check.name:<9} {check.text}")  # never cut off
    services = [{"service": name, **counts} for name, counts in now["services"].items()]
    _table("services", services, ("service", "pending", "running", "delayed", "blocked", "held"))
    _table("breakers", now["breakers"], ("service", "state", "failures", "retry_at"))
    _table(
        "scheduled tasks", now["schedules"], ("name", "cron", "enabled", "last_run_at", "last_result", "next_run_at")
    )
    _table("last runs", runs, ("name", "service", "started_at", "result", "summary", "error"))
    _table("processes", now["heartbeats"], ("component", "alive", "at"))


def _table(title: str, rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    if rows:
        print(f"\n{title}")
        show_rows(rows, columns, as_json=False, empty="")
