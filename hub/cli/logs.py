"""`hub logs`: the log lines of the hub's processes, as opposed to the delivery log (`hub log`)."""

from __future__ import annotations

import typer

from hub.cli.output import print_json

app = typer.Typer(no_args_is_help=True, help="Log lines of the hub's processes.", rich_markup_mode=None)


@app.callback()
def _logs() -> None:
    """Log lines of the hub's processes."""


@app.command("schema")
def schema() -> None:
    """Print the fields of JSON log lines (HUB_LOG_FORMAT=json) as JSON Schema."""
    from hub.programs.log_fields import json_schema

    print_json(json_schema())
