"""Advisory locks, held by a connection of their own."""

from __future__ import annotations

import psycopg

from hub.errors import UnavailableError
from hub.store.database import Connection, Database

TRY_LOCK = "SELECT pg_try_advisory_lock(%s)"
_UNLOCK_ALL = "SELECT pg_advisory_unlock_all()"
_PING = "SELECT 1"


def release(conn: Connection) -> None:
    """Release every advisory lock of a connection and close it. Raises nothing.

    Closing alone would release them later: until the server notices, other processes are refused the lock.
    """
    try:
        conn.execute(_UNLOCK_ALL)
    except psycopg.Error:
        pass  # the connection is broken, so the server releases the locks
    finally:
        conn.close()


class Leadership:
    """Elects one process: the one that holds an advisory lock, on a connection that ends with the process.

    Args:
        number: the number of the lock.
    """

    def __init__(self, db: Database, number: int) -> None:
        self._db = db
        self._number = number
        self._conn: Connection | None = None

    def hold(self) -> bool:
        """Take or keep the lead; False: another process leads.

        Raises:
            UnavailableError: the database does not respond; this process no longer leads.
        """
        conn: Connection | None = None
        try:
            if self._conn is not None:
                self._conn.execute(_PING)
                return True
            conn = self._db.connect()
            row = conn.execute(TRY_LOCK, [self._number]).fetchone()
        except psycopg.Error as e:
            if conn is not None:
                conn.close()
            self.resign()
            raise UnavailableError(f"the database does not respond: {type(e).__name__}") from e
        if row and row[0]:
            self._conn = conn
            return True
        conn.close()
        return False

    def resign(self) -> None:
        """Give up the lead."""
        if self._conn is not None:
            release(self._conn)
            self._conn = None
