"""`hub emit`: accept events from the command line, a file or a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from hub.cli.common import JsonFlag, in_batches, open_hub, parse_json, progress, read_text, usage
from hub.cli.output import err, print_json
from hub.codec import loads
from hub.errors import PayloadError

if TYPE_CHECKING:
    from hub.app.lifecycle import Hub
    from hub.models import Accepted, Event

_BATCH = 500


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(emit)


def emit(
    file: Annotated[str | None, typer.Argument(help="A file with one JSON event per line, or - for stdin.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of the event.")] = None,
    data: Annotated[str | None, typer.Option("--data", help="Data of the event: JSON, or @FILE.")] = None,
    id_: Annotated[str | None, typer.Option("--id", help="Your id of the event; accepted once per 24 h.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Accept events. Prints their ids after the commit."""
    if (file is None) == (name is None):
        raise usage("give either --name (with --data) or a FILE of events, or - for standard input")
    if file is not None and (data is not None or id_ is not None):
        raise usage("--data and --id go with --name")
    printed = _Printer(as_json)
    if file is not None:
        _emit_file(file, printed)
        return
    from hub.domain.events import parse_event

    value = {"name": name, "data": parse_json(read_text(data), "--data") if data is not None else {}}
    with open_hub() as hub:
        event = parse_event(value, limit=hub.settings.event_limit, key=id_)
        printed.add(hub.intake.handle_events([event]))
    printed.end()


def _emit_file(file: str, printed: _Printer) -> None:
    """Accept events in batches, each in one transaction. Events before an invalid line stay accepted."""
    try:
        source: IO[bytes] = sys.stdin.buffer if file == "-" else Path(file).open("rb")  # noqa: SIM115
        total = None if file == "-" else _count_lines(Path(file))
    except OSError as e:
        raise usage(f"{file}: {e.strerror}") from None
    with source, open_hub() as hub, progress("events", total) as (bar, task):
        problem: list[PayloadError] = []
        try:
            for batch in in_batches(_events(source, hub, problem), _BATCH):
                printed.add(hub.intake.handle_events(batch))
                bar.advance(task, len(batch))
        finally:
            printed.end()  # also after an error: these events were accepted
    err.print(printed.summary(), markup=False)
    if problem:
        raise problem[0]


def _count_lines(path: Path) -> int | None:
    """Lines of a file, for the progress bar; None without a terminal, or if the file cannot be read twice."""
    if not sys.stderr.isatty() or not path.is_file():
        return None
    with path.open("rb") as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))


def _events(source: IO[bytes], hub: Hub, problem: list[PayloadError]) -> Iterator[Event]:
    """Events up to the first invalid line, whose error is put into `problem`."""
    from hub.domain.events import parse_event

    limit = hub.settings.event_limit
    number = 0
    while line := source.readline(limit * 2 + 2):
        number += 1
        if not line.strip():
            continue
        try:
            if not line.endswith(b"\n") and len(line) > limit * 2:
                raise PayloadError(f"longer than {limit * 2} bytes (HUB_EVENT_LIMIT)")
            yield parse_event(loads(line), limit=limit)
        except PayloadError as e:
            problem.append(PayloadError(f"line {number}: {e}; the events of the lines before it were accepted"))
            return


class _Printer:
    """Prints ids, one per line, as they are accepted; with `--json` one array at the end."""

    def __init__(self, as_json: bool) -> None:
        self._rows: list[dict[str, Any]] | None = [] if as_json else None
        self._events = self._duplicates = self._tasks = 0

    def add(self, accepted: list[Accepted]) -> None:
        self._events += len(accepted)
        self._duplicates += sum(a.duplicate for a in accepted)
        self._tasks += sum(len(a.tasks) for a in accepted)
        if self._rows is None:
            sys.stdout.write("".join(f"{a.id}\n" for a in accepted))
            sys.stdout.flush()
        else:
            self._rows += [{"id": a.id, "duplicate": a.duplicate, "tasks": list(a.tasks)} for a in accepted]

    def end(self) -> None:
        if self._rows is not None:
            print_json(self._rows)

    def summary(self) -> str:
        """Totals of what was accepted."""
        return f"{self._events} event(s) accepted, {self._duplicates} of them duplicates; {self._tasks} task(s)"
