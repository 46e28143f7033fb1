"""What tasks wait for: the state around them, read once for all tasks of a listing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC
from typing import Any, LiteralString

from hub.domain.waits import MOST_BEFORE, Conditions, Waiting, wait_of
from hub.store.database import Database, Row

COLUMNS: LiteralString = """
, t.state AS _state, t.bulk AS _bulk, t.service_id AS _service_id,
coalesce(r.enabled, false) AS _rule_enabled, coalesce(s.enabled, false) AS _service_enabled,
r.id IS NULL OR r.deleted_at IS NOT NULL AS _rule_deleted,
s.id IS NULL OR s.deleted_at IS NOT NULL AS _service_deleted
"""
"""What a query selects for `Waits.add`; `t` is the task, `r` its rule, `s` its service."""
_RECENT = 30  # seconds within which a process must have reported
_AROUND = """
SELECT s.id, (s.options->>'rate_limit')::float8 AS rate_limit, (s.options->>'max_attempts')::int AS max_attempts,
       coalesce(b.state, 'closed') AS breaker, b.retry_at,
       (SELECT coalesce(sum(n), 0)::bigint FROM task_counts c WHERE c.service_id = s.id AND c.state = 'queued')
           AS queued
FROM services s LEFT JOIN breakers b ON b.service_id = s.id WHERE s.id = ANY(%s)
"""
_PROCESSES = """
SELECT now() AS now, count(*) FILTER (WHERE component = 'worker') AS workers,
       count(*) FILTER (WHERE component = 'releaser') AS relays, count(*) FILTER (WHERE component = 'broker') AS brokers
FROM heartbeats WHERE at > now() - make_interval(secs => %s)
"""
# Pending tasks of the service's rules that are due before, by the index of each rule; those in the broker, too.
_BEFORE = """
SELECT t.id, CASE WHEN t.state = 'queued' THEN 0 ELSE (
    SELECT count(*) FROM (
        SELECT 1 FROM rules r CROSS JOIN LATERAL (
            SELECT 1 FROM tasks b WHERE b.state = 'pending' AND NOT b.bulk AND b.rule_id = r.id
              AND (b.next_run_at, b.id) < (t.next_run_at, t.id) LIMIT %(most)s) each
        WHERE r.service_id = t.service_id LIMIT %(most)s) ahead)
    END + (
    SELECT count(*) FROM (
        SELECT 1 FROM tasks q WHERE q.state = 'queued' AND q.service_id = t.service_id
          AND (t.state <> 'queued' OR (q.handed_at, q.id) < (t.handed_at, t.id)) LIMIT %(most)s) ahead) AS n
FROM tasks t WHERE t.id = ANY(%(ids)s)
"""


class Waits:
    """Adds `waits_for`, `waits_until` and `blocked` to rows of tasks.

    Args:
        max_attempts: of services that name none.
        queue_limit: most tasks of one service in the broker.
        park: whether tasks wait for an open circuit; False: they run into it, which counts as an attempt.
    """

    def __init__(self, db: Database, *, max_attempts: int = 5, queue_limit: int = 1000, park: bool = True) -> None:
        self._db = db
        self._max_attempts = max_attempts
        self._queue_limit = queue_limit
        self._park = park

    def add(self, rows: Sequence[Row]) -> None:
        """Add the fields, and remove those of `COLUMNS`.

        `waits_for`: why the task does not run, None while it does. `waits_until`: when that ends, if it is known.
        `blocked`: running it now would not help.
        """
        waiting = [row for row in rows if row["_state"] != "running"]
        around = self._around({row["_service_id"] for row in waiting}) if waiting else {}
        due = [row["id"] for row in waiting if row["_state"] in ("pending", "queued")]
        before = {
            row["id"]: min(row["n"], MOST_BEFORE)
            for row in (self._db.all(_BEFORE, {"ids": due, "most": MOST_BEFORE}) if due else ())
        }
        for row in rows:
            own = {name: row.pop(f"_{name}") for name in _OWN}
            service_id = row.pop("_service_id")
            task = Waiting(
                attempts=row["attempts"],
                next_run_at=row["next_run_at"].astimezone(UTC),
                last_error=row["last_error"],
                rule=row["rule"],
                service=row["service"],
                before=before.get(row["id"], 0),
                behind=row["waits_behind"],
                **own,
            )
            wait = wait_of(task, around[service_id]) if service_id in around else None
            row["waits_for"] = wait.text if wait else None
            row["waits_until"] = wait.until if wait else None
            row["blocked"] = bool(wait and wait.blocked)

    def _around(self, services: set[int]) -> dict[int, Conditions]:
        processes = self._db.one(_PROCESSES, [_RECENT])
        assert processes is not None
        common: dict[str, Any] = {
            "now": processes["now"].astimezone(UTC),
            "workers": processes["workers"],
            "broker": not processes["relays"] or bool(processes["brokers"]),
            "queue_limit": self._queue_limit,
        }
        unknown = {service_id: Conditions(**common) for service_id in services}
        return unknown | {
            row["id"]: Conditions(
                breaker=row["breaker"] if self._park else "closed",
                retry_at=row["retry_at"] and row["retry_at"].astimezone(UTC),
                queued=row["queued"],
                rate_limit=row["rate_limit"],
                max_attempts=row["max_attempts"] or self._max_attempts,
                **common,
            )
            for row in self._db.all(_AROUND, [sorted(services)])
        }


_OWN = ("state", "bulk", "rule_enabled", "service_enabled", "rule_deleted", "service_deleted")
