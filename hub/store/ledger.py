"""The ledger: what becomes of a task, in statements that each hold a whole transition.

Every statement that ends or moves a running task is fenced by the claim's token, so the one who lost
its lease changes nothing. Statements may be repeated after a lost connection: none acts twice.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import LiteralString, TypeVar

from psycopg.rows import class_row

from hub.errors import UnavailableError
from hub.models import Claim, DeadReason, Delivery
from hub.store.database import Database
from hub.store.delivery_log import (
    COLUMNS,
    ROWS,
    clean,
    rows,
)
from hub.store.group_commit import GroupCommit
from hub.store.write_behind import WriteBehind

T = TypeVar("T")

# Counts the attempt before the work. A task whose rule or service is off, and one that is too old, goes
# back to the releaser. Tasks in `doubt` are ours already: the claim committed, its answer got lost.
_CLAIM = """
WITH wanted AS (
    SELECT t.id, t.state, t.expires_at < now() AS expired,
           coalesce(r.enabled AND s.enabled AND r.deleted_at IS NULL AND s.deleted_at IS NULL, false) AS live,
           coalesce((s.timeout + 60) * greatest(s.max_retries, 1) + 60, 60) AS bound
    FROM tasks t
    LEFT JOIN rules r ON r.id = t.rule_id
    LEFT JOIN services s ON s.id = t.service_id
    WHERE t.id = ANY(%(ids)s)
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
       e.name AS event_name, e.data AS event_data, e.depth AS event_depth, c.created_at AS accepted_at,
       c.next_run_at AS due_at, coalesce(b.state, 'closed') AS breaker, coalesce(b.failures, 0) AS breaker_failures,
       coalesce(b.epoch, 0) AS breaker_epoch, c.bulk,
       CASE WHEN c.edited THEN (SELECT o.payload FROM task_origins o WHERE o.task_id = c.id) END AS own_payload,
       CASE WHEN c.edited THEN (SELECT o.endpoint FROM task_origins o WHERE o.task_id = c.id) END AS own_endpoint
FROM claimed c JOIN events e ON e.id = c.event_id LEFT JOIN breakers b ON b.service_id = c.service_id
WHERE c.state = 'running'
"""

# Also tasks that are not due or have expired: a person runs them. They live an hour longer, so that a failed attempt
# does not end them.
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
        last_error = f.why, worker = NULL, lease_until = NULL
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
        attempts, reason, error, status, payload, response_body, accepted_at)
    SELECT d.id, d.event_id, e.uid, e.name, e.data, e.depth, d.rule_id, d.service_id, d.attempts, %(reason)s,
           coalesce(%(why)s, d.last_error), %(code)s, %(payload)s, %(answer)s, e.created_at
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

    While the database is away every method waits for it (attempts and results are in memory and
    must not be lost), until `stop` is called: then it raises `UnavailableError`.

    Args:
        worker: this process's name in the ledger; its lease says that it lives.
        body_limit: most characters of a body kept.
    """

    def __init__(self, db: Database, *, worker: str, body_limit: int) -> None:
        self._db = db
        self.worker = worker
        self._limit = body_limit
        self._draining, self._stopping = threading.Event(), threading.Event()
        self._running: set[int] = set()
        self._claim_batch: GroupCommit[int, Claim | None] = GroupCommit(self._claim_many)
        self._fail_batch: GroupCommit[tuple[Claim, Delivery, float], bool] = GroupCommit(self._fail_many)
        self._write_behind: WriteBehind[tuple[Claim, Delivery, Callable[[bool], None]], bool] = WriteBehind(
            lambda items: self._finish_many([(claim, delivery) for claim, delivery, _ in items]),
            lambda item, done: item[2](done),
        )

    def drain(self) -> None:
        """The process begins to stop: claims no longer wait for a database that is away, results still do."""
        self._draining.set()

    def stop(self) -> None:
        """Nothing waits any more for a database that is away."""
        self._draining.set()
        self._stopping.set()
        self._write_behind.close()

    def flush(self, timeout: float) -> bool:
        """Wait until what `finish_soon` was given is written; False: not within `timeout` seconds."""
        return self._write_behind.flush(timeout)

    def _patiently(self, act: Callable[[bool], T], until: threading.Event | None = None) -> T:
        """Run `act(again)` until the database answers, or `until` is set (or the process stops)."""
        until = until or self._stopping
        pause, again = 0.1, False
        while True:
            try:
                return act(again)
            except UnavailableError:
                if until.wait(pause):
                    raise
                pause, again = min(pause * 2, 1.0), True

    def claim(self, task_id: int) -> Claim | None:
        """Take a task; the attempt is counted. None: gone, held, not due, or another worker has claimed it."""
        return self._claim_batch(task_id)

    def claim_now(self, task_id: int) -> Claim | None:
        """Claim a task whether it is due or not. None: gone, held, or another worker has claimed it."""
        return self._claim_many([task_id], _CLAIM_NOW)[0]

    def _claim_many(self, ids: list[int], sql: LiteralString = _CLAIM) -> list[Claim | None]:
        def act(again: bool) -> list[Claim]:
            doubt = [i for i in ids if i not in self._running] if again else []
            with self._db.autocommit() as conn, conn.cursor(row_factory=class_row(Claim)) as cur:
                return cur.execute(sql, {"ids": ids, "worker": self.worker, "doubt": doubt}).fetchall()

        found = {claim.id: claim for claim in self._patiently(act, self._draining)}
        self._running.update(found)
        return [found.pop(task_id, None) for task_id in ids]

    def finish(self, claim: Claim, delivery: Delivery) -> bool:
        """Delivered: the task goes, the delivery is logged. False: another worker has claimed the task."""
        return self._finish_many([(claim, delivery)])[0]

    def finish_soon(self, claim: Claim, delivery: Delivery, then: Callable[[bool], None]) -> None:
        """As `finish`, within milliseconds and together with others; `then` is told the result.

        Until it is written the task is still this worker's: if the process dies, others take it up after
        the lease, as when it dies between the send and a `finish` that waits.
        """
        self._write_behind.add((claim, delivery, then))

    def _finish_many(self, items: list[tuple[Claim, Delivery]]) -> list[bool]:
        return self._settle_many(_FINISH, items)

    def fail(self, claim: Claim, delivery: Delivery, *, delay: float) -> bool:
        """Failed, not for the last time: the next attempt is due in `delay` seconds.

        Many fail in the same moment when a service hangs; they share a commit.
        """
        return self._fail_batch((claim, delivery, delay))

    def _fail_many(self, items: list[tuple[Claim, Delivery, float]]) -> list[bool]:
        delays = [delay for _, _, delay in items]
        whys = [clean(delivery.error) for _, delivery, _ in items]
        pairs = [(claim, delivery) for claim, delivery, _ in items]
        return self._settle_many(_FAIL, pairs, delays=delays, whys=whys)

    def _settle_many(self, sql: str, items: list[tuple[Claim, Delivery]], **more: object) -> list[bool]:
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

        settled = self._patiently(act)
        self._running.difference_update(claim.id for claim, _ in items)
        return [claim.id in settled for claim, _ in items]

    def move_to_dlq(self, claim: Claim, delivery: Delivery, reason: DeadReason) -> bool:
        """Failed for the last time: dead letter, log and the task's end in one statement."""
        params: dict[str, object] = {"rows": rows([delivery], self._limit), "id": claim.id, "token": claim.token}
        params["reason"] = reason.value
        params |= {
            "why": clean(delivery.error),
            "code": delivery.status,
            "payload": clean(delivery.request_body),
            "answer": clean(delivery.response_body),
        }

        def act(again: bool) -> bool:
            with self._db.autocommit() as conn:
                return conn.execute(_MOVE_TO_DLQ.encode(), params).fetchone() is not None

        moved = self._patiently(act)
        self._running.discard(claim.id)
        return moved

    def release(self, claim: Claim, *, delay: float = 0.0, why: str | None = None) -> None:
        """Nothing was sent: the attempt does not count, the task is due again in `delay` seconds."""
        params = {"id": claim.id, "token": claim.token, "delay": delay, "why": clean(why)}
        self._patiently(lambda again: self._db.run(_RELEASE, params))
        self._running.discard(claim.id)

    def release_queued(self, task_ids: list[int]) -> None:
        """Release queued tasks that the broker did not accept."""
        self._db.run(_RELEASE_QUEUED, [task_ids])

    # The lease of this worker

    def renew_lease(self, seconds: float, *, host: str, pid: int) -> None:
        """This worker lives for `seconds` more."""
        self._db.run(
            "INSERT INTO workers (id, host, pid, lease_until) VALUES (%s, %s, %s, now() + make_interval(secs => %s))"
            " ON CONFLICT (id) DO UPDATE SET lease_until = excluded.lease_until",
            [self.worker, host, pid, seconds],
        )

    def leave(self) -> None:
        """This worker stops: what it still holds may be taken up by others at once."""
        self._db.run("DELETE FROM workers WHERE id = %s", [self.worker])

    def running(self) -> int:
        """How many tasks this process holds."""
        return len(self._running)
