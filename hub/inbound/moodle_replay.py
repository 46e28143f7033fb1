"""Replay of a Moodle source: rows of the past become events for one rule. The source's position stays where it is."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from hub.domain import rules
from hub.models import Rule, Source
from hub.pipeline.intake import Intake
from hub.sources.moodle_event import checked_event
from hub.sources.moodle_log import LogReader, Row
from hub.store.database import Database
from hub.store.source_history import had_task

_BATCH = 500
_DISORDER = 3600  # seconds by which a row's time may lie behind that of a row with a lower id


@dataclass(slots=True)
class Replayed:
    """Rows read in the time asked for; those that fit the rule; those it has had already; tasks made."""

    read: int = 0
    matched: int = 0
    skipped: int = 0
    tasks: int = 0


class MoodleReplay:
    """Reads the rows of a time once and passes them to intake.

    Args:
        event_limit: most bytes of an event.
        rate: most tasks made in a second.
        write: False only counts.
    """

    def __init__(
        self,
        source: Source,
        reader: LogReader,
        intake: Intake,
        db: Database,
        *,
        event_limit: int,
        rate: float,
        write: bool,
    ) -> None:
        self._source = source
        self._reader = reader
        self._intake = intake
        self._db = db
        self._event_limit = event_limit
        self._rate = rate
        self._write = write

    def run(self, rule: Rule, since: int, until: int, told: Callable[[Replayed, float], None]) -> Replayed:
        """Replay the rows with a time from `since` to `until` (Unix seconds, both included).

        Args:
            told: called after each batch, with the part of the ids that was read, from 0 to 1.

        Raises:
            SourceError: the site's database does not respond. What was written stays, and is skipped the next time.
            UnavailableError: the hub's database does not respond.
        """
        done = Replayed()
        newest = self._reader.newest()
        first = following = self._reader.first_since(since - _DISORDER, newest)
        while following <= newest:
            begun = time.monotonic()
            rows = self._reader.rows_from(following, _BATCH)
            if not rows:
                break
            following = rows[-1]["id"] + 1
            inside = [row for row in rows if since <= row["timecreated"] <= until and row["id"] <= newest]
            made = self._batch(rule, inside, done)
            told(done, min(1.0, (following - first) / max(1, newest + 1 - first)))
            if min(row["timecreated"] for row in rows) > until + _DISORDER:
                break
            time.sleep(max(0.0, made / self._rate - (time.monotonic() - begun)))
        return done

    def _batch(self, rule: Rule, rows: list[Row], done: Replayed) -> int:
        """Write the events of rows that the rule has not had; how many tasks were made."""
        done.read += len(rows)
        found = (checked_event(row, self._source.id, self._event_limit)[0] for row in rows)
        events = [event for event in found if event is not None and rules.matches(rule, event)]
        done.matched += len(events)
        own = {event.key: f"{event.key}:rule{rule.id}" for event in events}
        known = had_task(self._db, [*map(str, own), *own.values()], rule.id)
        new = [event for event in events if event.key not in known and own[event.key] not in known]
        done.skipped += len(events) - len(new)
        if not self._write or not new:
            done.tasks += 0 if self._write else len(new)
            return 0
        given = [replace(event, key=own[event.key]) for event in new]
        accepted, queued = self._intake.write(given, [0] * len(given), only=rule.id)
        self._intake.enqueue(queued)
        made = sum(len(each.tasks) for each in accepted)
        done.tasks += made
        return made
