"""`hub source`: event sources that the hub reads by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from hub.cli.common import JsonFlag, Yes, confirm, open_hub, parse_time, progress, usage
from hub.cli.fields import Fields, collect
from hub.cli.output import cell, print_json, show_object, show_rows

if TYPE_CHECKING:
    from hub.models import Source

app = typer.Typer(no_args_is_help=True, help="Event sources that the hub reads: Moodle's log.", rich_markup_mode=None)
Name = Annotated[str, typer.Argument(help="The source's name.")]
Url = Annotated[
    str | None,
    typer.Option(help="mysql://, mariadb:// or postgresql://user:password@host/database; @file, or env:NAME."),
]
Prefix = Annotated[str | None, typer.Option(help="Prefix of Moodle's tables (mdl_).")]
Start = Annotated[str | None, typer.Option(help="Where reading begins: now, an id, or a time.")]
Events = Annotated[list[str] | None, typer.Option("--event", help="Names that are read; * is any run of characters.")]
Interval = Annotated[float | None, typer.Option(help="Seconds between two looks.")]
_COLUMNS = ("name", "type", "url", "enabled", "state", "lag_seconds", "lag_rows")
_STATUS = ("name", "state", "lag_seconds", "lag_rows", "last_id", "gaps", "read_rows", "events", "errors", "last_error")


@app.command("list")
def list_(as_json: JsonFlag = False) -> None:
    """All sources."""
    from hub.operations.sources import shown, source_status

    with open_hub() as hub:
        states = {row["name"]: row for row in source_status(hub)}
        rows = [
            shown(source) | {key: states[source.name][key] for key in ("state", "lag_seconds", "lag_rows")}
            for source in hub.registry.sources.sources()
            if source.name in states
        ]
    show_rows(rows, _COLUMNS, as_json=as_json, empty="no sources yet; `hub source add` or `hub apply FILE` makes one")


@app.command()
def show(name: Name, as_json: JsonFlag = False) -> None:
    """One source; its password is masked."""
    from hub.operations.sources import shown

    with open_hub() as hub:
        row = shown(hub.registry.sources.source(name))
    show_object(row, as_json=as_json)


@app.command()
def add(
    name: Name,
    url: Url = None,
    prefix: Prefix = None,
    start: Start = None,
    events: Events = None,
    poll_interval: Interval = None,
    fields: Fields = None,
    as_json: JsonFlag = False,
) -> None:
    """Add a source; it is read from the next seconds on."""
    from hub.config.definitions import parse_spec
    from hub.config.sources import SourceSpec

    if url is None:
        raise usage("--url is needed: mysql://, mariadb:// or postgresql://user:password@host/database")
    given = _given(fields, url, prefix, start, events, poll_interval)
    spec = parse_spec(SourceSpec, {"name": name, **given})
    with open_hub() as hub:
        source = hub.registry.sources.add(spec)
    _said(source, "added", as_json)


@app.command()
def edit(
    name: Name,
    new_name: Annotated[str | None, typer.Option("--name", help="Rename it.")] = None,
    url: Url = None,
    prefix: Prefix = None,
    start: Start = None,
    events: Events = None,
    poll_interval: Interval = None,
    fields: Fields = None,
    as_json: JsonFlag = False,
) -> None:
    """Change a source; what is not named stays. A new start counts after `hub source reset` only."""
    given = _given(fields, url, prefix, start, events, poll_interval)
    if new_name is not None:
        given["name"] = new_name
    if not given:
        raise usage("nothing to change: name a field, `hub source edit --help` shows them")
    with open_hub() as hub:
        source = hub.registry.sources.update(name, given)
    _said(source, "changed", as_json)


@app.command()
def enable(name: Name, as_json: JsonFlag = False) -> None:
    """Read it again, from where it was."""
    with open_hub() as hub:
        source = hub.registry.sources.enable(name, True)
    _said(source, "enabled", as_json)


@app.command()
def disable(name: Name, as_json: JsonFlag = False) -> None:
    """Read it no more; its position stays."""
    with open_hub() as hub:
        source = hub.registry.sources.enable(name, False)
    _said(source, "disabled", as_json)


@app.command()
def delete(name: Name, yes: Yes = False, as_json: JsonFlag = False) -> None:
    """Delete a source and its position; events that were read stay."""
    with open_hub() as hub:
        source = hub.registry.sources.source(name)
        confirm(f"Delete source {name!r}?", yes=yes)
        hub.registry.sources.delete(name)
    _said(source, "deleted", as_json)


@app.command()
def test(name: Name, as_json: JsonFlag = False) -> None:
    """Connect to its database and read the newest row."""
    from hub.operations.sources import run_source_test

    with open_hub() as hub:
        tested = run_source_test(hub, name)
    if as_json:
        print_json({"source": name, "ok": tested.ok, "message": tested.message, "latency_ms": tested.latency_ms})
    else:
        print(f"{name}: {cell(tested.message, width=None)} ({tested.latency_ms:.0f} ms)")
    if not tested.ok:
        raise typer.Exit(1)


@app.command()
def status(
    name: Annotated[str | None, typer.Argument(help="The source's name; none: all.")] = None, as_json: JsonFlag = False
) -> None:
    """State, lag and counts."""
    from hub.operations.sources import source_status

    with open_hub() as hub:
        rows = source_status(hub, name)
    if name is not None:
        show_object(rows[0], as_json=as_json)
    else:
        show_rows(rows, _STATUS, as_json=as_json, empty="no sources yet")


@app.command()
def reset(
    name: Name,
    to: Annotated[str, typer.Option("--to", help="Where reading begins again: now, an id, or a time.")],
    yes: Yes = False,
    as_json: JsonFlag = False,
) -> None:
    """Begin reading somewhere else. Events that were accepted within 24 hours are not accepted again."""
    from hub.operations.sources import reset_source

    with open_hub() as hub:
        hub.registry.sources.source(name)
        confirm(f"Read source {name!r} from {to} on?", yes=yes)
        source = reset_source(hub, name, to)
    _said(source, f"reset to {to}", as_json)


@app.command()
def replay(
    name: Name,
    rule: Annotated[str, typer.Option("--rule", help="The rule that gets the rows.")],
    since: Annotated[str, typer.Option("--since", help="Rows of this time or later: ISO time, or an age.")],
    until: Annotated[str | None, typer.Option("--until", help="Rows up to this time; else up to now.")] = None,
    rate: Annotated[float, typer.Option("--rate", help="Most tasks made in a second.")] = 50.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count.")] = False,
    yes: Yes = False,
    as_json: JsonFlag = False,
) -> None:
    """Send rows of the past to one rule; those that the rule has had are skipped. Safe to repeat."""
    from hub.operations.sources import replay_source

    with open_hub() as hub:
        start, end = parse_time(since), parse_time(until) or hub.clock.read()
        assert start is not None
        hub.configuration.rule(rule)
        if not dry_run:
            moment = start.isoformat(timespec="minutes")
            confirm(f"Send rows of source {name!r} since {moment} to rule {rule!r}?", yes=yes)
        with progress("rows read", 1000) as (bar, bar_task):
            done = replay_source(
                hub,
                name,
                rule,
                start,
                end,
                rate=rate,
                dry_run=dry_run,
                told=lambda _, part: bar.update(bar_task, completed=int(part * 1000)),
            )
    row = {"source": name, "rule": rule, "since": start, "until": end, "read": done.read, "matched": done.matched}
    show_object(row | {"skipped": done.skipped, "tasks": done.tasks, "dry_run": dry_run}, as_json=as_json)


def _given(
    fields: list[str] | None,
    url: str | None,
    prefix: str | None,
    start: str | None,
    events: list[str] | None,
    poll_interval: float | None,
) -> dict[str, Any]:
    from hub.cli.fields import secret

    return collect(
        fields,
        url=secret(url) if url is not None else None,
        prefix=prefix,
        start=start,
        events=events,
        poll_interval=poll_interval,
    )


def _said(source: Source, what: str, as_json: bool) -> None:
    if as_json:
        print_json({"id": source.id, "name": source.name, "result": what})
    else:
        print(f"source {source.name} {what}")
