"""Locks that a connection of one's own holds for as long as a run takes."""

from __future__ import annotations

import psycopg

from hub.errors import UnavailableError
from hub.store.database import Connection, Database


def release(conn: Connection) -> None:
    """Give back every advisory lock of a connection, and close it. Raises nothing.

    Closing alone would do, a moment later: the server notices when it notices, and who asks for the lock
    before that is refused.
    """
    try:
        conn.execute("SELECT pg_advisory_unlock_all()")
    except psycopg.Error:
        pass  # it is broken, so the locks are gone or will be
    finally:
        conn.close()


class Leadership:
    """One process at a time leads: it holds an advisory lock on a connection that ends with it.

    Args:
        number: the lock.
    """

    def __init__(self, db: Database, number: int) -> None:
        self._db = db
        self._number = number
        self._conn: Connection | None = None

    def hold(self) -> bool:
        """Lead, or go on leading; False: another process does.

        Raises:
            UnavailableError: the database does not answer; the lead, if it was ours, is lost.
        """
        conn: Connection | None = None
        try:
            if self._conn is not None:
                self._conn.execute("SELECT 1")
                return True
            conn = self._db.connect()
            row = conn.execute("SELECT pg_try_advisory_lock(%s)", [self._number]).fetchone()
        except psycopg.Error as e:
            if conn is not None:
                conn.close()
            self.resign()
            raise UnavailableError(f"the database does not answer: {type(e).__name__}") from e
        if row and row[0]:
            self._conn = conn
            return True
        conn.close()
        return False

    def resign(self) -> None:
        """Lead no more."""
        if self._conn is not None:
            release(self._conn)
            self._conn = None
