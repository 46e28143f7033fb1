"""Notices of what happened in the hub, which become operator events.

Triggers write notices in the transaction of what they report; `add` writes those that a process finds out.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from hub.store.database import Connection, Database

BATCH = 200  # events of one step
_LOCK = 0x48554E4F

_ADD = "INSERT INTO notices (kind, subject, data) VALUES (%s, %s, %s)"
_ANY = "SELECT 1 AS x FROM notices LIMIT 1"
_TRY_LOCK = "SELECT pg_try_advisory_xact_lock(%s)"
# Of subjects whose window is over. `repeated`: the first of the notices came within the window that has ended.
_TAKE = """
WITH open AS (
    SELECT kind, subject, until FROM notice_windows
), due AS (
    SELECT n.kind, n.subject, coalesce(bool_or(n.at < o.until), false) AS repeated
    FROM (SELECT kind, subject, min(at) AS at FROM notices GROUP BY 1, 2) n LEFT JOIN open o USING (kind, subject)
    WHERE o.until IS NULL OR o.until <= now() GROUP BY 1, 2 ORDER BY 1, 2 LIMIT %(limit)s
), gone AS (
    DELETE FROM notices n USING due d WHERE n.kind = d.kind AND n.subject = d.subject
    RETURNING n.id, n.kind, n.subject, n.count, n.data, n.at
), windows AS (
    INSERT INTO notice_windows (kind, subject, until)
    SELECT kind, subject, now() + make_interval(secs => %(window)s) FROM due
    ON CONFLICT (kind, subject) DO UPDATE SET until = excluded.until
)
SELECT g.kind, g.subject, max(g.id) AS id, sum(g.count)::bigint AS count, min(g.at) AS since, max(g.at) AS until,
       (array_agg(g.data ORDER BY g.id DESC))[1] AS data, bool_or(d.repeated) AS repeated
FROM gone g JOIN due d USING (kind, subject) GROUP BY 1, 2 ORDER BY max(g.id)
"""
# Windows that nothing needs any more.
_END_WINDOWS = """
DELETE FROM notice_windows w WHERE until <= now()
  AND NOT EXISTS (SELECT FROM notices n WHERE n.kind = w.kind AND n.subject = w.subject)
"""
# Many notices of a subject that wait for the end of its window become one row.
_COMPACT = """
WITH many AS (
    SELECT kind, subject FROM notices GROUP BY 1, 2 HAVING count(*) > 100
), gone AS (
    DELETE FROM notices n USING many m WHERE n.kind = m.kind AND n.subject = m.subject RETURNING n.*
)
INSERT INTO notices (kind, subject, count, data, at)
SELECT kind, subject, sum(count), (array_agg(data ORDER BY id DESC))[1], min(at) FROM gone GROUP BY 1, 2
"""
_IN_WINDOW = "SELECT 1 AS x FROM notice_windows WHERE kind = %s AND subject = %s AND until > now()"
_NO_WORKERS = """
SELECT (SELECT max(at) FROM heartbeats WHERE component = 'worker') AS last_seen_at,
       EXISTS (SELECT FROM heartbeats WHERE component = 'worker' AND at > now() - interval '1 minute') AS alive,
       (SELECT coalesce(sum(n), 0)::bigint FROM task_counts WHERE state <> 'delayed') AS waiting
"""


@dataclass(frozen=True, slots=True)
class Notice:
    """What happened to one subject, `count` times between `since` and `until`.

    Attributes:
        data: of the last time.
        repeated: an event of this kind and subject was written at the beginning of the window that has ended.
    """

    kind: str
    subject: str
    id: int
    count: int
    since: datetime
    until: datetime
    data: dict[str, Any]
    repeated: bool


class Notices:
    """Reads and writes notices.

    Args:
        window: seconds after an event of a kind and subject in which further ones wait, to become one event.
    """

    def __init__(self, db: Database, *, window: float) -> None:
        self._db = db
        self._window = window

    def add(self, kind: str, subject: str, data: dict[str, Any], conn: Connection | None = None) -> None:
        """Write a notice, within `conn`'s transaction if given."""
        params = [kind, subject, Jsonb(data)]
        if conn is not None:
            conn.execute(_ADD, params)
        else:
            self._db.run(_ADD, params)

    def is_known(self, kind: str, subject: str) -> bool:
        """Whether an event of this kind and subject was written within the window."""
        return self._db.one(_IN_WINDOW, [kind, subject]) is not None

    def waiting(self) -> bool:
        """Whether there are notices."""
        return self._db.one(_ANY) is not None

    def take(self, conn: Connection) -> list[Notice]:
        """Remove notices that are due, at most `BATCH` subjects, in the transaction of `conn`; the oldest first.

        None are returned while another process takes some.
        """
        row = conn.execute(_TRY_LOCK, [_LOCK]).fetchone()
        if row is None or not row[0]:
            return []
        conn.execute(_COMPACT)
        with conn.cursor(row_factory=class_row(Notice)) as cur:
            found = cur.execute(_TAKE, {"limit": BATCH, "window": self._window}).fetchall()
        conn.execute(_END_WINDOWS)
        return found

    def workers(self) -> tuple[bool, datetime | None, int]:
        """Whether a worker reported within a minute, when one last did, and how many tasks wait."""
        row = self._db.one(_NO_WORKERS)
        assert row is not None
        return row["alive"], row["last_seen_at"], row["waiting"]
