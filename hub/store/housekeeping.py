"""Deletes old and expired rows in batches.

The ids of log rows follow their age, so a purge reads the primary key upwards and stops at the first young rows. No
statement scans a table, or holds locks for longer than its batch takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from typing import Any, LiteralString

from hub.store.database import Database, Row
from hub.store.locks import TRY_LOCK, release

BATCH = 1000
_LOCK = 0x48554B45
_YOUNG_BATCHES = 5  # young rows may lie among old ones: transactions commit out of order

# The array prevents a join, which the planner may do by a scan.
_PURGE: LiteralString = """
WITH batch AS (
    SELECT id, {time} < %(cutoff)s AS old
    FROM {table} WHERE id > %(after)s ORDER BY id LIMIT %(limit)s
), gone AS (
    DELETE FROM {table} WHERE id = ANY(ARRAY(SELECT id FROM batch WHERE old)) AND {time} < %(cutoff)s RETURNING 1
)
SELECT max(id) AS last, count(*) AS seen, count(*) FILTER (WHERE old) AS old, (SELECT count(*) FROM gone) AS gone
FROM batch
"""
# The origin of a task goes with its event: until then it keeps a backfill from sending the event twice.
_ORIGIN_NEEDED: LiteralString = """
        AND NOT EXISTS (SELECT FROM events e WHERE e.id = event_id)
        AND NOT EXISTS (SELECT FROM tasks t WHERE t.id = task_id)
        AND NOT EXISTS (SELECT FROM dead_letters d WHERE d.task_id = task_origins.task_id) AS old
"""
_BY_ID: dict[str, LiteralString] = {
    "deliveries": _PURGE.format(table="deliveries", time="created_at"),
    "task_runs": _PURGE.format(table="task_runs", time="started_at"),
    "audit_log": _PURGE.format(table="audit_log", time="at"),
    "cancellations": _PURGE.format(table="cancellations", time="created_at"),
    "task_origins": _PURGE.format(table="task_origins", time="created_at").replace(" AS old\n", _ORIGIN_NEEDED),
    "backfills": _PURGE.format(table="backfills", time="coalesce(ended_at, 'infinity')"),
}
# Events of tasks stay. Rows are locked before tasks are looked for: whoever makes a task of an old event locks it, too.
# A scalar subquery stays a look-up by event.
_OLD_EVENTS = """
WITH batch AS (SELECT id, created_at < %(cutoff)s AS old FROM events WHERE id > %(after)s ORDER BY id LIMIT %(limit)s)
SELECT max(id) AS last, count(*) AS seen, coalesce(array_agg(id) FILTER (WHERE old), '{}') AS old FROM batch
"""
_LOCK_EVENTS = "SELECT id FROM events WHERE id = ANY(%s) ORDER BY id FOR UPDATE SKIP LOCKED"
_PURGE_EVENTS = """
DELETE FROM events e WHERE id = ANY(%s) AND (SELECT true FROM tasks t WHERE t.event_id = e.id LIMIT 1) IS NULL
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
    # Other workers have recovered the tasks of a worker whose lease ended long ago.
    "workers": "DELETE FROM workers w WHERE lease_until < now() - interval '1 hour'"
    " AND NOT EXISTS (SELECT FROM tasks t WHERE t.state = 'running' AND t.worker = w.id)",
}
_LOST = """
UPDATE task_runs SET ended_at = clock_timestamp(), result = 'lost', error = 'the process ended before the run did'
WHERE id > (SELECT coalesce(max(id), 0) - 20000 FROM task_runs) AND ended_at IS NULL
  AND started_at < now() - interval '2 hours'
"""


class Housekeeping:
    """Deletes old rows in bounded steps."""

    def __init__(self, db: Database) -> None:
        self._db = db

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Whether this process may delete rows; False: another process does."""
        conn = self._db.connect()
        try:
            row = conn.execute(TRY_LOCK, [_LOCK]).fetchone()
            yield bool(row and row[0])
        finally:
            release(conn)

    def lose_runs(self) -> int:
        """Record runs without an end that began over two hours ago as lost."""
        return self._db.run(_LOST)

    def purge(
        self,
        cutoff: datetime,
        go_on: Callable[[], bool],
        *,
        events: datetime | None = None,
        audit: datetime | None = None,
    ) -> dict[str, int]:
        """Delete rows that are older than `cutoff` or have expired. Stops when `go_on` returns False before a batch.

        Args:
            events: the cutoff of events; None: `cutoff`.
            audit: the cutoff of the audit trail; None: nothing is deleted from it.

        Returns:
            The number of deleted rows by table, without zeros. Events that a task needs stay, whatever their age.
            Dead letters stay, too.
        """
        gone: dict[str, int] = {}
        for table, sql in _EXPIRED.items():
            count = self._expired(sql, {"cutoff": cutoff, "limit": BATCH}, go_on)
            gone |= {table: count} if count else {}
        for table, sql in _BY_ID.items():
            until = audit if table == "audit_log" else cutoff
            if until is None:
                continue
            count = self._by_id(partial(self._rows, sql, until), go_on)
            gone |= {table: count} if count else {}
        count = self._by_id(partial(self._events, events or cutoff), go_on)
        return gone | ({"events": count} if count else {})

    def _rows(self, sql: LiteralString, cutoff: datetime, after: int) -> Row:
        """Delete the old ones of a batch: `last` id, how many were `seen`, `old` and are `gone`."""
        row = self._db.one(sql, {"cutoff": cutoff, "limit": BATCH, "after": after})
        assert row is not None
        return row

    def _events(self, cutoff: datetime, after: int) -> Row:
        """As `_rows`, of events."""
        row = self._rows(_OLD_EVENTS, cutoff, after)
        old = row["old"]
        count = 0
        if old:
            with self._db.transaction() as conn:
                ids = [found[0] for found in conn.execute(_LOCK_EVENTS, [old]).fetchall()]
                count = conn.execute(_PURGE_EVENTS, [ids]).rowcount
        return row | {"old": len(old), "gone": count}

    def _expired(self, sql: LiteralString, params: dict[str, Any], go_on: Callable[[], bool]) -> int:
        total = 0
        while go_on():
            count = self._db.run(sql, params)
            total += count
            if count < BATCH:
                break
        return total

    def _by_id(self, batch: Callable[[int], Row], go_on: Callable[[], bool]) -> int:
        total, after, young = 0, 0, 0
        while go_on() and young < _YOUNG_BATCHES:
            row = batch(after)
            total += row["gone"]
            young = 0 if row["old"] else young + 1
            if row["seen"] < BATCH:
                break
            after = row["last"]
        return total
