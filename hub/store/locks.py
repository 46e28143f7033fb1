"""Locks that a connection of one's own holds for as long as a run takes."""

from __future__ import annotations

import psycopg

from hub.store.database import Connection


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
