"""Deletes what is old, a batch at a time: every statement touches at most a batch of rows, found by an index.

Rows of a log have ids in the order of their age, so a purge walks up the primary key and stops where the
young ones begin. No statement scans a table or holds a lock for longer than its batch takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, LiteralString

from hub.store.database import Database
from hub.store.locks import release

BATCH = 1000
_LOCK = 0x48554B45
_MOST_OLD_TASKS = 20_000
_YOUNG_BATCHES = 5  # a replay gives an old event a new age, so young rows may lie among old ones


# The array keeps the planner from a join, which it may do by a scan.
_PURGE: LiteralString = """
WITH batch AS (
    SELECT id, {time} < %(cutoff)s AND id <> ALL(%(needed)s::bigint[]) AS old
    FROM {table} WHERE id > %(after)s ORDER BY id LIMIT %(limit)s
), gone AS (
    DELETE FROM {table} WHERE id = ANY(ARRAY(SELECT id FROM batch WHERE old)) AND {time} < %(cutoff)s RETURNING 1
)
SELECT max(id) AS last, count(*) AS seen, (SELECT count(*) FROM gone) AS gone FROM batch
"""
_BY_ID: dict[str, LiteralString] = {
    "deliveries": _PURGE.format(table="deliveries", time="created_at"),
    "events": _PURGE.format(table="events", time="created_at"),
    "task_runs": _PURGE.format(table="task_runs", time="started_at"),
    "audit_log": _PURGE.format(table="audit_log", time="at"),
    "cancellations": _PURGE.format(table="cancellations", time="created_at"),
}
# Tasks that are older than the events to go, and the events they still need.
_NEEDED = """
SELECT event_id FROM tasks
WHERE id < coalesce((SELECT id FROM tasks WHERE created_at >= %(cutoff)s ORDER BY id LIMIT 1), 9223372036854775807)
ORDER BY id LIMIT %(limit)s
"""
_EXPIRED: dict[str, LiteralString] = {
    "event_keys": "DELETE FROM event_keys WHERE key = ANY(ARRAY(SELECT key FROM event_keys WHERE expires_at < now()"
    " ORDER BY expires_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED)) AND expires_at < now()",
    "sessions": "DELETE FROM sessions WHERE hash = ANY(ARRAY(SELECT hash FROM sessions WHERE expires_at < now()"
    " LIMIT %(limit)s))",
    "login_links": "DELETE FROM login_links WHERE hash = ANY(ARRAY(SELECT hash FROM login_links"
    " WHERE expires_at < now() LIMIT %(limit)s))",
    "ticks": "DELETE FROM ticks WHERE minute = ANY(ARRAY(SELECT minute FROM ticks"
    " WHERE minute < now() - interval '7 days' ORDER BY minute LIMIT %(limit)s))",
    "event_names": "DELETE FROM event_names WHERE name = ANY(ARRAY(SELECT name FROM event_names"
    " WHERE last_seen < %(cutoff)s LIMIT %(limit)s))",
    "heartbeats": "DELETE FROM heartbeats WHERE at < now() - interval '1 day'",
    # A worker whose lease has ended has lost its tasks to others by then; its name is of no use any more.
    "workers": "DELETE FROM workers w WHERE lease_until < now() - interval '1 hour'"
    " AND NOT EXISTS (SELECT FROM tasks t WHERE t.state = 'running' AND t.worker = w.id)",
}
_LOST = """
UPDATE task_runs SET ended_at = clock_timestamp(), result = 'lost', error = 'the process ended before the run did'
WHERE id > (SELECT coalesce(max(id), 0) - 20000 FROM task_runs) AND ended_at IS NULL
  AND started_at < now() - interval '2 hours'
"""


class Housekeeping:
    """What there is to clean, as bounded steps."""

    def __init__(self, db: Database) -> None:
        self._db = db

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Whether this process may clean; another one that does makes it False."""
        conn = self._db.connect()
        try:
            row = conn.execute("SELECT pg_try_advisory_lock(%s)", [_LOCK]).fetchone()
            yield bool(row and row[0])
        finally:
            release(conn)

    def lose_runs(self) -> int:
        """Close the log of runs whose process ended long ago."""
        return self._db.run(_LOST)

    def purge(
        self,
        cutoff: datetime,
        go_on: Callable[[], bool],
        *,
        events: datetime | None = None,
        audit: datetime | None = None,
    ) -> dict[str, int]:
        """Delete what is older than `cutoff` or has expired; asks `go_on` before every batch.

        Args:
            events: the cutoff of events; None: `cutoff`.
            audit: the cutoff of the audit trail; None: it is left alone.

        Returns:
            how many rows went, by table; tables of which nothing went are left out. Events that a task
            still needs stay, whatever their age, and so does every dead letter.
        """
        gone: dict[str, int] = {}
        for table, sql in _EXPIRED.items():
            count = self._expired(sql, {"cutoff": cutoff, "limit": BATCH}, go_on)
            gone |= {table: count} if count else {}
        for table, sql in _BY_ID.items():
            until = {"events": events or cutoff, "audit_log": audit}.get(table, cutoff)
            if until is None:
                continue
            needed = self._needed(until) if table == "events" else []
            if needed is None:
                continue
            count = self._by_id(sql, {"cutoff": until, "limit": BATCH, "needed": needed}, go_on)
            gone |= {table: count} if count else {}
        return gone

    def _needed(self, cutoff: datetime) -> list[int] | None:
        """Events that old tasks need; None when those are too many to tell: then events wait."""
        rows = self._db.all(_NEEDED, {"cutoff": cutoff, "limit": _MOST_OLD_TASKS + 1})
        return None if len(rows) > _MOST_OLD_TASKS else sorted({row["event_id"] for row in rows})

    def _expired(self, sql: LiteralString, params: dict[str, Any], go_on: Callable[[], bool]) -> int:
        total = 0
        while go_on():
            count = self._db.run(sql, params)
            total += count
            if count < BATCH:
                break
        return total

    def _by_id(self, sql: LiteralString, params: dict[str, Any], go_on: Callable[[], bool]) -> int:
        total, after, young = 0, 0, 0
        while go_on() and young < _YOUNG_BATCHES:
            row = self._db.one(sql, {**params, "after": after})
            assert row is not None
            total += row["gone"]
            young = 0 if row["gone"] else young + 1
            if row["seen"] < BATCH:
                break
            after = row["last"]
        return total
