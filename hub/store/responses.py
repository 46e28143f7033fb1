"""Inbound messages, stored in batches, under a lock that admits one run per service."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg

from hub.codec import dumps
from hub.domain.text import storable
from hub.errors import PayloadError, UnavailableError
from hub.models import JSON, Service
from hub.store.database import Connection, Database
from hub.store.locks import release

_LOCK_CLASS = 0x48554252  # class of the advisory locks on services
MARK = 16  # bytes of the digest that identifies a message
_COPY = """
COPY deliveries (direction, service_id, service, success, task_id, event, endpoint, outcome, error, response_body,
    properties, raw) FROM STDIN
"""
# A response may arrive before the outcome of its task is recorded, after the task was delivered, or after it died.
_DEPTHS = """
SELECT t.id, e.depth, t.service_id FROM tasks t JOIN events e ON e.id = t.event_id WHERE t.id = ANY(%(ids)s)
UNION ALL
SELECT d.task_id, coalesce(e.depth, 0), d.service_id FROM deliveries d LEFT JOIN events e ON e.id = d.event_id
WHERE d.task_id = ANY(%(ids)s) AND d.direction = 'outbound'
UNION ALL
SELECT task_id, event_depth, service_id FROM dead_letters WHERE task_id = ANY(%(ids)s)
"""
_TRY_LOCK = "SELECT pg_try_advisory_lock(%s, %s)"
_LAST_BATCH = "SELECT last_batch FROM consumer_state WHERE service_id = %s"
_BATCH = """
INSERT INTO consumer_state (service_id, last_batch) VALUES (%s, %s)
ON CONFLICT (service_id) DO UPDATE SET last_batch = excluded.last_batch
"""
_SUCCEEDED = """
INSERT INTO consumer_state (service_id, last_success_at) VALUES (%s, clock_timestamp())
ON CONFLICT (service_id) DO UPDATE SET last_success_at = excluded.last_success_at, last_error = NULL,
    last_error_at = NULL
"""
_FAILED = """
INSERT INTO consumer_state (service_id, last_error, last_error_at) VALUES (%s, %s, clock_timestamp())
ON CONFLICT (service_id) DO UPDATE SET last_error = excluded.last_error, last_error_at = excluded.last_error_at
"""


@dataclass(slots=True)
class Inbound:
    """A message as a row of the delivery log. One that is not JSON is not a success and has `raw` and `error`."""

    properties: dict[str, JSON]
    success: bool = True
    outcome: str = "success"
    error: str | None = None
    body: str | None = None
    raw: bytes | None = None
    task_id: int | None = None
    event: str | None = None


class Responses:
    """Writes inbound messages and the state of consumption."""

    def __init__(self, db: Database) -> None:
        self._db = db

    @contextmanager
    def alone(self, service: Service) -> Iterator[Session | None]:
        """Take the lock for consuming the response queue of a service; None: another run has it.

        The lock and the writes share one connection, so a run that lost the lock cannot store anything.

        Raises:
            UnavailableError: the database does not respond.
        """
        conn = self._db.connect()
        try:
            with _available():
                row = conn.execute(_TRY_LOCK, [_LOCK_CLASS, service.id]).fetchone()
            yield Session(conn, service) if row is not None and row[0] else None
        finally:
            release(conn)

    def succeeded(self, service_id: int) -> None:
        """Record that the queue was read without an error."""
        self._db.run(_SUCCEEDED, [service_id])

    def failed(self, service_id: int, error: str) -> None:
        """Record an error, which is shown on the page of the service."""
        self._db.run(_FAILED, [service_id, storable(error)])


class Session:
    """One run over the response queue of a service."""

    def __init__(self, conn: Connection, service: Service) -> None:
        self._conn = conn
        self._service = service
        self._service_id = service.id

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A transaction for one batch; raises `UnavailableError`."""
        with _available(), self._conn.transaction():
            yield self._conn

    def last_batch(self) -> set[bytes]:
        """Digests of the batch that was stored last; it may not have been acknowledged."""
        with _available():
            row = self._conn.execute(_LAST_BATCH, [self._service_id]).fetchone()
        marks = bytes(row[0] or b"") if row else b""
        return {marks[i : i + MARK] for i in range(0, len(marks), MARK)}

    def remember(self, marks: Sequence[bytes]) -> None:
        """Store the digests of this batch, within its transaction."""
        self._conn.execute(_BATCH, [self._service_id, b"".join(marks)])

    def depths(self, task_ids: Sequence[int]) -> tuple[dict[int, int], set[int]]:
        """Return the depth of each task in its chain of events, and the tasks that belong to this service.

        Unknown tasks are left out. The depth counts for every service, so that a chain cannot avoid its limit by
        the queue of another service.
        """
        found: dict[int, int] = {}
        own: set[int] = set()
        if task_ids:
            for task_id, depth, service_id in self._conn.execute(_DEPTHS, {"ids": list(task_ids)}).fetchall():
                found[task_id] = max(depth, found.get(task_id, 0))
                if service_id == self._service_id:
                    own.add(task_id)
        return found, own

    def add(self, rows: Sequence[Inbound]) -> None:
        """Store messages, within the transaction. A row that PostgreSQL refuses is stored as bytes, with the reason."""
        try:
            with self._conn.transaction():
                self._copy(rows)
        except psycopg.DataError:
            for row in rows:
                try:
                    with self._conn.transaction():
                        self._copy([row])
                except psycopg.DataError as e:
                    if row.raw is None and row.body is not None:
                        row.raw = row.body.encode("utf-8", "surrogatepass")
                    row.success, row.outcome, row.body, row.properties = False, "malformed", None, {"unusable": True}
                    row.error = storable(f"the database refused it: {str(e).splitlines()[0]}")
                    self._copy([row])

    def _copy(self, rows: Sequence[Inbound]) -> None:
        service_id, service, queue = self._service_id, self._service.name, self._service.response_queue
        with self._conn.cursor() as cur, cur.copy(_COPY) as copy:
            for r in rows:
                copy.write_row(
                    (
                        "inbound",
                        service_id,
                        service,
                        r.success,
                        r.task_id,
                        r.event,
                        queue,
                        r.outcome,
                        r.error,
                        r.body,
                        _json_text(r.properties),
                        r.raw,
                    )
                )


def _json_text(properties: dict[str, JSON]) -> str:
    try:
        return dumps(properties)
    except PayloadError as e:
        return dumps({"unusable": str(e)})


@contextmanager
def _available() -> Iterator[None]:
    try:
        yield
    except (psycopg.OperationalError, psycopg.InterfaceError) as e:
        raise UnavailableError(f"the database does not respond: {str(e).strip().splitlines()[0]}") from e
