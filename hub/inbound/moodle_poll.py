"""One look at Moodle's log: rows in gaps, then new rows, written as events together with the position.

A crash at any moment loses and repeats nothing: what was read counts only with the commit that writes the events. Two
processes that read the same rows cannot both commit, because the position's version admits one of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

import structlog

from hub.config.sources import option
from hub.inbound.moodle_names import EventNames
from hub.models import Event, Source
from hub.pipeline.intake import Intake, ToEnqueue
from hub.sources.log_position import Gap, LogPosition, Marks
from hub.sources.moodle_event import checked_event
from hub.sources.moodle_log import LogReader, Row, fingerprint
from hub.store.configuration import Snapshot
from hub.store.database import Database
from hub.store.source_positions import Counts, Progress, SourcePositions

log = structlog.get_logger("hub.inbound.moodle_poll")
Outcome = Literal["more", "idle", "elsewhere", "waiting"]
"""Rows are left; all were read; another process reads; reading pauses (backlog, too many gaps)."""

MAX_GAPS = 100_000
"""Most gaps that are remembered; reading pauses until some are filled or too old."""
_LOOK_BACK = 1000  # ids before the newest one that may still appear when reading starts at `now`
_KEYS_LAST = 12 * 3600  # seconds after which the deduplication of what was read is not relied on (it lasts 24 h)
_BACKLOG_CHECK = 1.0  # seconds


@dataclass(frozen=True, slots=True)
class _Look:
    """What was read in one look, not yet written."""

    after: Progress
    rows: list[Row]
    reached: bool
    waits: str | None = None


class MoodlePoller:
    """Reads one source of type `moodle_log`. For one thread.

    Args:
        snapshot: gives the rules.
        now: the deployment's clock, Unix seconds.
        lease: seconds that a claim of the source lasts; more than one look takes.
        event_limit: most bytes of an event.
    """

    def __init__(
        self,
        source: Source,
        reader: LogReader,
        positions: SourcePositions,
        intake: Intake,
        db: Database,
        *,
        snapshot: Callable[[], Snapshot],
        now: Callable[[], float],
        lease: float,
        event_limit: int,
    ) -> None:
        self._source = source
        self._reader = reader
        self._positions = positions
        self._intake = intake
        self._db = db
        self._names = EventNames(source, snapshot)
        self._now = now
        self._lease = lease
        self._event_limit = event_limit
        self._batch = int(option(source, "batch"))
        self._gap_age = float(option(source, "gap_age"))
        self._tasks = (0, float("-inf"))

    def look(self) -> Outcome:
        """Read and write at most one batch.

        Raises:
            SourceError: the source's database does not respond, or refuses.
            UnavailableError: the hub's database does not respond; what was read is read again.
        """
        before = self._positions.claim(self._lease)
        if before is None:
            return "elsewhere"
        if self._too_many_tasks():
            self._positions.wait("backlog")
            return "waiting"
        look = self._begin(before) if before.last_id is None else self._read(before)
        if not self._write(before, look):
            return "elsewhere"
        if look.waits:
            return "waiting"
        return "idle" if look.reached else "more"

    def close(self) -> None:
        """Let another process go on at once."""
        self._positions.release()

    def _too_many_tasks(self) -> bool:
        count, at = self._tasks
        if time.monotonic() - at >= _BACKLOG_CHECK:
            count = self._positions.waiting_tasks()
            self._tasks = count, time.monotonic()
        return count >= int(option(self._source, "backlog"))

    # Where reading begins

    def _begin(self, before: Progress) -> _Look:
        start = before.start if before.start is not None else str(option(self._source, "start"))
        newest = self._reader.newest()
        after = replace(before, newest_id=newest, marks=((self._now(), newest),))
        if start == "now":
            first = max(0, newest - _LOOK_BACK)
            position = LogPosition(first).advance(self._reader.visible(first + 1, newest), self._now())
            rows = self._reader.rows([position.last])
            after = replace(after, last_id=position.last, gaps=_plain(position.gaps))
            return _Look(_with_last(after, rows), [], False)
        if start.isdigit():
            return _Look(replace(after, last_id=max(int(start) - 1, 0)), [], False)
        since = int(datetime.fromisoformat(start).timestamp())
        return _Look(self._from_time(after, since, newest, bounded=since <= self._now()), [], False)

    def _from_time(self, before: Progress, since: int, newest: int, *, bounded: bool = True) -> Progress:
        """A position before the first row of a time; older rows that follow it are skipped.

        Args:
            bounded: False: the time lies ahead, and rows to come are skipped until then.
        """
        first = self._reader.first_since(since - int(self._gap_age), newest)
        return replace(
            before,
            last_id=first - 1,
            last_row=None,
            skip_before=since,
            skip_until=newest if bounded else None,
            gaps=(),
        )

    def _rewind(self, before: Progress, newest: int, why: str) -> _Look:
        """The look after the table was restored or truncated: from the time of the last row on.

        Rows of shortly before are read again where deduplication still knows them.
        """
        assert before.last_time is not None
        read_at = before.read_at.astimezone(UTC).timestamp() if before.read_at else float("-inf")
        known = self._now() - read_at < _KEYS_LAST
        since = before.last_time - int(self._gap_age) if known else before.last_time + 1
        after = self._from_time(replace(before, marks=(), newest_id=newest), since, newest)
        text = (
            f"{why}: the log table was restored or rows were deleted; reading goes on at id {(after.last_id or 0) + 1}"
        )
        log.warning(text, source=self._source.name, last_id=before.last_id, newest=newest)
        self._positions.fail(text)
        return _Look(after, [], False)

    # Reading

    def _read(self, before: Progress) -> _Look:
        assert before.last_id is not None
        started = self._now()
        newest = self._reader.newest()
        known = before.last_row is not None and before.last_time is not None
        if known and newest and newest < before.last_id:
            return self._rewind(before, newest, f"the highest id went back from {before.last_id} to {newest}")
        position = LogPosition(before.last_id, tuple(Gap(*gap) for gap in before.gaps))
        late: list[Row] = []
        if position.gaps:
            found, upto = self._reader.found_in(position.gaps, self._batch)
            late = self._reader.rows(found)
            position = position.look_again([row["id"] for row in late], started, self._gap_age, upto)
        marks = Marks(before.marks).note(started, newest, self._gap_age)
        after = replace(before, newest_id=newest, marks=marks.points, gaps=_plain(position.gaps))
        if len(position.gaps) >= MAX_GAPS:
            return _Look(after, late, False, "gaps")
        room = self._batch - len(late)
        if room <= 0:
            return _Look(after, late, False)
        rows = self._reader.rows_from(before.last_id, room + 1)
        here = rows.pop(0) if rows and rows[0]["id"] == before.last_id else None
        if known and newest and (here is None or fingerprint(here) != before.last_row):
            return self._rewind(before, newest, f"the row with id {before.last_id} is another one or gone")
        rows = rows[:room]
        read_at = self._now()
        fresh = LogPosition(before.last_id).advance(
            [row["id"] for row in rows], lambda id_: marks.taken_before(id_, read_at)
        )
        fresh = fresh.look_again([], started, self._gap_age)  # what was old already was looked at just now
        after = replace(after, last_id=fresh.last, gaps=after.gaps + _plain(fresh.gaps))
        return _Look(_with_last(after, rows), late + rows, len(rows) < room)

    # Writing

    def _write(self, before: Progress, look: _Look) -> bool:
        """Write events and position; False: another process has moved the position, and nothing was written."""
        events, samples, unmatched, counts = self._events(look.rows, before)
        queued = ToEnqueue()
        with self._db.transaction() as conn:
            if not self._positions.advance(conn, before, look.after, counts, reached=look.reached, waits=look.waits):
                return False
            if events:
                _, queued = self._intake.write(events, [0] * len(events), conn)
        self._positions.committed(before, look.after)
        self._intake.enqueue(queued)
        self._intake.observe(samples, unmatched)
        return True

    def _events(self, rows: Iterable[Row], before: Progress) -> tuple[list[Event], list[Event], int, Counts]:
        """(events that a rule may want, one event of each other name, how many no rule wants, counts)."""
        self._names.refresh()
        events: list[Event] = []
        samples: dict[str, Event] = {}
        read = undecoded = refused = unmatched = 0
        for row in rows:
            read += 1
            name = str(row["eventname"])
            if _skipped(row, before) or not self._names.is_read(name):
                continue
            wanted = self._names.is_wanted(name)
            unmatched += not wanted
            if not wanted and name in samples:
                continue
            event, problem = checked_event(row, self._source.id, self._event_limit)
            if event is None:
                refused += 1
                log.warning("row is no event", source=self._source.name, id=row["id"], error=problem)
                continue
            undecoded += problem is not None
            if wanted:
                events.append(event)
            else:
                samples[name] = event
        return events, list(samples.values()), unmatched, Counts(read, len(events), undecoded, refused)


def _skipped(row: Row, before: Progress) -> bool:
    if before.skip_before is None or row["timecreated"] >= before.skip_before:
        return False
    return before.skip_until is None or bool(row["id"] <= before.skip_until)


def _with_last(position: Progress, rows: list[Row]) -> Progress:
    """The position with what it keeps of the row that was read last."""
    if not rows:
        return position
    times = [int(row["timecreated"]) for row in rows]
    return replace(position, last_row=fingerprint(rows[-1]), last_time=max(*times, position.last_time or 0))


def _plain(gaps: Iterable[Gap]) -> tuple[tuple[int, int, float], ...]:
    return tuple((gap.low, gap.high, gap.seen) for gap in gaps)
