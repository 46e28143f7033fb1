"""Connection poolers between the hub and PostgreSQL: detects those that share server sessions.

A pooler in session mode gives each client connection its own server session. One in transaction or statement mode
(PgBouncer's `pool_mode`) runs the statements of one connection in changing sessions: advisory locks, LISTEN, session
settings and prepared statements do not work. The hub then needs a second URL, `HUB_DATABASE_DIRECT_URL`, that leads to
the server itself.
"""

from __future__ import annotations

import uuid
from contextlib import closing

import psycopg

from hub.errors import ConfigError
from hub.store.database import Connection, Database, unavailable

_PID = "SELECT pg_backend_pid()"
_MARK = "SELECT set_config('hub.session', %s, false)"
_READ = "SELECT current_setting('hub.session', true)"
_IDENTITY = "SELECT system_identifier, current_database() FROM pg_control_system()"
_ROUNDS = 3  # under load another client may take the marked session between two statements


def check_pooler(db: Database) -> None:
    """Check that session features have a connection of their own.

    Raises:
        ConfigError: `HUB_DATABASE_URL` leads to a pooler in transaction mode and there is no direct URL, or the direct
            URL leads to another database.
        UnavailableError: the database does not respond.
    """
    try:
        if db.direct_url is not None:
            with closing(db.connect()) as direct, db.autocommit() as pooled:
                if _value(direct, _IDENTITY) != _value(pooled, _IDENTITY):
                    raise ConfigError(
                        "leads to another database than HUB_DATABASE_URL", field="HUB_DATABASE_DIRECT_URL"
                    )
        elif shares_sessions(db):
            raise ConfigError(
                "leads to a connection pooler in transaction mode (PgBouncer: pool_mode=transaction); set"
                " HUB_DATABASE_DIRECT_URL to the URL of the PostgreSQL server itself, or use pool_mode=session",
                field="HUB_DATABASE_URL",
            )
    except psycopg.errors.InsufficientPrivilege:
        pass  # a managed server that does not show its identity
    except psycopg.Error as e:
        raise unavailable(e) from e


def shares_sessions(db: Database) -> bool:
    """Whether two connections of the hub can run in one server session.

    A pooler has backend ids of its own. Behind one, a session is marked by one connection and looked for by another:
    a pooler in transaction mode gives the second connection the session that the first has just left, or gives the
    first one another session afterwards.
    """
    with closing(db.connect()) as first:
        if first.info.backend_pid == _value(first, _PID)[0]:
            return False
        with closing(db.connect()) as second:
            mark = uuid.uuid4().hex
            for _ in range(_ROUNDS):
                first.execute(_MARK, [mark])
                if _value(second, _READ)[0] == mark or _value(first, _READ)[0] != mark:
                    return True
    return False


def _value(conn: Connection, statement: str) -> tuple[object, ...]:
    row = conn.execute(statement.encode()).fetchone()
    assert row is not None
    return tuple(row)
