"""Cron expressions: check, normalize, and list the runs. The only module that uses cronsim."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from cronsim.cronsim import Field

from hub.errors import ConfigError

# name, what cronsim calls it, what may stand there, lowest value and count for Moodle's R (None: no R there)
_FIELDS = (
    ("minute", Field.MINUTE, "0-59", (0, 60)),
    ("hour", Field.HOUR, "0-23", (0, 24)),
    ("day of month", Field.DAY, "1-31", None),
    ("month", Field.MONTH, "1-12 or jan-dec", None),
    ("day of week", Field.DOW, "0-7 (0 and 7 are Sunday) or sun-sat", (0, 7)),
)
_DAYS = {Field.DAY: "1-31", Field.DOW: "0-6"}


def parse_cron(expression: str, *, seed: str = "") -> str:
    """Check and normalize a five-field cron expression.

    Moodle's `R` (minute, hour or day of week) becomes a fixed value that depends on `seed` only, so that
    many hubs do not all run at once, and one hub always gives the same.

    Raises:
        ConfigError: `field` is the bad field (minute, hour, day of month, month, day of week), or `cron`.
    """
    parts = expression.split() if isinstance(expression, str) else []
    if len(parts) != 5:
        names = ", ".join(name for name, *_ in _FIELDS)
        raise ConfigError(f"needs five fields ({names}), not {len(parts)}", field="cron")
    for i, (name, kind, allowed, random) in enumerate(_FIELDS):
        if random is not None and parts[i].upper() == "R":
            low, count = random
            digest = hashlib.sha256(f"{seed}\0{name}".encode()).digest()
            parts[i] = str(low + int.from_bytes(digest[:8], "big") % count)
        try:
            if len(parts[i]) > 200 or not parts[i].isascii():
                raise CronSimError
            if kind in _DAYS and ("L" in parts[i].upper() or "#" in parts[i]):
                raise CronSimError  # extensions of cronsim that neither cron nor Moodle has
            kind.parse(parts[i].upper())
        except (CronSimError, AssertionError, ValueError, RecursionError):
            shown = parts[i] if len(parts[i]) <= 40 else parts[i][:40] + "…"
            also = ", R" if random is not None else ""
            raise ConfigError(
                f"{shown!r} is not valid; use {allowed}, *, lists, ranges, steps{also}", field=name
            ) from None
    cron = " ".join(parts)
    try:
        next(_simulate(cron, datetime(2024, 1, 1, tzinfo=UTC)))
    except (CronSimError, StopIteration):
        raise ConfigError(f"{parts[2]!r} never comes together with the other fields", field="day of month") from None
    return cron


def _simulate(cron: str, after: datetime) -> CronSim:
    """The runs of an expression. When day of month and day of week are both given, a day that fits one of them fits.

    That is cron's rule as Moodle and robfig/cron read it: a field is not given when it is exactly `*`. cronsim follows
    Debian, where `*/10` also counts as not given, so such a field is written as a range for it.
    """
    parts = cron.split()
    for i, (_, kind, *_) in enumerate(_FIELDS):
        if kind in _DAYS and parts[i] != "*":
            terms = parts[i].split(",")
            parts[i] = ",".join(_DAYS[kind] + term[1:] if term.startswith("*") else term for term in terms)
    return CronSim(" ".join(parts), after)


def runs_after(cron: str, zone: str, after: datetime) -> Iterator[datetime]:
    """Every run after `after`, in UTC. `cron` is read in the time zone `zone`.

    When clocks go forward, a fixed time that does not exist runs right after the gap; when they go back,
    one that comes twice runs once. Wildcards (`*/10 * * * *`) run in real time.
    """
    last = after.astimezone(UTC)
    for local in _simulate(cron, after.astimezone(ZoneInfo(zone))):
        at = local.astimezone(UTC)
        if at > last:  # two times in a gap become one; a time before `after` is the first pass of a repeated hour
            last = at
            yield at


def next_runs(cron: str, zone: str, after: datetime, n: int = 5) -> list[datetime]:
    """The next `n` runs after `after`, in UTC; fewer if there are no more."""
    return [at for at, _ in zip(runs_after(cron, zone, after), range(n), strict=False)]
