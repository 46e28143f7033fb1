"""Position in a log table whose rows become visible late and out of order. Pure.

A position is an id up to which every row was read, except those in gaps. A gap is a range of ids that were not
visible when a higher id was read. Gaps are read again until rows fill them or they are older than a bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Gap:
    """Ids `low` to `high` (both included) that were first missed at `seen` (seconds, the hub's clock)."""

    low: int
    high: int
    seen: float


@dataclass(frozen=True, slots=True)
class LogPosition:
    """What was read of a table: every id up to `last`, except those in `gaps` (ascending, disjoint)."""

    last: int = 0
    gaps: tuple[Gap, ...] = ()

    def advance(self, ids: Sequence[int], seen: float) -> LogPosition:
        """The position after rows above `last` were read.

        Args:
            ids: of the rows, ascending, all above `last`; no visible row lies between them.
            seen: when they were read.
        """
        gaps = list(self.gaps)
        last = self.last
        for id_ in ids:
            if id_ <= last:
                raise ValueError("ids must ascend from the position")
            if id_ > last + 1:
                gaps.append(Gap(last + 1, id_ - 1, seen))
            last = id_
        return LogPosition(last, tuple(gaps))

    def look_again(self, ids: Sequence[int], started: float, max_age: float, upto: int | None = None) -> LogPosition:
        """The position after the gaps were read again.

        Args:
            ids: of the rows found in gaps, ascending.
            started: when the reading began. A gap expires only by a look that began after its time.
            max_age: seconds that a gap is remembered.
            upto: the last id that was looked at, where a limit ended the reading; None: all gaps were.
        """
        found = set(ids)
        gaps: list[Gap] = []
        for gap in self.gaps:
            for part in _without(gap, sorted(id_ for id_ in found if gap.low <= id_ <= gap.high)):
                expired = started - part.seen >= max_age
                if not expired:
                    gaps.append(part)
                elif upto is not None and part.high > upto:
                    gaps.append(replace(part, low=max(part.low, upto + 1)))
        return replace(self, gaps=tuple(gaps))


def _without(gap: Gap, ids: Sequence[int]) -> list[Gap]:
    """What is left of a gap when rows have filled some of its ids."""
    parts: list[Gap] = []
    low = gap.low
    for id_ in ids:
        if id_ > low:
            parts.append(replace(gap, low=low, high=id_ - 1))
        low = id_ + 1
    if low <= gap.high:
        parts.append(replace(gap, low=low))
    return parts
