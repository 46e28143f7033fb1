"""The connection pool, transactions, and the mapping of PostgreSQL's errors to those of the hub."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, LiteralString, TypeAlias
from weakref import WeakKeyDictionary, WeakSet

import psycopg
from psycopg import errors as pg
from psycopg.rows import TupleRow, dict_row
from psycopg_pool import ConnectionPool, PoolTimeout

from hub.errors import ConfigError, ConflictError, UnavailableError
from hub.store.servers import Servers

_PING: LiteralString = "SELECT 1 AS x"
_TRUSTED = 1.0  # seconds for which a connection that worked is not checked again

Connection: TypeAlias = psycopg.Connection[TupleRow]
Row: TypeAlias = dict[str, Any]


def unavailable(e: psycopg.Error) -> UnavailableError:
    """The hub's error for a database that cannot be used now."""
    what = "the database's disk is full" if isinstance(e, pg.DiskFull) else "the database does not respond"
    return UnavailableError(f"{what}: {_first_line(e)}")


def _first_line(e: BaseException) -> str:
    return re.sub(r"://[^@/\s]*@", "://***@", str(e).strip().split("\n")[0]) or type(e).__name__


# A server that became a read-only standby counts as unavailable: the next connection may reach the new primary.
_UNAVAILABLE = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    PoolTimeout,
    pg.AdminShutdown,
    pg.ReadOnlySqlTransaction,
)
# A peer that vanished without a reset is noticed in about ten seconds. Seconds; the last value is in milliseconds. A
# parameter of the same name in the URL takes precedence.
_NETWORK = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 8_000,
}
# Limits of pooled connections. They release the locks of a process that hangs; no statement of the hub comes near them.
# `options=-c statement_timeout=...` in the URL takes precedence.
_SERVER = {"statement_timeout": "300s", "lock_timeout": "30s", "idle_in_transaction_session_timeout": "300s"}


def _check(conn: Connection) -> None:
    """Check a connection before it is used. That costs a round trip, so not while it is in steady use."""
    now = time.monotonic()
    if now - _seen.get(conn, 0.0) > _TRUSTED:
        ConnectionPool.check_connection(conn)
    _seen[conn] = now


_seen: WeakKeyDictionary[Connection, float] = WeakKeyDictionary()


def _client_options(url: str, field: str, timeout: float) -> tuple[dict[str, Any], str]:
    """Connection parameters that `url` does not set itself, and its `options`."""
    try:
        own = psycopg.conninfo.conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        raise ConfigError("not a PostgreSQL URL; expected postgresql://user:password@host/name", field=field) from None
    network: dict[str, Any] = _NETWORK | {"connect_timeout": max(2, min(_NETWORK["connect_timeout"], int(timeout)))}
    options: dict[str, Any] = {"autocommit": True, "application_name": "hub"}
    if "," in str(own.get("host") or ""):
        network["target_session_attrs"] = "read-write"  # of several servers, the primary
    options |= {name: value for name, value in network.items() if name not in own}
    return options, str(own.get("options") or "")


@contextmanager
def _writable(conn: Connection) -> Iterator[None]:
    """Close the connection to a server that became read-only, else the pool would use it again."""
    try:
        yield
    except pg.ReadOnlySqlTransaction:
        conn.close()
        raise


class Database:
    """A pool of connections to one PostgreSQL.

    Args:
        url: `postgresql://` URL or libpq string.
        direct_url: for advisory locks, LISTEN and migrations, when `url` leads to a pooler in transaction mode; see
            `hub.store.pooler`. Pooled connections then have no prepared statements and no session settings.
        size: most connections of this process.
        timeout: seconds to wait for a free connection or for the server.
    """

    def __init__(self, url: str, *, direct_url: str | None = None, size: int = 8, timeout: float = 10.0) -> None:
        self.direct_url = direct_url
        self._url = url
        self._timeout = timeout
        self._options, own_options = _client_options(url, "HUB_DATABASE_URL", timeout)
        self._server = {name: value for name, value in _SERVER.items() if name not in own_options}
        self._direct_options = self._options
        if direct_url is not None:
            self._direct_options, _ = _client_options(direct_url, "HUB_DATABASE_DIRECT_URL", timeout)
            self._options["prepare_threshold"] = None
            self._server = {}
        self.servers = Servers(direct_url or url, self._direct_options)
        self._lock = threading.Lock()
        self._connections: WeakSet[Connection] = WeakSet()
        self.pool: ConnectionPool[Connection] = ConnectionPool(
            url,
            min_size=1,
            max_size=size,
            timeout=timeout,
            max_idle=120,
            open=False,
            kwargs=self._options,
            configure=self._configure,
            check=_check,
            reconnect_timeout=5,
        )
        self._mine = threading.local()

    def _configure(self, conn: Connection) -> None:
        """Set the server's limits on a new connection. By a statement: poolers refuse unknown start-up parameters."""
        self._track(conn)
        if self._server:
            calls = ", ".join(["set_config(%s, %s, false)"] * len(self._server))
            conn.execute(f"SELECT {calls}".encode(), [part for pair in self._server.items() for part in pair])

    def _track(self, conn: Connection) -> None:
        with self._lock:
            self._connections.add(conn)

    def connections(self) -> list[Connection]:
        """The open connections of this process, those outside the pool included."""
        with self._lock:
            return [conn for conn in self._connections if not conn.closed]

    def choose_servers(self) -> None:
        """Open new pooled connections to the servers that `servers` prefers now."""
        if self.direct_url is None:
            self.pool.kwargs = self._options | self.servers.preference()

    def open(self) -> None:
        """Open the pool; the first connection is made when it is needed. An old primary is left aside."""
        if self.servers.several and self.servers.survey() and self.direct_url is None:
            self.pool.kwargs = self._options | self.servers.preference()
        self.pool.open(wait=False)

    def close(self) -> None:
        """Close every connection."""
        self.pool.close(timeout=2)

    def ping(self) -> None:
        """Raise `UnavailableError` unless the database responds to a query."""
        self.one(_PING)

    def usage(self) -> tuple[int, int]:
        """Connections in use, and how many there may be."""
        stats = self.pool.get_stats()
        return stats.get("pool_size", 0) - stats.get("pool_available", 0), self.pool.max_size

    def connect(self) -> Connection:
        """Open a connection outside the pool, for LISTEN and advisory locks; autocommit."""
        try:
            options = self._direct_options | self.servers.preference()
            conn: Connection = psycopg.connect(self.direct_url or self._url, **options)
        except psycopg.Error as e:
            raise unavailable(e) from e
        self._track(conn)
        return conn

    @contextmanager
    def together(self) -> Iterator[None]:
        """Run everything that this thread does inside the block in one transaction. May be nested."""
        if self.joined:
            yield
            return
        with self.transaction() as conn:
            self._mine.conn = conn
            try:
                yield
            finally:
                self._mine.conn = None

    @property
    def joined(self) -> bool:
        """Whether this thread is inside `together`."""
        return getattr(self._mine, "conn", None) is not None

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        if self.joined:
            yield self._mine.conn
            return
        with self.pool.connection() as conn, _writable(conn):
            yield conn

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A transaction, rolled back when the block raises.

        Raises:
            UnavailableError: the server does not respond. The commit may or may not have happened.
            ConflictError: a unique name is taken.
        """
        try:
            if self.joined:  # a failure inside fails all of it, so no savepoint is needed
                yield self._mine.conn
                return
            with self._connection() as conn, conn.transaction():
                yield conn
        except _UNAVAILABLE as e:
            raise unavailable(e) from e
        except pg.UniqueViolation as e:
            raise ConflictError("it exists already") from e

    @contextmanager
    def autocommit(self) -> Iterator[Connection]:
        """A connection for one statement, without BEGIN and COMMIT."""
        try:
            with self._connection() as conn:
                yield conn
        except _UNAVAILABLE as e:
            raise unavailable(e) from e
        except pg.UniqueViolation as e:
            raise ConflictError("it exists already") from e

    def all(self, sql: LiteralString, params: Sequence[Any] | dict[str, Any] = ()) -> list[Row]:
        """All rows of one statement as dictionaries."""
        with self.autocommit() as conn, conn.cursor(row_factory=dict_row) as cur:
            return cur.execute(sql, params).fetchall()

    def one(self, sql: LiteralString, params: Sequence[Any] | dict[str, Any] = ()) -> Row | None:
        """The first row of one statement, or None."""
        with self.autocommit() as conn, conn.cursor(row_factory=dict_row) as cur:
            return cur.execute(sql, params).fetchone()

    def run(self, sql: LiteralString, params: Sequence[Any] | dict[str, Any] = ()) -> int:
        """Execute one statement. Returns the number of rows that it changed."""
        with self.autocommit() as conn:
            return conn.execute(sql, params).rowcount
