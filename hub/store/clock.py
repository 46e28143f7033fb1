"""The deployment's one clock: PostgreSQL's. No process trusts the wall clock of its own machine.

Whatever is compared between processes (minutes of a schedule, ages, signatures) is read here: a machine whose clock
is wrong, or jumps, is told apart from the others by nothing.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from hub.store.database import Database

_NOW = "SELECT clock_timestamp() AS now"
_SHORT = 0.2  # seconds; what took longer to read is less exact than what was read before and carried on


class Clock:
    """Carries on what was read of PostgreSQL's clock by this machine's steady one, which no step moves."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._read: tuple[datetime, float] | None = None  # PostgreSQL's time, and the steady one at that moment

    def now(self) -> datetime:
        """The time, in UTC. Asks nobody; before the first `sync` it is this machine's own."""
        if self._read is None:
            return datetime.now(UTC)  # noqa: TID251 - there is nothing better yet
        at, steady = self._read
        return at + timedelta(seconds=_steady() - steady)

    def read(self) -> datetime:
        """The time, exactly; raises `UnavailableError`."""
        row = self._db.one(_NOW)
        assert row is not None
        at: datetime = row["now"]
        return at.astimezone(UTC)

    def sync(self) -> None:
        """Read it now and then, so that `now` follows it; raises `UnavailableError`."""
        before = _steady()
        at = self.read()
        after = _steady()
        if self._read is None or after - before < _SHORT:
            self._read = at, (before + after) / 2


def _steady() -> float:
    """Seconds that go on while the machine sleeps, where the system has such a clock."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
