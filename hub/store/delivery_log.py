"""The delivery log: one row per attempt that ended and per message that came in."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterable

from hub.models import Delivery
from hub.store.database import Connection, Database
from hub.transports.base import bounded

# One JSON text for a whole batch: a fifth of what an array per column costs to make, and no more to read.
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
_FIELDS = tuple(name.strip() for name in COLUMNS.split(",") if name.strip() not in ("host", "pid"))
_TEXTS = frozenset({"service", "event", "endpoint", "method", "error", "request_body", "response_body"})
_MOST = 8192  # characters of a text that is no body: an endpoint, an error
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


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


def rows(deliveries: Iterable[Delivery], limit: int) -> str:
    """The parameter of `ROWS`; bodies are cut to `limit` characters, other texts to 8192."""
    found = []
    process = {"host": socket.gethostname(), "pid": os.getpid()}
    for d in deliveries:
        row = {name: value for name in _FIELDS if (value := getattr(d, name)) is not None} | process
        for name in _TEXTS & row.keys():
            row[name] = clean(bounded(row[name], limit if name.endswith("_body") else _MOST))
        found.append(row)
    return _encode(found)


class DeliveryLog:
    """Writes deliveries that belong to no task; the ledger writes those that do, with the task's end."""

    def __init__(self, db: Database, *, body_limit: int) -> None:
        self._db = db
        self.body_limit = body_limit

    def add(self, deliveries: list[Delivery], conn: Connection | None = None) -> list[int]:
        """Log; within `conn`'s transaction if given. Returns their ids in order."""
        if not deliveries:
            return []
        sql = f"INSERT INTO deliveries ({COLUMNS}) SELECT {COLUMNS} FROM {ROWS} RETURNING id"  # noqa: S608 - constants
        params = {"rows": rows(deliveries, self.body_limit)}
        if conn is not None:
            return [row[0] for row in conn.execute(sql.encode(), params).fetchall()]
        with self._db.autocommit() as own:
            return [row[0] for row in own.execute(sql.encode(), params).fetchall()]
