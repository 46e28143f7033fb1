"""Statements of the outbox relay. Each changes a bounded number of rows, uses an index, and may be repeated."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg.rows import class_row

from hub.store.database import Database

BATCH = 2000

# `= ANY(ARRAY(...))`, not `IN`: the planner takes a LIMIT that is a parameter for a tenth of the table, and would then
# read a million tasks to find a thousand.
_PROMOTE = """
WITH due AS (
    UPDATE tasks SET state = CASE WHEN ordering_key IS NULL OR holds_key THEN 'pending' ELSE 'blocked' END
    WHERE id = ANY(ARRAY(
        SELECT id FROM tasks WHERE state = 'delayed' AND next_run_at <= now()
        ORDER BY next_run_at, id LIMIT %s FOR UPDATE SKIP LOCKED))
    RETURNING state, rule_id, ordering_key
)
SELECT count(*), array_agg(rule_id) FILTER (WHERE state = 'blocked'),
       array_agg(ordering_key) FILTER (WHERE state = 'blocked') FROM due
"""
# Pending tasks by live service, from the exact counts: a million tasks cost what one costs.
_DEMAND = """
WITH c AS (
    SELECT service_id, rule_id, state, sum(n)::bigint AS n FROM task_counts
    WHERE state IN ('pending', 'queued', 'running') GROUP BY 1, 2, 3
), busy AS (
    SELECT service_id, coalesce(sum(n) FILTER (WHERE state = 'queued'), 0)::bigint AS queued,
           coalesce(sum(n) FILTER (WHERE state = 'running'), 0)::bigint AS running FROM c GROUP BY 1
)
SELECT c.service_id, array_agg(c.rule_id ORDER BY c.rule_id) AS rules, sum(c.n)::bigint AS pending,
       coalesce(max(busy.queued), 0)::bigint AS queued, coalesce(max(busy.running), 0)::bigint AS running,
       coalesce(max(b.state), 'closed') AS breaker,
       coalesce(bool_or(b.retry_at <= now()), true) AS cooled, max((s.options->>'rate_limit')::float8) AS rate_limit
FROM c
JOIN rules r ON r.id = c.rule_id AND r.enabled AND r.deleted_at IS NULL
JOIN services s ON s.id = c.service_id AND s.enabled AND s.deleted_at IS NULL
LEFT JOIN busy ON busy.service_id = c.service_id
LEFT JOIN breakers b ON b.service_id = c.service_id
WHERE c.state = 'pending' AND c.n > 0
GROUP BY c.service_id
"""
_PRESSURE = """
SELECT c.service_id, sum(n)::bigint AS waiting, coalesce(max(b.state), 'closed') = 'closed' AS closed
FROM task_counts c LEFT JOIN breakers b ON b.service_id = c.service_id
WHERE c.state IN ('pending', 'queued') GROUP BY 1
"""
_TAKE = """
UPDATE tasks SET state = 'queued', handed_at = now() WHERE id = ANY(ARRAY(
    SELECT picked.id FROM unnest(%(rules)s::bigint[], %(limits)s::integer[]) AS x(rule_id, lim)
    CROSS JOIN LATERAL (
        SELECT t.id FROM tasks t
        WHERE t.state = 'pending' AND NOT t.bulk AND t.rule_id = x.rule_id AND t.expires_at > now()
        ORDER BY t.next_run_at, t.id LIMIT x.lim FOR UPDATE SKIP LOCKED
    ) picked))
RETURNING service_id, id
"""
# Tasks of the bulk lane; never where a live task of the service waits.
_BULK_DEMAND = _DEMAND.replace(
    """WHERE c.state = 'pending' AND c.n > 0
""",
    """WHERE c.state = 'bulk' AND c.n > 0
  AND NOT EXISTS (SELECT FROM c AS live WHERE live.service_id = c.service_id AND live.state = 'pending' AND live.n > 0)
""",
).replace("IN ('pending', 'queued', 'running')", "IN ('pending', 'bulk', 'queued', 'running')")
_TAKE_BULK = _TAKE.replace("NOT t.bulk", "t.bulk")
_BULK_QUEUED = "SELECT count(*) AS n FROM tasks WHERE state = 'queued' AND bulk"
# The oldest first: a queue is first in, first out, so the messages missing from it were published earliest.
_LOST_MESSAGES = """
UPDATE tasks SET handed_at = now() WHERE id = ANY(ARRAY(
    SELECT id FROM tasks WHERE state = 'queued' AND handed_at < now() - make_interval(secs => %(age)s)
    ORDER BY handed_at, id LIMIT %(limit)s FOR UPDATE SKIP LOCKED))
RETURNING service_id, id
"""
# A worker whose lease is over begins no further try, but one may be in progress for as long as the timeout.
_LOST = """
WITH lost AS (
    SELECT t.id, t.attempts >= coalesce((s.options->>'max_attempts')::int, %(max_attempts)s) AS last
    FROM tasks t LEFT JOIN workers w ON w.id = t.worker
    LEFT JOIN services s ON s.id = t.service_id
    WHERE t.state = 'running' AND (w.id IS NULL OR t.lease_until < now()
        OR w.lease_until + make_interval(secs => coalesce(s.timeout, 0)) < now())
    LIMIT %(limit)s FOR UPDATE OF t SKIP LOCKED
), again AS (
    UPDATE tasks t SET state = 'pending', next_run_at = now(), worker = NULL, lease_until = NULL, token = token + 1,
        last_error = %(why)s
    FROM lost l WHERE l.id = t.id AND NOT l.last RETURNING t.*
), over AS (
    DELETE FROM tasks t USING lost l WHERE l.id = t.id AND l.last RETURNING t.*
), kept AS (
    INSERT INTO dead_letters (task_id, event_id, event_uid, event, event_data, event_depth, rule_id, service_id,
        attempts, reason, error, accepted_at, ordering_key, position)
    SELECT o.id, o.event_id, e.uid, e.name, e.data, e.depth, o.rule_id, o.service_id, o.attempts, 'worker_lost',
           %(why)s, e.created_at, o.ordering_key, o.position
    FROM over o JOIN events e ON e.id = o.event_id
), ended AS (
    SELECT id, service_id, rule_id, event_id, attempts, false AS dead FROM again
    UNION ALL SELECT id, service_id, rule_id, event_id, attempts, true FROM over
), logged AS (
    INSERT INTO deliveries (direction, service_id, service, success, task_id, rule_id, event_id, event, attempt,
        outcome, error)
    SELECT 'outbound', x.service_id, coalesce(s.name, '?'), false, x.id, x.rule_id, x.event_id, e.name, x.attempts,
           'worker_lost', %(why)s
    FROM ended x LEFT JOIN services s ON s.id = x.service_id LEFT JOIN events e ON e.id = x.event_id
)
SELECT coalesce(s.name, '?'), x.dead FROM ended x LEFT JOIN services s ON s.id = x.service_id
"""
_EXPIRED = """
WITH old AS (
    SELECT t.id FROM tasks t
    JOIN rules r ON r.id = t.rule_id AND r.enabled AND r.deleted_at IS NULL
    JOIN services s ON s.id = t.service_id AND s.enabled AND s.deleted_at IS NULL
    WHERE t.state IN ('pending', 'delayed', 'blocked') AND t.expires_at <= now()
    ORDER BY t.expires_at LIMIT %(limit)s FOR UPDATE OF t SKIP LOCKED
), over AS (
    DELETE FROM tasks t USING old o WHERE t.id = o.id RETURNING t.*
), kept AS (
    INSERT INTO dead_letters (task_id, event_id, event_uid, event, event_data, event_depth, rule_id, service_id,
        attempts, reason, error, accepted_at, ordering_key, position)
    SELECT o.id, o.event_id, e.uid, e.name, e.data, e.depth, o.rule_id, o.service_id, o.attempts, 'expired',
           'older than HUB_TASK_MAX_AGE' || coalesce('; last error: ' || o.last_error, ''), e.created_at,
           o.ordering_key, o.position
    FROM over o JOIN events e ON e.id = o.event_id
)
SELECT s.name FROM over o JOIN services s ON s.id = o.service_id
"""
_RELEASE_ALL = "UPDATE tasks SET state = 'pending', handed_at = NULL WHERE state = 'queued'"
_QUEUED = "SELECT coalesce(sum(n), 0)::bigint AS n FROM task_counts WHERE state = 'queued'"
_FOLD = """
WITH gone AS (DELETE FROM task_counts RETURNING *)
INSERT INTO task_counts SELECT service_id, rule_id, state, sum(n) FROM gone GROUP BY 1, 2, 3 HAVING sum(n) <> 0
"""
_LOST_WHY = "the worker was lost during the attempt"


@dataclass(frozen=True, slots=True)
class Demand:
    """A service that has pending tasks. `cooled`: an open circuit may be probed."""

    service_id: int
    rules: list[int]
    pending: int
    queued: int
    running: int
    breaker: str
    cooled: bool
    rate_limit: float | None


class Outbox:
    """Moves due tasks towards the broker, and recovers and expires tasks."""

    def __init__(self, db: Database, *, max_attempts: int) -> None:
        self._db = db
        self._max_attempts = max_attempts

    def promote(self) -> tuple[int, list[tuple[int, str]]]:
        """Make due delayed tasks pending, at most `BATCH`.

        Returns:
            How many, and (rule id, ordering key) of those that do not hold their key: they wait for it.
        """
        with self._db.autocommit() as conn:
            row = conn.execute(_PROMOTE, [BATCH]).fetchone()
        assert row is not None
        return row[0], list(zip(row[1] or [], row[2] or [], strict=True))

    def demand(self) -> list[Demand]:
        """Services with pending live tasks."""
        with self._db.autocommit() as conn, conn.cursor(row_factory=class_row(Demand)) as cur:
            return cur.execute(_DEMAND).fetchall()

    def bulk_demand(self) -> list[Demand]:
        """Services with pending tasks of the bulk lane and no pending live task."""
        with self._db.autocommit() as conn, conn.cursor(row_factory=class_row(Demand)) as cur:
            return cur.execute(_BULK_DEMAND).fetchall()

    def bulk_queued(self) -> int:
        """Return the number of tasks of the bulk lane that are published and not claimed."""
        row = self._db.one(_BULK_QUEUED)
        return int(row["n"]) if row else 0

    def pressure(self) -> dict[int, tuple[int, bool]]:
        """By service: how many due live tasks wait or are published, and whether its circuit is closed."""
        return {row["service_id"]: (row["waiting"], row["closed"]) for row in self._db.all(_PRESSURE)}

    def take(self, limits: dict[int, int], *, bulk: bool = False) -> list[tuple[int, int]]:
        """Mark at most `limits[rule]` pending tasks of each rule as queued: (service id, task id).

        Args:
            bulk: take tasks of the bulk lane; False: live tasks.
        """
        params = {"rules": list(limits), "limits": list(limits.values())}
        with self._db.autocommit() as conn:
            rows = conn.execute(_TAKE_BULK if bulk else _TAKE, params).fetchall()
        return [(row[0], row[1]) for row in rows]

    def release_all_queued(self) -> None:
        """Release every queued task: none of their messages exists any more."""
        self._db.run(_RELEASE_ALL)

    def queued(self) -> int:
        """Return the number of tasks that are published and not claimed."""
        row = self._db.one(_QUEUED)
        return int(row["n"]) if row else 0

    def lost_messages(self, limit: int, *, age: float) -> list[tuple[int, int]]:
        """Return (service id, task id) of the oldest tasks published more than `age` seconds ago; stamp them anew."""
        with self._db.autocommit() as conn:
            rows = conn.execute(_LOST_MESSAGES, {"limit": min(limit, BATCH), "age": age}).fetchall()
        return [(row[0], row[1]) for row in rows]

    def recover(self) -> list[tuple[str, bool]]:
        """Make tasks of lost workers due again, or dead after their last attempt. Returns (service, dead) of each."""
        params = {"max_attempts": self._max_attempts, "limit": BATCH, "why": _LOST_WHY}
        with self._db.autocommit() as conn:
            return [(row[0], row[1]) for row in conn.execute(_LOST, params).fetchall()]

    def expire(self) -> list[str]:
        """Turn expired tasks into dead letters. Returns the service of each."""
        with self._db.autocommit() as conn:
            return [row[0] for row in conn.execute(_EXPIRED, {"limit": BATCH}).fetchall()]

    def fold(self) -> None:
        """Merge the rows of `task_counts`."""
        self._db.run(_FOLD)
