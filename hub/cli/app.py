"""The command tree, and what every error becomes: exit 0 done, 1 failed, 2 usage, 130 interrupted."""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated

import typer

from hub import __version__
from hub.cli import accounts, breaker, dlq, events, files, logs, processes, rules, schedules, services, tasks
from hub.cli.common import cell, err
from hub.errors import HubError

app = typer.Typer(
    name="hub",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Integration Hub: events in, reliable deliveries out.",
)
processes.register(app)
events.register(app)
files.register(app)
for name, group in (
    ("service", services.app), ("rule", rules.app), ("tasks", tasks.app), ("schedule", schedules.app),
    ("dlq", dlq.app), ("log", logs.app), ("breaker", breaker.app), ("user", accounts.users), ("token", accounts.tokens),
):  # fmt: skip
    app.add_typer(group, name=name)
logs.register(app)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"hub {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    """Integration Hub: events in, reliable deliveries out."""


def main() -> None:
    """The console script."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that cannot show a letter is no failure
    try:
        app()
    except HubError as e:
        err.print(f"error: {cell(str(e), width=None)}", markup=False)
        sys.exit(1)
    except KeyboardInterrupt:
        err.print("interrupted")
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the reader has had enough; nobody is left to tell
        sys.exit(0)
