"""Steps of backfills: the events of a window of ids become tasks, with the position in the same transaction.

A backfill walks the events by id. Each step locks its row, so two processes never make the same tasks; a process that
dies loses its step and nothing else; a unique index keeps an event from becoming two tasks of one rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import dict_row

from hub.store.database import Connection, Database, Row
from hub.store.ordering import assign_keys

WINDOW = 2000
"""Event ids looked at in one step: a step is short, whatever the events are."""
BATCH = 500  # tasks made in one step
WAITING = 1000
"""Tasks of the rule that may wait in the bulk lane: more are made when some of them were sent."""

CANCELLED = "backfill cancelled"
"""Reason of a cancelled task: its event may be backfilled again."""

_RUNNING = "SELECT id FROM backfills WHERE state = 'running' ORDER BY id"
# LATERAL with LIMIT: one index look-up for each event, whatever the planner expects.
_EVENTS = """
SELECT e.id, e.name, CASE WHEN %(with_data)s THEN e.data END AS data, had.x IS NOT NULL AS had_task
FROM events e LEFT JOIN LATERAL (
    SELECT 1 AS x FROM tasks t WHERE t.event_id = e.id AND t.rule_id = %(rule_id)s
    UNION ALL
    SELECT 1 FROM deliveries d WHERE d.event_id = e.id AND d.rule_id = %(rule_id)s
    UNION ALL
    SELECT 1 FROM dead_letters d WHERE d.event_id = e.id AND d.rule_id = %(rule_id)s
    UNION ALL
    SELECT 1 FROM task_origins o WHERE o.event_id = e.id AND o.rule_id = %(rule_id)s
    UNION ALL
    SELECT 1 FROM cancellations c WHERE c.event_id = e.id AND c.rule_id = %(rule_id)s AND c.reason <> %(cancelled)s
    LIMIT 1
) had ON true
WHERE e.id > %(after)s AND e.id <= %(up_to)s AND e.created_at >= %(since)s AND e.created_at < %(until)s
  AND e.erased_at IS NULL AND (%(names)s::text[] IS NULL OR e.name = ANY(%(names)s))
ORDER BY e.id
"""
_LOCK = """
SELECT b.id, b.rule_id, b.since, b.until, b.rate, b.last_id, b.position, b.actor, b.actor_kind, r.service_id,
       extract(epoch FROM clock_timestamp() - b.paced_at)::float8 AS idle,
       pg_snapshot_xmin(pg_current_snapshot()) >= b.settled_at AS settled,
       (SELECT coalesce(sum(c.n), 0)::bigint FROM task_counts c
        WHERE c.rule_id = b.rule_id AND c.state IN ('bulk', 'blocked')) AS waiting
FROM backfills b LEFT JOIN (
    SELECT r.id, r.service_id FROM rules r JOIN services s ON s.id = r.service_id AND s.deleted_at IS NULL
    WHERE r.deleted_at IS NULL
) r ON r.id = b.rule_id
WHERE b.id = %s AND b.state = 'running' FOR UPDATE OF b SKIP LOCKED
"""
_MAKE = """
WITH given AS MATERIALIZED (
    SELECT id FROM events WHERE id = ANY(%(events)s) AND erased_at IS NULL ORDER BY id FOR SHARE
), numbered AS MATERIALIZED (
    SELECT nextval('tasks_id_seq') AS task_id, id AS event_id FROM given
), noted AS (
    INSERT INTO task_origins (task_id, kind, event_id, rule_id, backfill_id, actor, actor_kind)
    SELECT task_id, 'backfill', event_id, %(rule_id)s, %(id)s, %(actor)s, %(actor_kind)s FROM numbered
    ON CONFLICT (rule_id, event_id) WHERE kind = 'backfill' DO NOTHING RETURNING task_id, event_id
), made AS (
    INSERT INTO tasks (id, event_id, rule_id, service_id, state, bulk, expires_at)
    SELECT task_id, event_id, %(rule_id)s, %(service_id)s, 'pending', true, now() + make_interval(secs => %(max_age)s)
    FROM noted RETURNING id
)
SELECT array_agg(id) FROM made
"""
# `paced_at` moves by what the tasks made are worth at the rate, and never lies more than `burst` seconds in the past.
_ADVANCE = """
UPDATE backfills SET position = %(position)s, matched = matched + %(matched)s, skipped = skipped + %(skipped)s,
    tasks = tasks + %(made)s, waits_for = NULL, updated_at = now(),
    paced_at = greatest(paced_at, clock_timestamp() - make_interval(secs => %(burst)s))
        + make_interval(secs => %(made)s / rate),
    state = CASE WHEN %(position)s >= last_id THEN 'done' ELSE state END,
    ended_at = CASE WHEN %(position)s >= last_id THEN now() END
WHERE id = %(id)s
"""
_WAIT = "UPDATE backfills SET waits_for = %(why)s WHERE id = %(id)s AND waits_for IS DISTINCT FROM %(why)s"
SET_STATE = """
UPDATE backfills SET state = %(state)s, waits_for = NULL, updated_at = now(), paced_at = now(),
    ended_at = CASE WHEN %(state)s = 'cancelled' THEN now() END
WHERE id = %(id)s
"""


@dataclass(frozen=True, slots=True)
class Scope:
    """Which events a backfill looks at.

    `names`: of events; None: all. `with_data`: whether the rule looks at the data.
    """

    rule_id: int
    since: datetime
    until: datetime
    names: Sequence[str] | None
    with_data: bool


Matcher = Callable[[Row], bool]


class BackfillSteps:
    """Reads events for backfills and makes their tasks.

    Args:
        max_age: seconds until a task expires.
    """

    def __init__(self, db: Database, *, max_age: float) -> None:
        self._db = db
        self._max_age = max_age

    def running(self) -> Sequence[int]:
        """Ids of backfills that are running."""
        return [row["id"] for row in self._db.all(_RUNNING)]

    def windows(self, scope: Scope, first_id: int, last_id: int) -> Iterator[tuple[int, list[Row]]]:
        """Events of a scope, a window of ids at a time: (last id of the window, `id name data had_task`)."""
        after = first_id - 1
        while after < last_id:
            up_to = min(after + WINDOW, last_id)
            with self._db.autocommit() as conn:
                found = _events(conn, scope, after, up_to)
            yield up_to, found
            after = up_to

    def step(self, backfill_id: int, scope_of: Callable[[Row], tuple[Scope, Matcher] | None]) -> bool:
        """Make the next tasks of a backfill, in one transaction. False: there is nothing to do at the moment.

        Args:
            scope_of: of the locked row: its scope, and whether an event matches; None: the rule is not known (yet).
        """
        with self._db.transaction() as conn:
            with conn.cursor(row_factory=dict_row) as cur:
                row = cur.execute(_LOCK, [backfill_id]).fetchone()
            if row is None:  # another process has it, or it is running no more
                return False
            if row["service_id"] is None:
                conn.execute(SET_STATE, {"id": backfill_id, "state": "cancelled"})
                conn.execute(_WAIT, {"id": backfill_id, "why": "the rule or its service was deleted"})
                return False
            burst = max(1.0, 1 / row["rate"])
            allowed = min(BATCH, WAITING - row["waiting"], int(row["rate"] * min(row["idle"], burst)))
            why = None
            if not row["settled"]:
                why = "transactions that began before the backfill"
            elif row["waiting"] >= WAITING:
                why = f"{row['waiting']} tasks of the rule that wait to be sent"
            known = scope_of(row) if why is None else None
            if known is None or allowed < 1:
                if why is not None:
                    conn.execute(_WAIT, {"id": backfill_id, "why": why})
                return False
            self._advance(conn, row, *known, allowed=allowed, burst=burst)
        return True

    def _advance(
        self, conn: Connection, row: Row, scope: Scope, matches: Matcher, *, allowed: int, burst: float
    ) -> None:
        position = min(row["position"] + WINDOW, row["last_id"])
        matched = skipped = 0
        wanted: list[int] = []
        for event in _events(conn, scope, row["position"], position):
            if not matches(event):
                continue
            if not event["had_task"] and len(wanted) == allowed:
                position = event["id"] - 1
                break
            matched += 1
            if event["had_task"]:
                skipped += 1
            else:
                wanted.append(event["id"])
        made = 0
        if wanted:
            row_made = conn.execute(_MAKE, row | {"events": wanted, "max_age": self._max_age}).fetchone()
            ids = (row_made[0] if row_made else None) or []
            assign_keys(conn, ids, behind=False)
            made = len(ids)
        params = {
            "id": row["id"],
            "position": position,
            "matched": matched,
            "skipped": skipped + len(wanted) - made,
            "made": made,
            "burst": burst,
        }
        conn.execute(_ADVANCE, params)


def _events(conn: Connection, scope: Scope, after: int, up_to: int) -> list[Row]:
    params = {
        "rule_id": scope.rule_id,
        "since": scope.since,
        "until": scope.until,
        "names": None if scope.names is None else list(scope.names),
        "with_data": scope.with_data,
        "after": after,
        "up_to": up_to,
        "cancelled": CANCELLED,
    }
    with conn.cursor(row_factory=dict_row) as cur:
        return cur.execute(_EVENTS, params).fetchall()
