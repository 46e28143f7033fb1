"""Output for people and programs: tables, objects, JSON, messages on stderr."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len, chop_cells, set_cell_size

if TYPE_CHECKING:
    from rich.console import Console

    from hub.models import Rule, Service

_CELL = 60
_SHRINKS = frozenset({"error", "last_error", "waits_for", "summary", "base_url"})
_SHORTEST = 16  # characters of a column of `_SHRINKS`
_DROPPED_FIRST = (
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
_WIDE = 10_000  # without a terminal each row is one line


class _Stderr:
    """Messages on stderr. Imports Rich only for a progress bar."""

    @cached_property
    def console(self) -> Console:
        from rich.console import Console

        return Console(stderr=True, highlight=False, soft_wrap=True)

    def print(self, text: str, *, markup: bool = False) -> None:
        """Print a line of plain text."""
        print(text, file=sys.stderr)


err = _Stderr()


def plain(value: Any) -> Any:
    """A value for JSON: times in ISO 8601 UTC, collections as lists."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(v) for v in value]
    return value


def print_json(value: Any) -> None:
    """Print one JSON document."""
    sys.stdout.write(json.dumps(plain(value), ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def show_rows(
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    *,
    as_json: bool,
    empty: str,
    filters: Iterable[object] = (),
) -> None:
    """Print rows as a JSON array, or as a table of some of their fields.

    Args:
        empty: printed instead of an empty table.
        filters: values of the filters; with one that is set, an empty result does not mean that there is nothing.
    """
    if as_json:
        print_json(rows)
        return
    if not rows:
        filtered = any(value is not None and value is not False for value in filters)
        err.print("nothing matches the filter" if filtered else empty)
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
    """Choose the columns that fit into `room` characters; returns their widths in order.

    Columns of `_DROPPED_FIRST` are left out one after the other. Only the columns of `_SHRINKS` are cut; they take the
    space that is left.
    """
    least = {c: min(w, _SHORTEST) if c in _SHRINKS else w for c, w in widths.items()}
    for column in (*_DROPPED_FIRST, *reversed(least)):
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
    """Print one object, one field per line."""
    if as_json:
        print_json(row)
        return
    tty = sys.stdout.isatty()
    bold, plain_again = ("\x1b[1m", "\x1b[0m") if tty else ("", "")
    label = max((len(name) for name in row), default=0)
    room = max((shutil.get_terminal_size().columns if tty else 160) - label - 1, _SHORTEST)
    for name, value in row.items():
        shown = json.dumps(plain(value), ensure_ascii=False, indent=2) if isinstance(value, dict | list) else value
        lines = [part for text in cell(shown, width=None).split("\n") for part in chop_cells(text, room) or [""]]
        for number, line in enumerate(lines):
            head = name.replace("_", " ") if number == 0 else ""
            print(f"{bold}{head:<{label}}{plain_again} {line}".rstrip())


def cell(value: Any, width: int | None = _CELL) -> str:
    """A value as text for a table: one line, control characters escaped. `width` None keeps line feeds."""
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


def said(kind: str, thing: Service | Rule, what: str, *, as_json: bool) -> None:
    """Print the result of a change to a service or rule."""
    if as_json:
        print_json({"id": thing.id, "name": thing.name, "result": what})
    else:
        print(f"{kind} {thing.name} {what}")
