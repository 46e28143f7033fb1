"""A row of the bench: a name, and something to measure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.bench.rig import Rig

Numbers = dict[str, float]


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    Attributes:
        quick: one or two runs of little.
        events, slow_events: of one run of a row of throughput.
        seconds: of what runs for a time.
        messages: of a response queue.
        backlog: due tasks of a neighbour; depth: pending tasks; burst: events at once.
    """

    quick: bool = False
    events: int = 8000
    slow_events: int = 8000
    seconds: float = 6.0
    ingest: int = 20_000
    messages: int = 100_000
    backlog: int = 100_000
    depth: int = 1_000_000
    burst: int = 100_000

    @classmethod
    def small(cls) -> Scale:
        """For a look in a minute or two."""
        return cls(True, 2000, 2000, 3.0, 4000, 20_000, 10_000, 50_000, 5000)


@dataclass(frozen=True)
class Row:
    """One row.

    Args:
        rounds: runs in full mode, by turns with the other rows; quick mode makes one.
    """

    name: str
    what: str
    run: Callable[[Rig, Scale], Numbers]
    rounds: int = 3
