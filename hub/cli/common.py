"""What commands share: options, opening a hub, parsing of arguments, confirmation, progress."""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from hub.cli.output import err
from hub.codec import loads
from hub.errors import PayloadError

if TYPE_CHECKING:
    from rich.progress import Progress

    from hub.app.lifecycle import Hub
    from hub.app.records import Records
    from hub.settings import Settings

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="Maximum number of rows.")]
Before = Annotated[int | None, typer.Option("--before", max=2**63 - 1, help="Only ids below this: the next page.")]
ServiceFilter = Annotated[str | None, typer.Option("--service", "-s", help="Only of this service.")]
Since = Annotated[str | None, typer.Option("--since", help="ISO time, or an age: 30m, 2h, 3d.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]

_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def get_settings() -> Settings:
    """Load the settings and configure logging on stderr."""
    from hub.programs.log_setup import configure_logging
    from hub.settings import load_settings

    settings = load_settings()
    configure_logging(settings, level=None if settings.log_level == "DEBUG" else "WARNING")
    return settings


@contextmanager
def open_hub() -> Iterator[Hub]:
    """Open a hub for one command."""
    from hub.app.lifecycle import build
    from hub.store.audit import Actor, acting

    settings = get_settings()
    who = Actor(settings.actor or _os_user(), "cli", socket.gethostname())
    with build(settings, role="cli") as hub, acting(who):
        try:
            yield hub
        except UnicodeEncodeError:
            raise usage("an argument is not UTF-8") from None


@contextmanager
def open_records() -> Iterator[Records]:
    """Open only the database, for a command that shows rows; much faster than `open_hub`."""
    import logging

    from hub.app.records import Records
    from hub.settings import load_settings
    from hub.store.audit import Actor, acting

    logging.getLogger("psycopg.pool").setLevel(logging.CRITICAL)  # its errors are raised as exceptions
    settings = load_settings()
    who = Actor(settings.actor or _os_user(), "cli", socket.gethostname())
    with Records(settings, set_up_logging=get_settings) as records, acting(who):
        try:
            yield records
        except UnicodeEncodeError:
            raise usage("an argument is not UTF-8") from None


def _os_user() -> str:
    """The user who runs the command; with `sudo` the user who called it."""
    import pwd

    from hub.settings import from_environment

    if os.getuid() == 0 and (person := from_environment("SUDO_USER")):
        return person
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


def usage(message: str) -> typer.BadParameter:
    """A usage error: exit code 2."""
    return typer.BadParameter(message)


def parse_time(text: str | None) -> datetime | None:
    """Parse `2026-01-31T12:00`, or an age such as `2h`."""
    if text is None:
        return None
    try:
        if match := _AGE.fullmatch(text.strip()):
            return datetime.now(UTC) - timedelta(seconds=float(match[1]) * _SECONDS[match[2]])
        return datetime.fromisoformat(text.strip()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise usage(f"{text!r} is neither an ISO time nor an age like 30m, 2h, 3d") from None


def read_text(argument: str) -> str:
    """The argument, or the content of the file that it names with `@` (`@-`: standard input)."""
    if not argument.startswith("@"):
        return argument
    return read_file(argument[1:])


def read_file(name: str) -> str:
    """The content of a text file; `-` is standard input."""
    try:
        raw = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        return raw.decode("utf-8-sig")
    except OSError as e:
        raise usage(f"{name}: {e.strerror}") from None
    except UnicodeDecodeError as e:
        raise usage(f"{name}: not UTF-8 at byte {e.start}") from None


@contextmanager
def writing(name: str) -> Iterator[TextIO]:
    """Open a file to write; `-` is stdout."""
    if name == "-":
        yield sys.stdout
        return
    try:
        with Path(name).open("w", encoding="utf-8") as out:
            yield out
    except OSError as e:
        raise usage(f"{name}: {e.strerror}") from None


def parse_json(text: str, what: str) -> Any:
    """Parse JSON from the command line."""
    try:
        return loads(text)
    except PayloadError as e:
        raise usage(f"{what}: {e}") from None


def confirm(question: str, *, yes: bool) -> None:
    """Ask before an irreversible action. Without a terminal `--yes` is required."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise usage(f"{question} There is no terminal to confirm on; add --yes")
    typer.confirm(question, abort=True, err=True)


@contextmanager
def progress(description: str, total: int | None = None) -> Iterator[tuple[Progress, Any]]:
    """A progress bar on stderr, if it is a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=err.console,
        transient=True,
        disable=not sys.stderr.isatty(),
        redirect_stdout=sys.stdout.isatty(),  # output to a file or a pipe must not go to the terminal
    )
    with bar:
        yield bar, bar.add_task(description, total=total)


def in_batches(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Split into lists of at most `size` items."""
    batch: list[Any] = []
    for item in items:
        batch.append(item)
        if len(batch) >= size:
            yield batch
            batch = []
    if batch:
        yield batch
