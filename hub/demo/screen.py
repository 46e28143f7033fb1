"""Output of the demo: lines as things happen, for a terminal, a pipe or a log file."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.table import Table
from rich.text import Text

_WIDTH = 110  # without a terminal


class Screen:
    """Prints what happens.

    Args:
        stderr: print on stderr, since stdout gets JSON.
    """

    def __init__(self, *, stderr: bool) -> None:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")  # a terminal without ✓ shows ?
        console = Console(stderr=stderr, highlight=False)
        self._console = console if console.is_terminal else Console(stderr=stderr, highlight=False, width=_WIDTH)
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._began

    def title(self, text: str) -> None:
        """Print a heading."""
        self._console.print()
        self._console.print(Text(text, style="bold"))

    def say(self, text: str, *, style: str = "") -> None:
        """Print a line of explanation."""
        self._console.print(Text(f"  {text}", style=style), soft_wrap=True)

    def happened(self, mark: str, text: str, *, style: str = "") -> None:
        """Print what happened, with the time since the start."""
        self._console.print(
            Text.assemble((f"  {self.seconds:5.1f} s  ", "dim"), (f"{mark} {text}", style)), soft_wrap=True
        )

    def checked(self, text: str, *, ok: bool) -> None:
        """Print a claim and whether it held."""
        mark, style = ("✓", "green") if ok else ("✗", "bold red")
        self._console.print(Text.assemble(("           ", ""), (f"{mark} {text}", style)), soft_wrap=True)

    @contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        """Show a spinner, if there is a terminal."""
        if not self._console.is_terminal:
            yield
            return
        with self._console.status(Text(text, style="dim")):
            yield

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table."""
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2))
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*(Text(cell, style="red" if cell == "NO" else "") for cell in row))
        self._console.print()
        self._console.print(table)

    def raw(self, text: str) -> None:
        """Print plain text."""
        self._console.print(Text(text), soft_wrap=True)
