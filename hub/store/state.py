"""The state of the ledger for metrics, read in one snapshot, in bounded time, cheap at a million tasks."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import LiteralString

import psycopg
from psycopg_pool import PoolTimeout

from hub.errors import UnavailableError
from hub.store.database import Connection, Database
from hub.store.heartbeats import BEAT, LEAVE

_SNAPSHOT: LiteralString = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"
_LIMIT: LiteralString = "SET LOCAL statement_timeout = 3000"
_SERVICES = """
SELECT s.name, coalesce(b.state, 'closed'), s.enabled AND s.type = 'amqp' AND s.response_queue IS NOT NULL,
       extract(epoch FROM c.last_success_at)::float8, coalesce(r.state, 'closed')
FROM services s LEFT JOIN breakers b ON b.service_id = s.id LEFT JOIN response_breakers r ON r.service_id = s.id
LEFT JOIN consumer_state c ON c.service_id = s.id
WHERE s.deleted_at IS NULL ORDER BY s.name
"""
# From the exact counts. A task of a disabled or deleted rule or service is held, unless it runs just now.
_TASKS = """
SELECT s.name, CASE WHEN c.state <> 'running' AND NOT coalesce(
                          r.enabled AND s.enabled AND r.deleted_at IS NULL AND s.deleted_at IS NULL, false) THEN 'held'
                    WHEN c.state IN ('queued', 'bulk') THEN 'pending' ELSE c.state END, sum(c.n)::float8
FROM (SELECT service_id, rule_id, state, sum(n) AS n FROM task_counts GROUP BY 1, 2, 3) c
JOIN services s ON s.id = c.service_id LEFT JOIN rules r ON r.id = c.rule_id
GROUP BY 1, 2 HAVING sum(c.n) <> 0
"""
# Pending: the first of each live rule's index. Queued: at most the queue limits, so few.
_OLDEST_DUE = """
WITH live AS (
    SELECT r.id, s.name FROM rules r JOIN services s ON s.id = r.service_id
    WHERE r.enabled AND s.enabled AND r.deleted_at IS NULL AND s.deleted_at IS NULL
), queued AS (
    SELECT rule_id, min(next_run_at) AS at FROM tasks WHERE state = 'queued' GROUP BY 1
)
SELECT name, greatest(0, extract(epoch FROM now() - min(at)))::float8 FROM (
    SELECT live.name, head.at FROM live CROSS JOIN LATERAL (
        SELECT t.next_run_at AS at FROM tasks t WHERE t.state = 'pending' AND NOT t.bulk AND t.rule_id = live.id
        ORDER BY t.next_run_at LIMIT 1) head
    UNION ALL
    SELECT live.name, queued.at FROM live JOIN queued ON queued.rule_id = live.id
) due WHERE at <= now() GROUP BY 1
"""
_DEAD = """
SELECT s.name, sum(d.n)::float8, greatest(0, extract(epoch FROM now() - min(d.at)))::float8
FROM (SELECT service_id, count(*) AS n, min(created_at) AS at FROM dead_letters GROUP BY 1) d
JOIN services s ON s.id = d.service_id GROUP BY 1
"""
_SOURCES = """
SELECT s.name, extract(epoch FROM now() - coalesce(p.reached_at, s.created_at))::float8,
       greatest(p.newest_id - p.last_id, 0)::float8, p.read_rows::float8, p.events::float8, p.undecoded::float8,
       p.refused::float8, p.errors::float8,
       (SELECT count(*) FROM source_gaps g WHERE g.source_id = s.id)::float8
FROM sources s JOIN source_positions p ON p.source_id = s.id
WHERE s.deleted_at IS NULL AND s.enabled ORDER BY s.name
"""
# `broker` is not a process: the relay records with it that RabbitMQ responds.
_BEATS = """
SELECT component, extract(epoch FROM max(at))::float8,
       (array_agg(clock_offset ORDER BY abs(clock_offset) DESC NULLS LAST)
        FILTER (WHERE at > now() - interval '3 minutes'))[1]
FROM heartbeats WHERE component <> 'broker' GROUP BY 1
"""


@dataclass(frozen=True)
class SourceState:
    """One enabled event source. `lag` is seconds since all visible rows were read, `behind` rows not read yet."""

    lag: float
    behind: float | None
    rows: float
    events: float
    undecoded: float
    refused: float
    errors: float
    gaps: float


@dataclass(frozen=True)
class HubState:
    """The state of the ledger. Ages are seconds, times Unix seconds; unknown values are left out."""

    breakers: dict[str, str]
    tasks: dict[tuple[str, str], float] = field(default_factory=dict)
    oldest_due: dict[str, float] = field(default_factory=dict)
    dead_letters: dict[str, float] = field(default_factory=dict)
    oldest_dead: dict[str, float] = field(default_factory=dict)
    consumers: dict[str, float | None] = field(default_factory=dict)
    heartbeats: dict[str, float] = field(default_factory=dict)
    clock_offsets: dict[str, float | None] = field(default_factory=dict)
    response_breakers: dict[str, str] = field(default_factory=dict)
    sources: dict[str, SourceState] = field(default_factory=dict)

    @property
    def services(self) -> list[str]:
        """The names of all services."""
        return list(self.breakers)


class State:
    """Reads the state.

    Args:
        wait: most seconds to wait for a connection.
    """

    def __init__(self, db: Database, *, wait: float = 2.0) -> None:
        self._db = db
        self._wait = wait
        self._instance = f"exporter:{uuid.uuid4().hex[:8]}"

    def writable(self) -> bool:
        """Return whether the database accepts writes: a full disk or a standby can still be read."""
        try:
            with self._db.pool.connection(timeout=self._wait) as conn, conn.transaction():
                conn.execute(_LIMIT)
                conn.execute(BEAT, ["probe", self._instance, None])
                conn.execute(LEAVE, ["probe", self._instance])
        except (psycopg.Error, PoolTimeout):
            return False
        return True

    def read(self) -> HubState:
        """Read the state in one snapshot.

        Raises:
            UnavailableError: the database does not respond in time.
        """
        try:
            with self._db.pool.connection(timeout=self._wait) as conn, conn.transaction():
                conn.execute(_SNAPSHOT)
                conn.execute(_LIMIT)
                return _read(conn)
        except (psycopg.Error, PoolTimeout) as e:
            raise UnavailableError(f"the database does not respond: {type(e).__name__}") from e


def _read(conn: Connection) -> HubState:
    services = conn.execute(_SERVICES).fetchall()
    dead = conn.execute(_DEAD).fetchall()
    beats = conn.execute(_BEATS).fetchall()
    return HubState(
        breakers={name: state for name, state, _, _, _ in services},
        response_breakers={name: state for name, _, consumes, _, state in services if consumes},
        consumers={name: at for name, _, consumes, at, _ in services if consumes},
        tasks={(name, state): n for name, state, n in conn.execute(_TASKS)},
        oldest_due=dict(conn.execute(_OLDEST_DUE).fetchall()),
        dead_letters={name: n for name, n, _ in dead},
        oldest_dead={name: age for name, _, age in dead},
        sources={name: SourceState(*values) for name, *values in conn.execute(_SOURCES)},
        heartbeats={component: at for component, at, _ in beats},
        clock_offsets={component: offset for component, _, offset in beats},
    )
