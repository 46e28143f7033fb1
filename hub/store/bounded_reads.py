"""Statements of a person's search: on a connection of its own, with time limits, and cancellable between statements."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, LiteralString

from psycopg import errors as pg
from psycopg.rows import dict_row

from hub.errors import UnavailableError
from hub.store.database import Connection, Database, Row
from hub.store.locks import release

STATEMENT_SECONDS = 5
"""Most seconds of one statement."""

_SETTINGS = "SELECT set_config('statement_timeout', %s, false), set_config('enable_seqscan', 'off', false)"
_LOCK = "SELECT pg_try_advisory_lock(%s, hashtext(%s)) AS held"


class BoundedReads:
    """A context manager; its connection, and so its lock, ends with the block.

    Args:
        seconds: after which no further statement begins.
        cancelled: asked before each statement.
    """

    def __init__(self, db: Database, *, seconds: float, cancelled: Callable[[], bool] = lambda: False) -> None:
        self._db = db
        self._until = time.monotonic() + seconds
        self._cancelled = cancelled
        self._begun = False

    def __enter__(self) -> BoundedReads:
        self._conn: Connection = self._db.connect()
        self._conn.execute(_SETTINGS, [f"{STATEMENT_SECONDS}s"])
        return self

    def __exit__(self, *_: object) -> None:
        release(self._conn)

    def goes_on(self) -> bool:
        """Whether there is time for another statement; there always is for the first one."""
        first, self._begun = not self._begun, True
        return not self._cancelled() and (first or time.monotonic() < self._until)

    def lock(self, kind: int, name: str) -> bool:
        """Take a lock until the end; False: another connection holds it."""
        with self._conn.cursor(row_factory=dict_row) as cur:
            row = cur.execute(_LOCK, [kind, name]).fetchone()
        return bool(row and row["held"])

    def all(self, sql: LiteralString, params: Mapping[str, Any]) -> list[Row]:
        """All rows; raises `UnavailableError`, also when the statement takes too long."""
        try:
            with self._conn.cursor(row_factory=dict_row) as cur:
                return cur.execute(sql, params).fetchall()
        except (pg.OperationalError, pg.InterfaceError) as e:
            raise UnavailableError(f"the database does not respond: {str(e).splitlines()[0]}") from e

    def try_all(self, sql: LiteralString, params: Mapping[str, Any]) -> list[Row] | None:
        """All rows; None: the statement took too long."""
        try:
            return self.all(sql, params)
        except UnavailableError as e:
            if isinstance(e.__cause__, pg.QueryCanceled):
                return None
            raise
