"""`hub apply` and `hub export`: the configuration as one YAML file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hub.cli.common import JsonFlag, Yes, confirm, open_hub, read_file, writing
from hub.cli.output import cell, err, plain, print_json

if TYPE_CHECKING:
    from hub.operations.changes import Change

_SIGN = {"add": "+", "change": "~", "same": " ", "delete": "-"}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(apply)
    app.command()(export)


def apply(
    file: Annotated[str, typer.Argument(help="A YAML file, or - for stdin.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the changes without making them.")] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Delete services, sources and rules that are not in the lists of the file.")
    ] = False,
    yes: Yes = False,
    as_json: JsonFlag = False,
) -> None:
    """Apply services, sources, rules and schedules from a file. What it does not name stays (but see --prune)."""
    from hub.config.yaml_file import parse
    from hub.errors import ConfigError
    from hub.operations import apply as files
    from hub.operations.services import declare_response_queues
    from hub.settings import from_environment

    text = read_file(file)
    with open_hub() as hub:
        try:
            document = parse(text, from_environment)
            plan = files.plan(document, hub.registry, hub.schedule, prune=prune)
        except ConfigError as e:
            raise ConfigError(f"{'standard input' if file == '-' else file}: {e}") from None
        gone = [change for change in plan.changes if change.action == "delete"]
        if gone and not dry_run:
            confirm(f"Delete {', '.join(f'{change.kind} {change.name}' for change in gone)}?", yes=yes)
        if not dry_run:
            files.execute(plan, hub.registry, hub.schedule)
            saved = [c.name for c in plan.changes if c.kind == "service" and c.action in ("add", "change")]
            for note in declare_response_queues(hub, saved):
                err.print(f"note: {note}", markup=False)
    if as_json:
        print_json([_row(change) for change in plan.changes])
        return
    for change in plan.changes:
        if change.action != "same":
            _print(change)
    changed = sum(change.action != "same" for change in plan.changes)
    same = len(plan.changes) - changed
    what = "would change" if dry_run else "changed"
    print(f"{changed} {what}, {same} unchanged" if changed else f"nothing to do: {same} unchanged")
    if gone and not dry_run:
        err.print("`hub tasks purge-orphans` deletes the tasks of deleted services and rules")


def _row(change: Change) -> dict[str, Any]:
    fields = {name: {"before": before, "after": after} for name, (before, after) in change.fields.items()}
    return {"kind": change.kind, "name": change.name, "action": change.action, "fields": fields}


def _print(change: Change) -> None:
    print(f"{_SIGN[change.action]} {change.kind} {change.name}")
    for name, (before, after) in change.fields.items():
        print(
            f"    {name}: {_value(after)}"
            if change.action == "add"
            else f"    {name}: {_value(before)} -> {_value(after)}"
        )


def _value(value: Any) -> str:
    shown = value if isinstance(value, str) and value else json.dumps(plain(value), ensure_ascii=False)
    return cell(shown, width=None).replace("\n", "\\n")


def export(
    output: Annotated[str, typer.Option("--output", "-o", help="A file, or - for stdout.")] = "-",
) -> None:
    """Write the configuration as a file for `hub apply`. Secrets become ${NAME}."""
    from hub.operations import export as files

    with open_hub() as hub:
        text, names = files.export(hub.registry, hub.schedule)
    with writing(output) as out:
        out.write(text)
    if names:
        err.print(f"secrets are left out; set {', '.join(names)} to apply the file", markup=False)
