"""Replays and deletes dead letters, each in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from hub.errors import NotFoundError
from hub.store.audit import actor, record_batch
from hub.store.database import Database

_MANY = 100  # dead letters chosen by id; more of them are a bulk replay
_WHERE = """
    (%(ids)s::bigint[] IS NULL OR d.id = ANY(%(ids)s))
    AND (%(service)s::bigint IS NULL OR d.service_id = %(service)s)
    AND (%(since)s::timestamptz IS NULL OR d.created_at >= %(since)s)
    AND (%(until)s::timestamptz IS NULL OR d.created_at < %(until)s)
    AND (%(reason)s::text IS NULL OR d.reason = %(reason)s)
    AND (%(event)s::text IS NULL OR d.event = %(event)s)
    AND (%(beginning)s::text IS NULL OR starts_with(d.event, %(beginning)s))
    AND (%(up_to)s::bigint IS NULL OR d.id <= %(up_to)s)
"""
# The event may have been purged: it is restored. If it exists, the update locks it against the purge, which deletes no
# event of a task. A payload or endpoint that a person gave for the dead task is kept.
_REQUEUE = f"""
WITH chosen AS (
    SELECT d.id
    FROM dead_letters d
    JOIN rules r ON r.id = d.rule_id AND r.deleted_at IS NULL
    JOIN services s ON s.id = d.service_id AND s.deleted_at IS NULL
    WHERE {_WHERE}
    ORDER BY d.id LIMIT %(limit)s FOR UPDATE OF d SKIP LOCKED
), raised AS (
    DELETE FROM dead_letters d USING chosen c WHERE d.id = c.id RETURNING d.*
), restored AS (
    INSERT INTO events AS e (id, uid, name, data, depth, created_at)
    SELECT DISTINCT ON (event_id) event_id, event_uid, event, event_data, event_depth, accepted_at FROM raised
    ON CONFLICT (id) DO UPDATE SET depth = e.depth
), again AS MATERIALIZED (
    SELECT nextval('tasks_id_seq') AS new_id,
           CASE WHEN r.ordering_key IS NULL THEN NULL WHEN %(before)s THEN r.position
                ELSE nextval('events_id_seq') END AS new_position,
           r.*, o.payload AS own_payload, o.endpoint AS own_endpoint
    FROM (SELECT * FROM raised ORDER BY position, id) r LEFT JOIN task_origins o ON o.task_id = r.task_id
), made AS (
    INSERT INTO tasks (id, event_id, rule_id, service_id, state, bulk, edited, ordering_key, position,
        expires_at)
    SELECT new_id, event_id, rule_id, service_id, CASE WHEN ordering_key IS NULL THEN 'pending' ELSE 'blocked' END,
           %(bulk)s,
           own_payload IS NOT NULL OR own_endpoint IS NOT NULL, ordering_key, new_position,
           now() + make_interval(secs => %(max_age)s)
    FROM again RETURNING id, service_id
), noted AS (
    INSERT INTO task_origins (task_id, kind, event_id, rule_id, dead_letter_id, payload, endpoint, actor, actor_kind)
    SELECT new_id, 'replay', event_id, rule_id, id, own_payload, own_endpoint, %(actor)s, %(actor_kind)s FROM again
)
SELECT m.id, s.name, CASE row_number() OVER (ORDER BY m.id) WHEN 1 THEN (SELECT array_agg(id) FROM chosen) END
FROM made m JOIN services s ON s.id = m.service_id ORDER BY m.id
"""  # noqa: S608 - constants
_COUNT = f"""
SELECT count(*) AS n, count(*) FILTER (
    WHERE r.id IS NULL OR s.id IS NULL OR r.deleted_at IS NOT NULL OR s.deleted_at IS NOT NULL
) AS orphans
FROM dead_letters d LEFT JOIN rules r ON r.id = d.rule_id LEFT JOIN services s ON s.id = d.service_id WHERE {_WHERE}
"""  # noqa: S608
_SERVICE = "SELECT id FROM services WHERE name = %s ORDER BY deleted_at NULLS FIRST"
_NEWEST = "SELECT coalesce(max(id), 0) AS id FROM dead_letters"
_PRESENT = "SELECT id FROM dead_letters WHERE id = ANY(%s)"
_DELETE = """
WITH gone AS (
    DELETE FROM dead_letters WHERE id = ANY(%s) RETURNING id, task_id, event_id, rule_id, service_id, event
)
INSERT INTO cancellations (dead_letter_id, task_id, event_id, rule_id, service_id, event, reason, who)
SELECT id, task_id, event_id, rule_id, service_id, event, 'dead letter deleted', %s FROM gone RETURNING dead_letter_id
"""


@dataclass(frozen=True, slots=True)
class Chosen:
    """Selects dead letters. None: any.

    Attributes:
        event: a name, or its beginning and `*`.
        until: exclusive.
        up_to: an id, inclusive.
    """

    ids: tuple[int, ...] | None = None
    service: str | None = None
    event: str | None = None
    reason: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    up_to: int | None = None


class DeadLetterStore:
    """Writes the table of dead letters."""

    def __init__(self, db: Database, *, max_age: float) -> None:
        self._db = db
        self._max_age = max_age

    def _params(self, chosen: Chosen) -> dict[str, Any]:
        service_id = None
        if chosen.service is not None:
            row = self._db.one(_SERVICE, [chosen.service])
            if row is None:
                raise NotFoundError(f"no service named {chosen.service!r}")
            service_id = row["id"]
        event = chosen.event or None
        whole = event is not None and not event.endswith("*")
        return {
            "ids": list(chosen.ids) if chosen.ids is not None else None,
            "service": service_id,
            "since": chosen.since,
            "until": chosen.until,
            "reason": chosen.reason,
            "up_to": chosen.up_to,
            "event": event if whole else None,
            "beginning": event[:-1] if event is not None and not whole else None,
        }

    def newest(self) -> int:
        """The highest id; 0 when there are none."""
        row = self._db.one(_NEWEST)
        return int(row["id"]) if row else 0

    def missing(self, ids: Sequence[int]) -> list[int]:
        """Those of `ids` that are not dead letters."""
        rows = self._db.all(_PRESENT, [list(ids)])
        return sorted(set(ids) - {row["id"] for row in rows})

    def count(self, chosen: Chosen) -> tuple[int, int]:
        """The number of matches, and of those whose rule or service was deleted."""
        row = self._db.one(_COUNT, self._params(chosen))
        assert row is not None
        return int(row["n"]), int(row["orphans"])

    def requeue(self, chosen: Chosen, *, limit: int, before: bool = False) -> tuple[list[tuple[int, str]], int]:
        """Turn dead letters into tasks with no attempts.

        All that match, and many chosen by id, wait in the bulk lane behind live tasks.

        Args:
            before: they take their place in front of the tasks of their ordering keys; False: behind them.

        Returns:
            (task id, service name) of each task, and the number of matches whose rule or service was deleted.
        """
        who = actor()
        params = self._params(chosen) | {
            "limit": limit,
            "before": before,
            "max_age": self._max_age,
            "bulk": chosen.ids is None or len(chosen.ids) > _MANY,
            "actor": who.name,
            "actor_kind": who.kind,
        }
        with self._db.transaction() as conn:
            rows = conn.execute(_REQUEUE.encode(), params).fetchall()
            made = [(row[0], row[1]) for row in rows]
            replayed = rows[0][2] if rows else []
            record_batch(conn, "dead_letter.replay", "dead_letter", replayed, tasks=[task_id for task_id, _ in made])
            orphans = 0
            if not made:
                row = conn.execute(_COUNT.encode(), params).fetchone()
                orphans = row[1] if row else 0
        return made, orphans

    def delete(self, ids: Sequence[int], *, who: str) -> int:
        """Delete dead letters. Returns how many existed."""
        with self._db.transaction() as conn:
            gone = [row[0] for row in conn.execute(_DELETE, [list(ids), who]).fetchall()]
            record_batch(conn, "dead_letter.delete", "dead_letter", gone)
        return len(gone)
