"""Position in a log table whose rows become visible late and out of order. Pure.

A position is an id up to which every row was read, except those in gaps. A gap is a range of ids that were not
visible when a higher id was read. Gaps are read again until rows fill them or they are older than a bound.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

Seen = float | Callable[[int], float]


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

    def advance(self, ids: Sequence[int], seen: Seen) -> LogPosition:
        """The position after rows above `last` were read.

        Args:
            ids: of the rows, ascending, all above `last`; no visible row lies between them.
            seen: when they were read, or a function that gives the time from which an id counts as missed.
        """
        gaps = list(self.gaps)
        last = self.last
        for id_ in ids:
            if id_ <= last:
                raise ValueError("ids must ascend from the position")
            if id_ > last + 1:
                gaps.append(Gap(last + 1, id_ - 1, seen(id_ - 1) if callable(seen) else seen))
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
        found = sorted(set(ids))
        gaps: list[Gap] = []
        for gap in self.gaps:
            expired = started - gap.seen >= max_age
            inside = found[bisect_left(found, gap.low) : bisect_left(found, gap.high + 1)] if found else ()
            for part in _without(gap, inside) if inside else (gap,):
                if not expired:
                    gaps.append(part)
                elif upto is not None and part.high > upto:
                    gaps.append(replace(part, low=max(part.low, upto + 1)))
        return replace(self, gaps=tuple(gaps))


@dataclass(frozen=True, slots=True)
class Marks:
    """The highest visible id at some moments, ascending: an id below a mark was taken before its moment.

    Ids are taken in ascending order, so a missing id is as old as the first mark above it. A reader that is behind
    need not remember the gaps of what was written long ago.
    """

    points: tuple[tuple[float, int], ...] = ()

    def note(self, at: float, newest: int, max_age: float) -> Marks:
        """The marks after a look: about twenty within `max_age`, and the last one before."""
        points = [point for point in self.points if point[1] <= newest]
        if not points or (at - points[-1][0] >= max_age / 20 and newest > points[-1][1]):
            points.append((at, newest))
        while len(points) > 1 and at - points[1][0] >= max_age:
            del points[0]
        return Marks(tuple(points))

    def taken_before(self, id_: int, now: float) -> float:
        """A moment by which the id had been taken, not after `now`."""
        return next((at for at, newest in self.points if newest > id_), now)


def windows(gaps: Sequence[Gap], span: int) -> list[tuple[int, int]]:
    """Ranges of ids that cover the gaps, in order: neighbours share one while it has at most `span` ids."""
    found: list[tuple[int, int]] = []
    for gap in gaps:
        if found and gap.high - found[-1][0] < span:
            found[-1] = found[-1][0], gap.high
        else:
            found.append((gap.low, gap.high))
    return found


def in_gaps(gaps: Sequence[Gap], ids: Sequence[int]) -> list[int]:
    """Those of the ids that lie in a gap; both ascend."""
    highs = [gap.high for gap in gaps]
    found = []
    for id_ in ids:
        at = bisect_left(highs, id_)
        if at < len(gaps) and gaps[at].low <= id_:
            found.append(id_)
    return found


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
