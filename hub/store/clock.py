"""The clock of the deployment: PostgreSQL's.

Times that are compared between processes (minutes of a schedule, ages, signatures) are read here. A machine whose own
clock is wrong or jumps is indistinguishable from the others.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from hub.store.database import Database

_NOW = "SELECT clock_timestamp() AS now"
_SHORT = 0.2  # seconds; a slower reading is less exact than an earlier one, extrapolated


class Clock:
    """Extrapolates a reading of PostgreSQL's clock by the monotonic clock of this machine."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._read: tuple[datetime, float] | None = None  # PostgreSQL's time, and the monotonic time at that moment

    @property
    def offset(self) -> float | None:
        """Seconds by which the wall clock of this machine is ahead of PostgreSQL's; None before the first `sync`."""
        if self._read is None:
            return None
        return (datetime.now(UTC) - self.now()).total_seconds()  # noqa: TID251 - the clock that is compared

    def now(self) -> datetime:
        """The time, in UTC, without a query. Before the first `sync` it is the wall clock of this machine."""
        if self._read is None:
            return datetime.now(UTC)  # noqa: TID251 - nothing better is known yet
        at, steady = self._read
        return at + timedelta(seconds=_monotonic() - steady)

    def read(self) -> datetime:
        """The time, read from PostgreSQL; raises `UnavailableError`."""
        row = self._db.one(_NOW)
        assert row is not None
        at: datetime = row["now"]
        return at.astimezone(UTC)

    def sync(self) -> None:
        """Read PostgreSQL's clock, for `now`; raises `UnavailableError`."""
        before = _monotonic()
        at = self.read()
        after = _monotonic()
        if self._read is None or after - before < _SHORT:
            self._read = at, (before + after) / 2


def _monotonic() -> float:
    """Monotonic seconds; they include suspends of the machine where the system has such a clock."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
