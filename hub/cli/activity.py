"""`hub activity`: the audit trail."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from hub.cli.common import Before, JsonFlag, Limit, Since, open_records, parse_time
from hub.cli.output import show_rows

app = typer.Typer(no_args_is_help=True, help="Audit trail: who changed what.", rich_markup_mode=None)
_COLUMNS = ("id", "at", "actor", "actor_kind", "origin", "action", "subject_name", "before", "after")


@app.command("list")
def list_(
    actor: Annotated[str | None, typer.Option("--actor", help="Only changes by this user, token or OS user.")] = None,
    action: Annotated[str | None, typer.Option("--action", help="Only this action, such as user.add.")] = None,
    kind: Annotated[str | None, typer.Option("--kind", help="Only this kind of object, such as user or token.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="Only objects of this name.")] = None,
    since: Since = None,
    before: Before = None,
    limit: Limit = 50,
    as_json: JsonFlag = False,
) -> None:
    """List changes, newest first."""
    filters = {"actor": actor, "action": action, "kind": kind, "name": name, "since": parse_time(since)}
    with open_records() as hub:
        rows = [asdict(entry) for entry in hub.audit.list(**filters, before=before, limit=limit)]  # type: ignore[arg-type]
    show_rows(rows, _COLUMNS, as_json=as_json, empty="no changes yet", filters=(*filters.values(), before))
