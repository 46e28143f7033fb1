"""The delivery log: one row per attempt that ended and per inbound message."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterable

from hub.domain.text import bounded, storable
from hub.models import Delivery
from hub.store.database import Connection, Database

# One JSON text for a whole batch costs a fifth of an array per column to encode, and no more to read.
COLUMNS = (
    "direction, service_id, service, success, task_id, rule_id, event_id, event, endpoint, method, attempt, tries,"
    " status, latency_ms, outcome, error, request_body, response_body, properties,"
    " host, pid"
)
ROWS = (
    "json_to_recordset(%(rows)s::json) AS d(direction text, service_id bigint, service text, success boolean,"
    " task_id bigint, rule_id bigint, event_id bigint, event text, endpoint text, method text, attempt smallint,"
    " tries smallint, status smallint, latency_ms real, outcome text, error text, request_body text,"
    " response_body text, properties jsonb, host text, pid integer)"
)
_INSERT = f"INSERT INTO deliveries ({COLUMNS}) SELECT {COLUMNS} FROM {ROWS} RETURNING id".encode()  # noqa: S608 - constants
_FIELDS = tuple(name.strip() for name in COLUMNS.split(",") if name.strip() not in ("host", "pid"))
_TEXTS = frozenset({"service", "event", "endpoint", "method", "error", "request_body", "response_body"})
_MAX_TEXT = 8192  # characters of a text other than a body
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def rows(deliveries: Iterable[Delivery], limit: int) -> str:
    """The parameter of `ROWS`; bodies are cut to `limit` characters, other texts to 8192."""
    found = []
    process = {"host": socket.gethostname(), "pid": os.getpid()}
    for d in deliveries:
        row = {name: value for name in _FIELDS if (value := getattr(d, name)) is not None} | process
        for name in _TEXTS & row.keys():
            row[name] = storable(bounded(row[name], limit if name.endswith("_body") else _MAX_TEXT))
        found.append(row)
    return _encode(found)


class DeliveryLog:
    """Writes deliveries that belong to no task. The ledger writes the others together with the outcome of the task."""

    def __init__(self, db: Database, *, body_limit: int) -> None:
        self._db = db
        self.body_limit = body_limit

    def add(self, deliveries: list[Delivery], conn: Connection | None = None) -> list[int]:
        """Log deliveries, within `conn`'s transaction if given. Returns their ids in order."""
        if not deliveries:
            return []
        params = {"rows": rows(deliveries, self.body_limit)}
        if conn is not None:
            return [row[0] for row in conn.execute(_INSERT, params).fetchall()]
        with self._db.autocommit() as own:
            return [row[0] for row in own.execute(_INSERT, params).fetchall()]
