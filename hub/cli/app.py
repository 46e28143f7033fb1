"""The command tree and the exit codes: 0 done, 1 failed, 2 usage, 130 interrupted."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from hub import __version__
from hub.cli import (
    accounts,
    activity,
    backfills,
    breaker,
    dlq,
    erase,
    event_log,
    events,
    rules,
    schedules,
    services,
    sources,
    tasks,
)
from hub.cli import (
    configuration as files,
)
from hub.cli import (
    log as logs,
)
from hub.cli import (
    logs as log_lines,
)
from hub.cli import (
    programs as processes,
)
from hub.cli.output import cell, err
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
    ("service", services.app),
    ("rule", rules.app),
    ("source", sources.app),
    ("events", event_log.app),
    ("tasks", tasks.app),
    ("schedule", schedules.app),
    ("dlq", dlq.app),
    ("log", logs.app),
    ("logs", log_lines.app),
    ("breaker", breaker.app),
    ("user", accounts.users),
    ("token", accounts.tokens),
    ("activity", activity.app),
    ("backfill", backfills.app),
):
    app.add_typer(group, name=name)
logs.register(app)
erase.register(app)


def _version(wanted: bool) -> None:
    if wanted:
        commit = _commit()
        print(f"hub {__version__}" + (f" (commit {commit})" if commit else ""))
        raise typer.Exit


def _commit() -> str | None:
    """The commit (12 digits) that this package was built from, else that of the checkout; None if unknown."""
    package = Path(__file__).parents[1]
    built, checkout = package / "_commit.txt", package.parent
    if built.exists():
        return built.read_text("utf-8").strip()
    if not (checkout / ".git").exists():
        return None
    command = ["git", "-C", str(checkout), "rev-parse", "--short=12", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Integration Hub: events in, reliable deliveries out."""


def main() -> None:
    """Entry point of the command `hub`."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # not every terminal can show every character
    try:
        app()
    except HubError as e:
        err.print(f"error: {cell(str(e), width=None)}", markup=False)
        sys.exit(1)
    except KeyboardInterrupt:
        err.print("interrupted")
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the reader has closed the pipe, as `head` does
        sys.exit(0)
