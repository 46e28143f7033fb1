"""What all commands share: a hub to work on, output for people and machines, words to values."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer
from rich.cells import cell_len, chop_cells, set_cell_size

from hub.codec import loads
from hub.errors import PayloadError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from hub.app.lifecycle import Hub
    from hub.app.records import Records
    from hub.models import Rule, Service
    from hub.settings import Settings

JsonFlag = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="Most rows.")]
Before = Annotated[int | None, typer.Option("--before", max=2**63 - 1, help="Only ids below this one: the next page.")]
ServiceFilter = Annotated[str | None, typer.Option("--service", "-s", help="Only of this service.")]
Since = Annotated[str | None, typer.Option("--since", help="ISO time, or an age: 30m, 2h, 3d.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_CELL = 60
_SHRINKS = frozenset({"error", "last_error", "waits_for", "summary", "base_url"})
_LEAST = 16  # characters of a text that explains
_FIRST_TO_GO = (
    "default_cron",
    "last_duration_ms",
    "max_retries",
    "timeout",
    "pid",
    "host",
    "direction",
    "tries",
    "latency_ms",
    "method",
    "ended_at",
    "endpoint",
    "reason",
    "task_id",
    "rule",
    "created_at",
    "attempt",
    "success",
    "summary",
)
_WIDE = 10_000  # in a pipe a row is one line


class _Stderr:
    """Messages on stderr; Rich's console, imported when a progress bar needs it."""

    @cached_property
    def console(self) -> Console:
        from rich.console import Console

        return Console(stderr=True, highlight=False, soft_wrap=True)

    def print(self, text: str, *, markup: bool = False) -> None:
        """Print one text as it is."""
        print(text, file=sys.stderr)


err = _Stderr()


def get_settings() -> Settings:
    """The environment's settings, and logging to stderr."""
    from hub.programs.log_setup import configure_logging
    from hub.settings import load_settings

    settings = load_settings()
    configure_logging(settings, level=None if settings.log_level == "DEBUG" else "WARNING")
    return settings


@contextmanager
def open_hub() -> Iterator[Hub]:
    """A hub for one command."""
    from hub.app.lifecycle import build
    from hub.store.audit import Actor, acting

    settings = get_settings()
    who = Actor(settings.actor or _os_user(), "cli", socket.gethostname())
    with build(settings, role="cli") as hub, acting(who):
        try:
            yield hub
        except UnicodeEncodeError:
            raise usage("a word on the command line is not UTF-8") from None


@contextmanager
def open_records() -> Iterator[Records]:
    """The database for a command that only shows rows: a fraction of `open_hub`'s start-up time."""
    import logging

    from hub.app.records import Records
    from hub.settings import load_settings
    from hub.store.audit import Actor, acting

    logging.getLogger("psycopg.pool").setLevel(logging.CRITICAL)  # its failures reach the caller as exceptions
    settings = load_settings()
    who = Actor(settings.actor or _os_user(), "cli", socket.gethostname())
    with Records(settings, set_up_logging=get_settings) as records, acting(who):
        try:
            yield records
        except UnicodeEncodeError:
            raise usage("a word on the command line is not UTF-8") from None


def _os_user() -> str:
    """Who runs the command: behind `sudo` the person, not root."""
    import pwd

    from hub.settings import from_environment

    if os.getuid() == 0 and (person := from_environment("SUDO_USER")):
        return person
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


def plain(value: Any) -> Any:
    """A value as JSON has it: times in ISO 8601 UTC."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(v) for v in value]
    return value


def print_json(value: Any) -> None:
    """One document."""
    sys.stdout.write(json.dumps(plain(value), ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def show_rows(
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    *,
    as_json: bool,
    empty: str,
    filters: Iterable[object] = (),
) -> None:
    """A listing: an array of objects, or a table of some of their fields.

    Args:
        empty: said instead of an empty table.
        filters: what was asked for; if that leaves nothing, it is not said that there is nothing.
    """
    if as_json:
        print_json(rows)
        return
    if not rows:
        filtered = any(value is not None and value is not False for value in filters)
        err.print("nothing matches this filter" if filtered else empty)
        return
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else _WIDE
    cells = {column: [cell(row.get(column)) for row in rows] for column in columns}
    widths = fit({c: max(cell_len(text) for text in (c, *shown)) for c, shown in cells.items()}, room)
    numeric = {
        c: all(isinstance(row.get(c), int | float) and not isinstance(row.get(c), bool) for row in rows) for c in widths
    }
    bold, plain_again = ("\x1b[1m", "\x1b[0m") if sys.stdout.isatty() else ("", "")
    heading = " ".join(_padded(c.replace("_", " "), widths[c], right=numeric[c]) for c in widths)
    print(f"{bold}{heading.rstrip()}{plain_again}")
    for line in zip(*(cells[column] for column in widths), strict=True):
        padded = (_padded(text, widths[c], right=numeric[c]) for c, text in zip(widths, line, strict=True))
        print(" ".join(padded).rstrip())
    if hidden := [column.replace("_", " ") for column in columns if column not in widths]:
        err.print(f"not shown at this width: {', '.join(hidden)}; --json has everything", markup=False)


def _padded(text: str, width: int, *, right: bool) -> str:
    """`text` in exactly `width` terminal columns."""
    if cell_len(text) > width:
        text = set_cell_size(text, width - 1).rstrip() + "…"
    space = " " * (width - cell_len(text))
    return space + text if right else text + space


def fit(widths: Mapping[str, int], room: int) -> dict[str, int]:
    """The columns that a line of `room` characters has room for, with their widths, in order.

    Columns of `_FIRST_TO_GO` are left out one after the other; a text that explains (`_SHRINKS`) takes what is left.
    Everything that stays is whole, except such texts.
    """
    least = {c: min(w, _LEAST) if c in _SHRINKS else w for c, w in widths.items()}
    for column in (*_FIRST_TO_GO, *reversed(least)):
        if sum(least.values()) + len(least) - 1 <= room or len(least) == 1:
            break
        least.pop(column, None)
    spare = room - sum(least.values()) - len(least) + 1
    for column in least:
        if column in _SHRINKS and spare > 0:
            more = min(spare, widths[column] - least[column])
            least[column] += more
            spare -= more
    return {column: min(width, room) for column, width in least.items()}


def show_object(row: Mapping[str, Any], *, as_json: bool) -> None:
    """One object, field by field."""
    if as_json:
        print_json(row)
        return
    tty = sys.stdout.isatty()
    bold, plain_again = ("\x1b[1m", "\x1b[0m") if tty else ("", "")
    label = max((len(name) for name in row), default=0)
    room = max((shutil.get_terminal_size().columns if tty else 160) - label - 1, _LEAST)
    for name, value in row.items():
        shown = json.dumps(plain(value), ensure_ascii=False, indent=2) if isinstance(value, dict | list) else value
        lines = [part for text in cell(shown, width=None).split("\n") for part in chop_cells(text, room) or [""]]
        for number, line in enumerate(lines):
            head = name.replace("_", " ") if number == 0 else ""
            print(f"{bold}{head:<{label}}{plain_again} {line}".rstrip())


def cell(value: Any, width: int | None = _CELL) -> str:
    """A value in a table: one line, control characters made visible."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return value.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, float):
        return f"{value:.1f}"
    text = str(value)
    if width is not None:
        text = " ".join(text.split())
        text = text if len(text) <= width else text[: width - 1] + "…"
    return "".join(c if c.isprintable() or (c == "\n" and width is None) else repr(c)[1:-1] for c in text)


def usage(message: str) -> typer.BadParameter:
    """A value on the command line that cannot be used: exit 2."""
    return typer.BadParameter(message)


def parse_time(text: str | None) -> datetime | None:
    """`2026-01-31T12:00`, or an age such as `2h`."""
    if text is None:
        return None
    try:
        if match := _AGE.fullmatch(text.strip()):
            return datetime.now(UTC) - timedelta(seconds=float(match[1]) * _SECONDS[match[2]])
        return datetime.fromisoformat(text.strip()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise usage(f"{text!r} is neither an ISO time nor an age like 30m, 2h, 3d") from None


def read_text(argument: str) -> str:
    """The argument, or the content of the file it names with `@` (`@-`: standard input)."""
    if not argument.startswith("@"):
        return argument
    return read_file(argument[1:])


def read_file(name: str) -> str:
    """A text file's content; `-` is standard input."""
    try:
        raw = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        return raw.decode("utf-8-sig")
    except OSError as e:
        raise usage(f"{name}: {e.strerror}") from None
    except UnicodeDecodeError as e:
        raise usage(f"{name}: not UTF-8 at byte {e.start}") from None


@contextmanager
def writing(name: str) -> Iterator[TextIO]:
    """A file to write, or stdout for `-`."""
    if name == "-":
        yield sys.stdout
        return
    try:
        with Path(name).open("w", encoding="utf-8") as out:
            yield out
    except OSError as e:
        raise usage(f"{name}: {e.strerror}") from None


def said(kind: str, thing: Service | Rule, what: str, *, as_json: bool) -> None:
    """What became of a service or a rule."""
    if as_json:
        print_json({"id": thing.id, "name": thing.name, "result": what})
    else:
        print(f"{kind} {thing.name} {what}")


def parse_json(text: str, what: str) -> Any:
    """JSON given on the command line."""
    try:
        return loads(text)
    except PayloadError as e:
        raise usage(f"{what}: {e}") from None


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something is gone for good; without a terminal `--yes` is needed."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise usage(f"{question} Nobody is there to answer: add --yes")
    typer.confirm(question, abort=True, err=True)


@contextmanager
def progress(description: str, total: int | None = None) -> Iterator[tuple[Progress, Any]]:
    """A progress bar on stderr, when a person watches."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=err.console,
        transient=True,
        disable=not sys.stderr.isatty(),
        redirect_stdout=sys.stdout.isatty(),  # a file or a pipe gets what is printed, not the terminal
    )
    with bar:
        yield bar, bar.add_task(description, total=total)


def in_batches(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Lists of at most `size`."""
    batch: list[Any] = []
    for item in items:
        batch.append(item)
        if len(batch) >= size:
            yield batch
            batch = []
    if batch:
        yield batch
