"""Writes accepted events and their tasks: one statement, so one transaction, for one event or a thousand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hub.store.database import Connection, Database

CONTENT_WINDOW = 60.0  # seconds in which equal content counts as the same event
KEY_WINDOW = 86400.0  # seconds in which a sender's id is accepted once

# Keys are inserted in their own order, so that two bulk writers cannot lock each other out.
_WRITE = """
WITH given AS (
    SELECT * FROM unnest(%(keys)s::bytea[], %(windows)s::float8[], %(uids)s::text[], %(names)s::text[],
                         %(datas)s::text[], %(depths)s::smallint[])
        WITH ORDINALITY AS g(key, secs, uid, name, data, depth, ord)
), fresh AS (
    INSERT INTO event_keys AS k (key, uid, expires_at)
    SELECT key, uid, now() + make_interval(secs => secs) FROM given ORDER BY key
    ON CONFLICT (key) DO UPDATE SET uid = excluded.uid, expires_at = excluded.expires_at WHERE k.expires_at < now()
    RETURNING key
), numbered AS MATERIALIZED (
    SELECT nextval('events_id_seq') AS id, g.* FROM given g JOIN fresh USING (key) ORDER BY g.ord
), stored AS (
    INSERT INTO events (id, uid, name, data, depth) SELECT id, uid, name, data, depth FROM numbered
), made AS (
    INSERT INTO tasks (event_id, rule_id, service_id, state, handed_at, expires_at)
    SELECT n.id, t.rule_id, t.service_id, t.state, CASE WHEN t.state = 'queued' THEN now() END,
           now() + make_interval(secs => %(max_age)s)
    FROM unnest(%(t_ord)s::bigint[], %(t_rule)s::bigint[], %(t_service)s::bigint[], %(t_state)s::text[])
        WITH ORDINALITY AS t(ord, rule_id, service_id, state, pos)
    JOIN numbered n ON n.ord = t.ord ORDER BY t.pos
    RETURNING id, event_id, service_id, state
)
SELECT n.ord, m.id, m.service_id, m.state FROM numbered n LEFT JOIN made m ON m.event_id = n.id ORDER BY n.ord, m.id
"""

_ONCE = """
INSERT INTO event_keys AS k (key, uid, expires_at)
VALUES (%(key)s, %(uid)s, now() + make_interval(secs => %(secs)s))
ON CONFLICT (key) DO UPDATE SET uid = excluded.uid, expires_at = excluded.expires_at WHERE k.expires_at < now()
RETURNING uid
"""
_SEEN = """
INSERT INTO event_names (name, sample) SELECT * FROM unnest(%s::text[], %s::text[])
ON CONFLICT (name) DO UPDATE SET last_seen = now(), sample = excluded.sample
"""


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event ready to be written: `key` is what it is deduplicated on, `tasks` (rule, service, state)."""

    key: bytes
    window: float
    uid: str
    name: str
    data: str
    depth: int
    tasks: Sequence[tuple[int, int, str]]


@dataclass(slots=True)
class Written:
    """What was written for one event; `uid` is the first one's if it was a duplicate."""

    uid: str
    duplicate: bool = True
    tasks: list[int] = field(default_factory=list)
    queued: list[tuple[int, int]] = field(default_factory=list)  # (service id, task id) to hand over


class Intake:
    """The observer's hands in the database."""

    def __init__(self, db: Database, *, max_age: float) -> None:
        self._db = db
        self._max_age = max_age

    def write(self, events: list[NewEvent], conn: Connection | None = None) -> list[Written]:
        """Write all of them or none; within `conn`'s transaction if given.

        Keys must be distinct within one call. Two processes that write the same key at once: the
        second waits for the first to commit and then sees a duplicate.
        """
        if conn is not None:
            return self._write(events, conn)
        with self._db.autocommit() as own:
            return self._write(events, own)

    def _write(self, events: list[NewEvent], conn: Connection) -> list[Written]:
        tasks = [(ord_, *task) for ord_, event in enumerate(events, 1) for task in event.tasks]
        params: dict[str, Any] = {
            "keys": [e.key for e in events],
            "windows": [e.window for e in events],
            "uids": [e.uid for e in events],
            "names": [e.name for e in events],
            "datas": [e.data for e in events],
            "depths": [e.depth for e in events],
            "max_age": self._max_age,
            "t_ord": [t[0] for t in tasks],
            "t_rule": [t[1] for t in tasks],
            "t_service": [t[2] for t in tasks],
            "t_state": [t[3] for t in tasks],
        }
        written = [Written(e.uid) for e in events]
        for ord_, task_id, service_id, state in conn.execute(_WRITE, params).fetchall():
            entry = written[ord_ - 1]
            entry.duplicate = False
            if task_id is not None:
                entry.tasks.append(task_id)
                if state == "queued":
                    entry.queued.append((service_id, task_id))
        repeated = [i for i, entry in enumerate(written) if entry.duplicate]
        if repeated:
            keys = [events[i].key for i in repeated]
            first: dict[bytes, str] = dict(
                conn.execute("SELECT key, uid FROM event_keys WHERE key = ANY(%s)", [keys]).fetchall()
            )
            for i in repeated:
                written[i].uid = first.get(events[i].key, written[i].uid)
        return written

    def seen(self, samples: dict[str, str]) -> None:
        """Remember event names with their latest data, for suggestions and previews."""
        names = sorted(samples)
        self._db.run(_SEEN, [names, [samples[name] for name in names]])


def once(conn: Connection, key: bytes, uid: str) -> str:
    """Within `conn`'s transaction: `uid`, or the one that was first given for this key within 24 h."""
    row = conn.execute(_ONCE, {"key": key, "uid": uid, "secs": KEY_WINDOW}).fetchone()
    if row is None:  # the first one's transaction has been waited for
        row = conn.execute("SELECT uid FROM event_keys WHERE key = %s", [key]).fetchone()
    return str(row[0]) if row else uid
