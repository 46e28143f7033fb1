"""The delivery log: one row per attempt that ended and per message that came in."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from psycopg.types.json import Jsonb

from hub.models import Delivery
from hub.store.database import Connection, Database
from hub.transports.base import bounded

# The columns of a delivery as parallel arrays, so that one statement logs a whole batch.
COLUMNS = (
    "direction, service_id, service, success, task_id, rule_id, event_id, event, endpoint, method, attempt, tries,"
    " status, latency_ms, outcome, error, request_body, response_body, properties"
)
UNNEST = (
    "unnest(%(direction)s::text[], %(service_id)s::bigint[], %(service)s::text[], %(success)s::boolean[],"
    " %(task_id)s::bigint[], %(rule_id)s::bigint[], %(event_id)s::bigint[], %(event)s::text[], %(endpoint)s::text[],"
    " %(method)s::text[], %(attempt)s::smallint[], %(tries)s::smallint[], %(status)s::smallint[],"
    " %(latency_ms)s::real[], %(outcome)s::text[], %(error)s::text[], %(request_body)s::text[],"
    " %(response_body)s::text[], %(properties)s::jsonb[])"
    f" AS d({COLUMNS})"
)
_FIELDS = tuple(name.strip() for name in COLUMNS.split(","))
_TEXTS = {"service", "event", "endpoint", "method", "error", "request_body", "response_body"}


def clean(text: str | None) -> str | None:
    """Text as PostgreSQL takes it: no NUL, no half surrogate pairs."""
    if text is None:
        return None
    if "\x00" in text:
        text = text.replace("\x00", "\ufffd")
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-8", "replace").decode()
    return text


def arrays(deliveries: Iterable[Delivery], limit: int) -> dict[str, list[Any]]:
    """Parameters for `UNNEST`; bodies are cut to `limit` characters."""
    columns: dict[str, list[Any]] = {name: [] for name in _FIELDS}
    for d in deliveries:
        for name in _FIELDS:
            value = getattr(d, name)
            if name in _TEXTS:
                value = clean(bounded(value, limit) if name.endswith("_body") else value)
            elif name == "properties" and value is not None:
                value = Jsonb(value)
            columns[name].append(value)
    return columns


class DeliveryLog:
    """Writes deliveries that belong to no task; the ledger writes those that do, with the task's end."""

    def __init__(self, db: Database, *, body_limit: int) -> None:
        self._db = db
        self.body_limit = body_limit

    def add(self, deliveries: list[Delivery], conn: Connection | None = None) -> list[int]:
        """Log; within `conn`'s transaction if given. Returns their ids in order."""
        if not deliveries:
            return []
        sql = f"INSERT INTO deliveries ({COLUMNS}) SELECT {COLUMNS} FROM {UNNEST} RETURNING id"  # noqa: S608 - constants
        params = arrays(deliveries, self.body_limit)
        if conn is not None:
            return [row[0] for row in conn.execute(sql.encode(), params).fetchall()]
        with self._db.autocommit() as own:
            return [row[0] for row in own.execute(sql.encode(), params).fetchall()]
