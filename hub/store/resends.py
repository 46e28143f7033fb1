"""Resends in PostgreSQL: a new task of the event and rule of a delivery, with its origin, in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, LiteralString

from psycopg.rows import class_row

from hub.errors import NotFoundError
from hub.store.audit import actor, record, record_batch
from hub.store.database import Connection, Database
from hub.store.ordering import assign_keys

Problem = Literal["no_task", "rule_deleted", "event_gone", "erased", "live"]

# Only attempts of tasks: inbound messages and requests of `hub.request()` have no rule. The latest attempt of a task.
_CANDIDATES = """
SELECT d.id AS delivery_id, d.task_id, d.event_id, d.rule_id,
       CASE WHEN d.direction <> 'outbound' OR d.task_id IS NULL OR d.event_id IS NULL OR d.rule_id IS NULL
                 THEN 'no_task'
            WHEN r.id IS NULL OR s.id IS NULL THEN 'rule_deleted'
            WHEN e.id IS NULL THEN 'event_gone'
            WHEN e.erased_at IS NOT NULL THEN 'erased'
            WHEN EXISTS (SELECT FROM tasks t WHERE t.id = d.task_id) THEN 'live' END AS problem
FROM deliveries d
LEFT JOIN rules r ON r.id = d.rule_id AND r.deleted_at IS NULL
LEFT JOIN services s ON s.id = r.service_id AND s.deleted_at IS NULL
LEFT JOIN events e ON e.id = d.event_id
"""
_OF_IDS = _CANDIDATES + "WHERE d.id = ANY(%(ids)s) ORDER BY d.id"
_MATCHING = (
    _CANDIDATES
    + """
WHERE d.id > %(after)s AND d.id <= %(up_to)s AND d.direction = 'outbound' AND d.task_id IS NOT NULL
  AND (%(services)s::bigint[] IS NULL OR d.service_id = ANY(%(services)s))
  AND (%(failed)s::boolean IS NULL OR d.success <> %(failed)s)
  AND (%(status)s::integer IS NULL OR d.status = %(status)s)
  AND (%(since)s::timestamptz IS NULL OR d.created_at >= %(since)s)
  AND (%(until)s::timestamptz IS NULL OR d.created_at < %(until)s)
  AND (%(event)s::text IS NULL OR d.event = %(event)s)
  AND (%(beginning)s::text IS NULL OR starts_with(d.event, %(beginning)s))
ORDER BY d.id LIMIT %(limit)s
"""
)
# The events are locked: one that is being erased is either sent before, or not at all.
_MAKE = """
WITH given AS (
    SELECT * FROM unnest(%(events)s::bigint[], %(rules)s::bigint[], %(deliveries)s::bigint[])
        WITH ORDINALITY AS g(event_id, rule_id, delivery_id, ord)
), kept AS MATERIALIZED (
    SELECT e.id FROM events e WHERE e.id = ANY(%(events)s) AND e.erased_at IS NULL FOR SHARE
), fit AS MATERIALIZED (
    SELECT nextval('tasks_id_seq') AS task_id, f.* FROM (
        SELECT g.event_id, g.rule_id, g.delivery_id, s.id AS service_id, s.name AS service
        FROM given g JOIN kept ON kept.id = g.event_id JOIN rules r ON r.id = g.rule_id AND r.deleted_at IS NULL
        JOIN services s ON s.id = r.service_id AND s.deleted_at IS NULL ORDER BY g.ord
    ) f
), made AS (
    INSERT INTO tasks (id, event_id, rule_id, service_id, state, bulk, edited, expires_at)
    SELECT task_id, event_id, rule_id, service_id, 'pending', %(bulk)s,
           %(payload)s::text IS NOT NULL OR %(endpoint)s::text IS NOT NULL, now() + make_interval(secs => %(max_age)s)
    FROM fit
), noted AS (
    INSERT INTO task_origins (task_id, kind, event_id, rule_id, delivery_id, payload, endpoint, actor, actor_kind)
    SELECT task_id, 'resend', event_id, rule_id, delivery_id, %(payload)s, %(endpoint)s, %(actor)s, %(actor_kind)s
    FROM fit
)
SELECT task_id, delivery_id, service FROM fit ORDER BY task_id
"""
_EVENT = "SELECT id, uid, name, data, erased_at IS NOT NULL AS erased FROM events WHERE id = %s"
_NEWEST = "SELECT coalesce(max(id), 0) AS id FROM deliveries"
_SERVICES = "SELECT id FROM services WHERE name = %s"


@dataclass(frozen=True, slots=True)
class Edit:
    """What one resend sends in place of what its rule makes of the event; None: what the rule makes."""

    payload: str | None = None
    endpoint: str | None = None

    @property
    def fields(self) -> list[str]:
        """Names of what is replaced."""
        return [name for name in ("payload", "endpoint") if getattr(self, name) is not None]


@dataclass(frozen=True, slots=True)
class Matching:
    """Which deliveries; None matches all.

    `event`: a name, or its beginning and `*`. `failed`: True only failures, False only successes. `until` is exclusive;
    `up_to`, an id, is inclusive.
    """

    service: str | None = None
    event: str | None = None
    failed: bool | None = None
    status: int | None = None
    since: datetime | None = None
    until: datetime | None = None
    up_to: int | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A delivery and why it cannot be sent again; None: it can be."""

    delivery_id: int
    task_id: int | None
    event_id: int | None
    rule_id: int | None
    problem: Problem | None


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event that can be sent again: `data` is JSON text, blank when it was `erased`."""

    id: int
    uid: str
    name: str
    data: str
    erased: bool


@dataclass(frozen=True, slots=True)
class Made:
    """A new task: of a delivery, or of an event (no delivery)."""

    task_id: int
    delivery_id: int | None
    service: str


class ResendStore:
    """Makes tasks of what was sent before."""

    def __init__(self, db: Database, *, max_age: float) -> None:
        self._db = db
        self._max_age = max_age

    def newest(self) -> int:
        """The highest id of a delivery; 0 when there are none."""
        row = self._db.one(_NEWEST)
        return int(row["id"]) if row else 0

    def of_ids(self, ids: Sequence[int]) -> list[Candidate]:
        """These deliveries, by id; those that do not exist are left out."""
        return self._candidates(_OF_IDS, {"ids": list(ids)})

    def matching(self, wanted: Matching, *, after: int, limit: int) -> list[Candidate]:
        """Attempts of tasks that match, with ids above `after`, the oldest first."""
        services = None
        if wanted.service is not None:
            services = [row["id"] for row in self._db.all(_SERVICES, [wanted.service])]
            if not services:
                raise NotFoundError(f"no service named {wanted.service!r}")
        event = wanted.event or None
        prefix = event is not None and event.endswith("*")
        params = {
            "after": after,
            "up_to": self.newest() if wanted.up_to is None else wanted.up_to,
            "services": services,
            "failed": wanted.failed,
            "status": wanted.status,
            "since": wanted.since,
            "until": wanted.until,
            "event": None if prefix else event,
            "beginning": event[:-1] if event is not None and prefix else None,
            "limit": limit,
        }
        return self._candidates(_MATCHING, params)

    def _candidates(self, sql: LiteralString, params: dict[str, Any]) -> list[Candidate]:
        with self._db.autocommit() as conn, conn.cursor(row_factory=class_row(Candidate)) as cur:
            return cur.execute(sql, params).fetchall()

    def event(self, number: int) -> StoredEvent:
        """A stored event; raises `NotFoundError` when it is no longer stored."""
        row = self._db.one(_EVENT, [number])
        if row is None:
            raise NotFoundError(f"event {number} is no longer stored")
        return StoredEvent(**row)

    def resend(self, chosen: Sequence[Candidate], edit: Edit, *, bulk: bool) -> list[Made]:
        """Make a task for each delivery that can be sent again; the audit trail says who did it.

        Args:
            bulk: the tasks wait in the bulk lane behind live ones.
        """
        fit = [c for c in chosen if c.problem is None]
        with self._db.transaction() as conn:
            made = self._make(
                conn,
                events=[c.event_id for c in fit],
                rules=[c.rule_id for c in fit],
                deliveries=[c.delivery_id for c in fit],
                edit=edit,
                bulk=bulk,
            )
            ids = [m.delivery_id for m in made if m.delivery_id is not None]
            record_batch(conn, "delivery.resend", "delivery", ids, **_after(made, edit))
        return made

    def resend_event(self, event: StoredEvent, rules: Sequence[tuple[int, str]], edit: Edit) -> list[Made]:
        """Make a task of the event for each rule (id, name); the audit trail says who did it."""
        with self._db.transaction() as conn:
            made = self._make(
                conn,
                events=[event.id] * len(rules),
                rules=[rule_id for rule_id, _ in rules],
                deliveries=[None] * len(rules),
                edit=edit,
                bulk=False,
            )
            if made:
                after = {"rules": [name for _, name in rules], **_after(made, edit)}
                record(conn, "event.resend", "event", id=event.id, name=event.uid, after=after)
        return made

    def _make(
        self,
        conn: Connection,
        *,
        events: list[int | None],
        rules: list[int | None],
        deliveries: Sequence[int | None],
        edit: Edit,
        bulk: bool,
    ) -> list[Made]:
        who = actor()
        params = {
            "events": events,
            "rules": rules,
            "deliveries": list(deliveries),
            "payload": edit.payload,
            "endpoint": edit.endpoint,
            "bulk": bulk,
            "max_age": self._max_age,
            "actor": who.name,
            "actor_kind": who.kind,
        }
        with conn.cursor(row_factory=class_row(Made)) as cur:
            made = cur.execute(_MAKE, params).fetchall()
        assign_keys(conn, [m.task_id for m in made], behind=True)
        return made


def _after(made: Sequence[Made], edit: Edit) -> dict[str, Any]:
    """What the audit trail keeps: never the payload itself, which `task_origins` has."""
    after: dict[str, Any] = {"tasks": [m.task_id for m in made]}
    return after | ({"edited": edit.fields} if edit.fields else {})
