"""How far event sources were read: leases, positions, gaps, counts. One version after the other.

A poller claims a source, reads rows from the foreign database, and writes events and position in one transaction.
The lease spares two processes from reading the same rows; the version makes sure that only one of them writes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from hub.store.database import Connection, Database, Row

_CLAIM = """
UPDATE source_positions SET owner = %(owner)s, lease_until = now() + make_interval(secs => %(seconds)s)
WHERE source_id = %(source)s AND (owner = %(owner)s OR lease_until IS NULL OR lease_until < now())
RETURNING version, start, last_id, last_row, last_time, skip_before, skip_until, marks, newest_id, read_at
"""
_RELEASE = "UPDATE source_positions SET lease_until = NULL WHERE source_id = %s AND owner = %s"
_GAPS = "SELECT low, high, seen FROM source_gaps WHERE source_id = %s ORDER BY low"
_ADVANCE = """
UPDATE source_positions SET version = version + 1, last_id = %(last_id)s, last_row = %(last_row)s,
    last_time = %(last_time)s, skip_before = %(skip_before)s, skip_until = %(skip_until)s, marks = %(marks)s,
    newest_id = %(newest_id)s, polled_at = now(), reached_at = CASE WHEN %(reached)s THEN now() ELSE reached_at END,
    read_at = CASE WHEN %(rows)s > 0 THEN now() ELSE read_at END, read_rows = read_rows + %(rows)s,
    events = events + %(events)s, undecoded = undecoded + %(undecoded)s, refused = refused + %(refused)s,
    waits_for = %(waits_for)s
WHERE source_id = %(source)s AND version = %(version)s
"""
_DROP_GAPS = "DELETE FROM source_gaps WHERE source_id = %s AND low = ANY(%s)"
_ADD_GAPS = """
INSERT INTO source_gaps (source_id, low, high, seen)
SELECT %s, * FROM unnest(%s::bigint[], %s::bigint[], %s::float8[])
"""
_FAIL = """
UPDATE source_positions SET errors = errors + 1, last_error = left(%(error)s, 1000), error_at = now()
WHERE source_id = %(source)s
"""
_WAIT = "UPDATE source_positions SET waits_for = %s, polled_at = now() WHERE source_id = %s"
_RESET = """
UPDATE source_positions SET version = version + 1, start = %(start)s, last_id = NULL, last_row = NULL,
    last_time = NULL, skip_before = NULL, skip_until = NULL, marks = '[]', read_at = NULL, waits_for = NULL
WHERE source_id = %(source)s
"""
_FORGET_GAPS = "DELETE FROM source_gaps WHERE source_id = %s"
_WAITING = "SELECT coalesce(sum(n), 0)::bigint AS n FROM task_counts"
_STATUS = """
SELECT s.id, s.name, s.enabled, p.last_id, p.newest_id, p.polled_at, p.reached_at, p.read_at, p.read_rows, p.events,
    p.undecoded, p.refused, p.errors, p.last_error, p.error_at, p.waits_for, p.owner,
    CASE WHEN s.enabled THEN extract(epoch FROM now() - coalesce(p.reached_at, s.created_at))::float8 END
        AS lag_seconds,
    greatest(p.newest_id - p.last_id, 0) AS lag_rows,
    coalesce(g.gaps, 0) AS gaps, coalesce(g.ids, 0)::bigint AS missing_ids,
    CASE WHEN NOT s.enabled THEN 'disabled'
         WHEN p.error_at IS NOT NULL AND p.error_at >= coalesce(p.polled_at, p.error_at) THEN 'failing'
         WHEN p.waits_for IS NOT NULL THEN 'waiting'
         WHEN p.last_id IS NULL THEN 'starting'
         WHEN p.newest_id > p.last_id THEN 'reading'
         ELSE 'up_to_date' END AS state
FROM sources s LEFT JOIN source_positions p ON p.source_id = s.id
LEFT JOIN (SELECT source_id, count(*) AS gaps, sum(high - low + 1) AS ids FROM source_gaps GROUP BY 1) g
    ON g.source_id = s.id
WHERE s.deleted_at IS NULL AND (%(name)s::text IS NULL OR s.name = %(name)s) ORDER BY s.name
"""

GapRow = tuple[int, int, float]  # low, high (inclusive), seen (Unix seconds)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a source was read, as of one version. The fields are those of the table `source_positions`."""

    version: int
    start: str | None = None
    last_id: int | None = None
    last_row: str | None = None
    last_time: int | None = None
    skip_before: int | None = None
    skip_until: int | None = None
    marks: tuple[tuple[float, int], ...] = ()
    newest_id: int | None = None
    read_at: datetime | None = None
    gaps: tuple[GapRow, ...] = ()


@dataclass(frozen=True, slots=True)
class Counts:
    """What one look did: rows read, events written, rows whose `other` is unreadable, rows that are no event."""

    rows: int = 0
    events: int = 0
    undecoded: int = 0
    refused: int = 0


@dataclass(slots=True)
class _Known:
    version: int
    gaps: tuple[GapRow, ...] = field(default=())


class SourcePositions:
    """Reads and writes positions. One instance per poller: it remembers the gaps of the version it wrote."""

    def __init__(self, db: Database, source_id: int, owner: str) -> None:
        self._db = db
        self._source = source_id
        self._owner = owner
        self._known: _Known | None = None

    def claim(self, seconds: float) -> Progress | None:
        """Take or renew the lease and read the position; None: another process has it, or the source is gone."""
        row = self._db.one(_CLAIM, {"source": self._source, "owner": self._owner, "seconds": seconds})
        if row is None:
            self._known = None
            return None
        if self._known is None or self._known.version != row["version"]:
            gaps = tuple((g["low"], g["high"], g["seen"]) for g in self._db.all(_GAPS, [self._source]))
            self._known = _Known(row["version"], gaps)
        marks = tuple((float(at), int(newest)) for at, newest in row.pop("marks"))
        return Progress(**row, marks=marks, gaps=self._known.gaps)

    def release(self) -> None:
        """End the lease, so that another process may go on at once."""
        self._db.run(_RELEASE, [self._source, self._owner])

    def advance(
        self, conn: Connection, before: Progress, after: Progress, counts: Counts, *, reached: bool, waits: str | None
    ) -> bool:
        """Write a position within `conn`'s transaction, before the events; False: another process has moved it.

        Args:
            reached: whether everything that was visible has been read.
            waits: why reading pauses, if it does.
        """
        values = {
            "source": self._source,
            "version": before.version,
            "last_id": after.last_id,
            "last_row": after.last_row,
            "last_time": after.last_time,
            "skip_before": after.skip_before,
            "skip_until": after.skip_until,
            "marks": Jsonb([list(mark) for mark in after.marks]),
            "newest_id": after.newest_id,
            "reached": reached,
            "rows": counts.rows,
            "events": counts.events,
            "undecoded": counts.undecoded,
            "refused": counts.refused,
            "waits_for": waits,
        }
        self._known = None  # until the commit is certain
        if not conn.execute(_ADVANCE, values).rowcount:
            return False
        if before.gaps != after.gaps:
            old, new = set(before.gaps), set(after.gaps)
            if gone := [low for low, _, _ in old - new]:
                conn.execute(_DROP_GAPS, [self._source, gone])
            if added := sorted(new - old):
                conn.execute(_ADD_GAPS, [self._source, *(list(column) for column in zip(*added, strict=True))])
        return True

    def committed(self, before: Progress, after: Progress) -> None:
        """Remember what `advance` wrote; call it after the commit."""
        self._known = _Known(before.version + 1, after.gaps)

    def fail(self, error: str) -> None:
        """Record why a look failed."""
        self._db.run(_FAIL, {"source": self._source, "error": error})

    def wait(self, why: str) -> None:
        """Record why reading pauses."""
        self._db.run(_WAIT, [why, self._source])

    def waiting_tasks(self) -> int:
        """Tasks in the ledger."""
        row = self._db.one(_WAITING)
        return int(row["n"]) if row else 0


def reset(conn: Connection, source_id: int, start: str) -> None:
    """Begin again at `start` within `conn`'s transaction; a poller that is reading writes nothing any more."""
    with conn.cursor(row_factory=dict_row) as cur:
        cur.execute(_RESET, {"source": source_id, "start": start})
        cur.execute(_FORGET_GAPS, [source_id])


def status(db: Database, name: str | None = None) -> list[Row]:
    """State, lag and counts of every source, or of one; `lag_seconds` is since all visible rows had been read."""
    return db.all(_STATUS, {"name": name})


def parts(rows: Iterable[Row]) -> dict[str, Row]:
    """Rows of `status` by name."""
    return {row["name"]: row for row in rows}
