"""The ledger: claims of tasks and their outcomes. Each statement is a whole transition.

Every statement that ends or moves a running task is fenced by the claim's token, so a worker that lost its lease
changes nothing. Statements may be repeated after a lost connection: none acts twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import LiteralString

from psycopg.rows import class_row

from hub.domain.text import storable
from hub.models import Claim, DeadReason, Delivery
from hub.store.database import Database
from hub.store.database_wait import DatabaseWait
from hub.store.delivery_log import COLUMNS, ROWS, rows
from hub.store.group_commit import GroupCommit
from hub.store.write_behind import WriteBehind

FLUSH_SECONDS = 10.0
"""How long successes may take to reach the ledger when a process ends."""

# Counts the attempt before the work. A task that has expired, or whose rule or service is disabled, becomes pending.
# Tasks in `doubt` may be claimed already: the claim committed, but its response was lost.
_CLAIM = """
WITH wanted AS (
    SELECT t.id, t.state, t.expires_at < now() AS expired,
           coalesce(r.enabled AND s.enabled AND r.deleted_at IS NULL AND s.deleted_at IS NULL, false) AS live,
           coalesce((s.timeout + 60) * greatest(s.max_retries, 1) + 60, 60) AS bound
    FROM tasks t
    LEFT JOIN rules r ON r.id = t.rule_id
    LEFT JOIN services s ON s.id = t.service_id
    WHERE t.id = ANY(%(ids)s)
      AND (t.ordering_key IS NULL OR t.holds_key)
      AND (t.state IN ('queued', 'pending')
           OR t.state = 'running' AND t.worker = %(worker)s AND t.id = ANY(%(doubt)s))
    FOR UPDATE OF t SKIP LOCKED
), claimed AS (
    UPDATE tasks t SET
        state = CASE WHEN w.live AND NOT w.expired THEN 'running' ELSE 'pending' END,
        attempts = t.attempts + CASE WHEN w.live AND NOT w.expired AND w.state <> 'running' THEN 1 ELSE 0 END,
        token = t.token + 1,
        handed_at = NULL,
        worker = %(worker)s,
        lease_until = now() + make_interval(secs => w.bound)
    FROM wanted w WHERE w.id = t.id
    RETURNING t.*
)
SELECT c.id, c.token, c.attempts AS attempt, c.key::text, c.rule_id, c.service_id, c.event_id, e.uid AS event_uid,
       e.name AS event_name, e.source AS event_source, e.data AS event_data, e.depth AS event_depth,
       c.created_at AS accepted_at,
       c.next_run_at AS due_at, coalesce(b.state, 'closed') AS breaker, coalesce(b.failures, 0) AS breaker_failures,
       coalesce(b.epoch, 0) AS breaker_epoch, c.bulk,
       CASE WHEN c.edited THEN (SELECT o.payload FROM task_origins o WHERE o.task_id = c.id) END AS own_payload,
       CASE WHEN c.edited THEN (SELECT o.endpoint FROM task_origins o WHERE o.task_id = c.id) END AS own_endpoint
FROM claimed c JOIN events e ON e.id = c.event_id LEFT JOIN breakers b ON b.service_id = c.service_id
WHERE c.state = 'running'
"""

# For a person who runs a task: also tasks that are not due or have expired. They expire an hour later, so that a failed
# attempt does not end them.
_CLAIM_NOW = (
    _CLAIM.replace("t.expires_at < now() AS expired", "false AS expired")
    .replace("IN ('queued', 'pending')", "IN ('queued', 'pending', 'delayed')")
    .replace(
        "token = t.token + 1,", "token = t.token + 1, expires_at = greatest(t.expires_at, now() + interval '1 hour'),"
    )
)

# A delivery whose task another worker has claimed is logged too: it did reach the service.
_FINISH = f"""
WITH done AS (
    DELETE FROM tasks t USING unnest(%(ids)s::bigint[], %(tokens)s::integer[]) AS f(id, token)
    WHERE t.id = f.id AND t.token = f.token AND t.state = 'running'
    RETURNING t.id, t.created_at
), logged AS (
    INSERT INTO deliveries ({COLUMNS})
    SELECT {COLUMNS} FROM {ROWS} WHERE task_id IN (SELECT id FROM done UNION ALL
        SELECT t.id FROM tasks t WHERE t.id = ANY(%(ids)s))
)
SELECT id FROM done
"""  # noqa: S608 - constants

_FAIL = f"""
WITH failed AS (
    UPDATE tasks t SET state = 'delayed', next_run_at = now() + make_interval(secs => f.delay),
        last_error = f.why, worker = NULL, lease_until = NULL,
        holds_key = CASE WHEN t.holds_key THEN NOT EXISTS (
            SELECT FROM rules r WHERE r.id = t.rule_id AND r.on_failure = 'continue') ELSE false END
    FROM unnest(%(ids)s::bigint[], %(tokens)s::integer[], %(delays)s::float8[], %(whys)s::text[])
        AS f(id, token, delay, why)
    WHERE t.id = f.id AND t.token = f.token AND t.state = 'running' RETURNING t.id
), logged AS (
    INSERT INTO deliveries ({COLUMNS}) SELECT {COLUMNS} FROM {ROWS} WHERE task_id IN (SELECT id FROM failed)
)
SELECT id FROM failed
"""  # noqa: S608

_MOVE_TO_DLQ = f"""
WITH dead AS (
    DELETE FROM tasks WHERE id = %(id)s AND token = %(token)s RETURNING *
), kept AS (
    INSERT INTO dead_letters (task_id, event_id, event_uid, event, event_data, event_depth, rule_id, service_id,
        attempts, reason, error, status, payload, response_body, accepted_at, ordering_key, position)
    SELECT d.id, d.event_id, e.uid, e.name, e.data, e.depth, d.rule_id, d.service_id, d.attempts, %(reason)s,
           coalesce(%(why)s, d.last_error), %(code)s, %(payload)s, %(response)s, e.created_at,
           d.ordering_key, d.position
    FROM dead d JOIN events e ON e.id = d.event_id RETURNING id
), logged AS (
    INSERT INTO deliveries ({COLUMNS}) SELECT {COLUMNS} FROM {ROWS} WHERE task_id IN (SELECT id FROM dead)
)
SELECT id FROM kept
"""  # noqa: S608

_RELEASE = """
UPDATE tasks SET state = CASE WHEN %(delay)s > 0 THEN 'delayed' ELSE 'pending' END,
    attempts = greatest(attempts - 1, 0),
    next_run_at = now() + make_interval(secs => %(delay)s), last_error = coalesce(%(why)s, last_error),
    worker = NULL, lease_until = NULL
WHERE id = %(id)s AND token = %(token)s AND state = 'running'
"""

_RELEASE_QUEUED = "UPDATE tasks SET state = 'pending', handed_at = NULL WHERE id = ANY(%s) AND state = 'queued'"


class Ledger:
    """Moves tasks from one state to the next.

    While the database is unavailable every method waits for it: attempts and results in memory must not be lost.
    After `stop` it raises `UnavailableError` instead.

    Args:
        worker: the name of this process in the ledger.
        body_limit: most characters of a body kept.
    """

    def __init__(self, db: Database, *, worker: str, body_limit: int) -> None:
        self._db = db
        self.worker = worker
        self._limit = body_limit
        self._wait = DatabaseWait()
        self._running: set[int] = set()
        self._claim_batch: GroupCommit[int, Claim | None] = GroupCommit(self._claim_many)
        self._fail_batch: GroupCommit[tuple[Claim, Delivery, float], bool] = GroupCommit(self._fail_many)
        self._write_behind: WriteBehind[tuple[Claim, Delivery, Callable[[bool], None]], bool] = WriteBehind(
            lambda items: self._finish_many([(claim, delivery) for claim, delivery, _ in items]),
            lambda item, done: item[2](done),
        )

    def drain(self) -> None:
        """Make claims no longer wait for the database; results still do. Called when the process begins to stop."""
        self._wait.drain()

    def stop(self) -> None:
        """Make nothing wait for the database any more."""
        self._wait.stop()
        self._write_behind.close()

    def flush(self, timeout: float) -> bool:
        """Wait until the results given to `finish_soon` are written; False: not within `timeout` seconds."""
        return self._write_behind.flush(timeout)

    def claim(self, task_id: int) -> Claim | None:
        """Claim a task and count the attempt. None: gone, held, not due, or another worker has claimed it."""
        return self._claim_batch(task_id)

    def claim_now(self, task_id: int) -> Claim | None:
        """Claim a task whether it is due or not. None: gone, held, or another worker has claimed it."""
        return self._claim_many([task_id], _CLAIM_NOW)[0]

    def _claim_many(self, ids: list[int], sql: LiteralString = _CLAIM) -> list[Claim | None]:
        def act(again: bool) -> list[Claim]:
            doubt = [i for i in ids if i not in self._running] if again else []
            with self._db.autocommit() as conn, conn.cursor(row_factory=class_row(Claim)) as cur:
                return cur.execute(sql, {"ids": ids, "worker": self.worker, "doubt": doubt}).fetchall()

        found = {claim.id: claim for claim in self._wait.until_draining(act)}
        self._running.update(found)
        return [found.pop(task_id, None) for task_id in ids]

    def finish(self, claim: Claim, delivery: Delivery) -> bool:
        """Delete a delivered task and log the delivery. False: another worker has claimed the task."""
        return self._finish_many([(claim, delivery)])[0]

    def finish_soon(self, claim: Claim, delivery: Delivery, then: Callable[[bool], None]) -> None:
        """Record a delivery as `finish` does, together with others within milliseconds; `then` gets the result.

        Until then the task is still claimed by this worker. If the process dies, another worker runs the task after the
        lease, as when a process dies between the send and `finish`.
        """
        self._write_behind.add((claim, delivery, then))

    def _finish_many(self, items: list[tuple[Claim, Delivery]]) -> list[bool]:
        return self._record_many(_FINISH, items)

    def fail(self, claim: Claim, delivery: Delivery, *, delay: float) -> bool:
        """Record a failed attempt; the next is due in `delay` seconds. Failures of the same moment share a commit."""
        return self._fail_batch((claim, delivery, delay))

    def _fail_many(self, items: list[tuple[Claim, Delivery, float]]) -> list[bool]:
        delays = [delay for _, _, delay in items]
        whys = [storable(delivery.error) for _, delivery, _ in items]
        pairs = [(claim, delivery) for claim, delivery, _ in items]
        return self._record_many(_FAIL, pairs, delays=delays, whys=whys)

    def _record_many(self, sql: str, items: list[tuple[Claim, Delivery]], **more: object) -> list[bool]:
        """Run a statement for many tasks; for each, whether it was still this claim's."""
        params = {
            "rows": rows((delivery for _, delivery in items), self._limit),
            "ids": [claim.id for claim, _ in items],
            "tokens": [claim.token for claim, _ in items],
            **more,
        }

        def act(again: bool) -> set[int]:
            with self._db.autocommit() as conn:
                return {row[0] for row in conn.execute(sql.encode(), params).fetchall()}

        recorded = self._wait.until_stopped(act)
        self._running.difference_update(claim.id for claim, _ in items)
        return [claim.id in recorded for claim, _ in items]

    def move_to_dlq(self, claim: Claim, delivery: Delivery, reason: DeadReason) -> bool:
        """Turn a task into a dead letter and log its last attempt, in one statement."""
        params: dict[str, object] = {"rows": rows([delivery], self._limit), "id": claim.id, "token": claim.token}
        params["reason"] = reason.value
        params |= {
            "why": storable(delivery.error),
            "code": delivery.status,
            "payload": storable(delivery.request_body),
            "response": storable(delivery.response_body),
        }

        def act(again: bool) -> bool:
            with self._db.autocommit() as conn:
                return conn.execute(_MOVE_TO_DLQ.encode(), params).fetchone() is not None

        moved = self._wait.until_stopped(act)
        self._running.discard(claim.id)
        return moved

    def release(self, claim: Claim, *, delay: float = 0.0, why: str | None = None) -> None:
        """Release a claim: nothing was sent, the attempt does not count, the task is due again in `delay` seconds."""
        params = {"id": claim.id, "token": claim.token, "delay": delay, "why": storable(why)}
        self._wait.until_stopped(lambda again: self._db.run(_RELEASE, params))
        self._running.discard(claim.id)

    def release_queued(self, task_ids: list[int]) -> None:
        """Release queued tasks that the broker did not accept."""
        self._db.run(_RELEASE_QUEUED, [task_ids])

    def running(self) -> int:
        """The number of tasks that this process has claimed."""
        return len(self._running)
