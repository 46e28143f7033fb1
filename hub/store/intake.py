"""Writes accepted events and their tasks: one statement, so one transaction, for one event or a thousand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from hub.domain.events import ID_LIFETIME
from hub.store.database import Connection, Database

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

# Keys are inserted in their own order, so that two bulk writers cannot lock each other out.
# 14: `BLOCK_BITS` of hub/domain/search_keys.py.
_WRITE = """
WITH given AS (
    SELECT decode(g.key, 'hex') AS key, decode(g.old, 'hex') AS old, g.secs, g.uid, g.name, g.data, g.depth, g.ord,
           g.kept, g.matched, g.keys, g.source, g.cause
    FROM json_to_recordset(%(events)s::json)
        AS g(ord bigint, key text, old text, secs float8, uid text, name text, data text, depth smallint, kept boolean,
             matched smallint, keys bigint[], source text, cause bigint)
), fresh AS (
    INSERT INTO event_keys AS k (key, uid, expires_at)
    SELECT key, uid, now() + make_interval(secs => secs) FROM given g
    WHERE NOT EXISTS (SELECT FROM event_keys o WHERE o.key = g.old AND o.expires_at >= now()) ORDER BY key
    ON CONFLICT (key) DO UPDATE SET uid = excluded.uid, expires_at = excluded.expires_at WHERE k.expires_at < now()
    RETURNING key
), numbered AS MATERIALIZED (
    SELECT nextval('events_id_seq') AS id, g.* FROM given g JOIN fresh USING (key) ORDER BY g.ord
), stored AS (
    INSERT INTO events (id, uid, name, data, depth, source, cause_task_id, matched, search_keys)
    SELECT id, uid, name, data, depth, source, cause, matched, ARRAY(SELECT id >> 14 << 32 | k FROM unnest(keys) k)
    FROM numbered WHERE kept
), made AS (
    INSERT INTO tasks (event_id, rule_id, service_id, state, handed_at, expires_at, ordering_key, position)
    SELECT n.id, t.rule_id, t.service_id, t.state, CASE WHEN t.state = 'queued' THEN now() END,
           now() + make_interval(secs => %(max_age)s), t.key, CASE WHEN t.key IS NOT NULL THEN n.id END
    FROM json_to_recordset(%(tasks)s::json)
        AS t(pos bigint, ord bigint, rule_id bigint, service_id bigint, state text, key text)
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
# Events with lower ids may have been written without the path.
_INDEXED = """
INSERT INTO search_paths (path, since_id)
SELECT path, nextval('events_id_seq') FROM unnest(%s::text[]) AS path
WHERE path NOT IN (SELECT path FROM search_paths) ORDER BY path
ON CONFLICT DO NOTHING
"""
_FIRST = "SELECT key, uid FROM event_keys WHERE key = ANY(%s)"
_FIRST_UID = "SELECT uid FROM event_keys WHERE key = %s"
_SEEN = """
INSERT INTO event_names (name, sample) SELECT * FROM unnest(%s::text[], %s::text[])
ON CONFLICT (name) DO UPDATE SET last_seen = now(), sample = excluded.sample
"""


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event to be written.

    Attributes:
        key: what it is deduplicated on, for `lifetime` seconds.
        tasks: (rule id, service id, state, ordering key) of each.
        old_key: an event with this key is a duplicate, too.
        kept: whether the event itself is stored; one with tasks always is.
        keys: its search keys.
        source, cause_task: as in `Event`.
    """

    key: bytes
    lifetime: float
    uid: str
    name: str
    data: str
    depth: int
    tasks: Sequence[tuple[int, int, str, str | None]]
    old_key: bytes | None = None
    kept: bool = True
    keys: Sequence[int] = ()
    source: str = ""
    cause_task: int | None = None


@dataclass(slots=True)
class Written:
    """What was written for one event. `uid` is that of the first event if it was a duplicate."""

    uid: str
    duplicate: bool = True
    tasks: list[int] = field(default_factory=list)
    queued: list[tuple[int, int]] = field(default_factory=list)  # (service id, task id) to be enqueued


class IntakeStore:
    """Persistence for event intake."""

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
        given = [
            {
                "ord": ord_,
                "key": e.key.hex(),
                "old": e.old_key.hex() if e.old_key else None,
                "secs": e.lifetime,
                "uid": e.uid,
                "name": e.name,
                "data": e.data if e.kept else "",
                "depth": e.depth,
                "kept": e.kept,
                "matched": len(e.tasks),
                "keys": e.keys,
                "source": e.source or None,
                "cause": e.cause_task,
            }
            for ord_, e in enumerate(events, 1)
        ]
        tasks = [(ord_, *task) for ord_, event in enumerate(events, 1) for task in event.tasks]
        wanted = [
            {"pos": pos, "ord": ord_, "rule_id": rule_id, "service_id": service_id, "state": state, "key": key}
            for pos, (ord_, rule_id, service_id, state, key) in enumerate(tasks)
        ]
        # Two JSON texts instead of eleven arrays: adapting those took more time than everything else here.
        params = {"events": _encode(given), "tasks": _encode(wanted), "max_age": self._max_age}
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
            keys = [key for i in repeated for key in (events[i].key, events[i].old_key) if key is not None]
            first: dict[bytes, str] = dict(conn.execute(_FIRST, [keys]).fetchall())
            for i in repeated:
                old = events[i].old_key
                written[i].uid = first.get(events[i].key) or first.get(old or b"") or written[i].uid
        return written

    def index(self, paths: Sequence[str]) -> None:
        """Note that from now on events have search keys of these paths."""
        if paths:
            self._db.run(_INDEXED, [list(paths)])

    def seen(self, samples: dict[str, str]) -> None:
        """Store event names with their latest data, for suggestions and previews."""
        names = sorted(samples)
        self._db.run(_SEEN, [names, [samples[name] for name in names]])


def once(conn: Connection, key: bytes, uid: str) -> str:
    """Within `conn`'s transaction: `uid`, or the one that was first given for this key within 24 h."""
    row = conn.execute(_ONCE, {"key": key, "uid": uid, "secs": ID_LIFETIME}).fetchone()
    if row is None:  # another transaction inserted the key and has committed
        row = conn.execute(_FIRST_UID, [key]).fetchone()
    return str(row[0]) if row else uid
