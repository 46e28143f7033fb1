"""PostgreSQL for tests: a private server, and a migrated database per test, cloned from a template."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import tempfile
import uuid
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from hub.embedded import PrivatePostgres
from hub.store.database import Database
from hub.store.migrate import migrate

_PREFIX = "hub-test-pg-"
_CLAIM = "claim.lock"
_FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "200"}


class PostgresServer:
    """A server of one's own. `url` stays the same over stop, kill and start; so does the data.

    Args:
        durable: False turns fsync off: faster, and safe against killed processes, not against power cuts.
        options: server settings over those.
    """

    def __init__(self, *, durable: bool = False, options: dict[str, str] | None = None) -> None:
        _sweep()
        self.folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        self._claim = (self.folder / _CLAIM).open("ab")  # a stopped server is still somebody's
        fcntl.flock(self._claim, fcntl.LOCK_EX)
        self._server = PrivatePostgres(self.folder, options=({} if durable else _FAST) | (options or {}))
        self.url = ""

    def start(self) -> None:
        """Start, and wait until it answers."""
        self.url = self._server.start()

    @property
    def pid(self) -> int:
        """The server's main process, while it runs."""
        assert self._server.pid is not None
        return self._server.pid

    def stop(self) -> None:
        """A fast shutdown: every session is cut off, what was committed stays."""
        self._server.stop()

    def kill(self) -> None:
        """SIGKILL the server's main process. Its guard starts it again within a second."""
        if pid := self._server.pid:
            os.kill(pid, signal.SIGKILL)

    def restart(self) -> None:
        """Stop and start."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop for good and remove the folder."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
        self._claim.close()


class Template:
    """A migrated database on `server_url` to clone test databases from (30 ms each)."""

    def __init__(self, server_url: str) -> None:
        self._url = server_url
        self._name = f"hubtest_{uuid.uuid4().hex[:10]}"
        self._execute("CREATE DATABASE {}", self._name)
        try:
            database = Database(self._at(self._name))
            try:
                migrate(database)
            finally:
                database.close()
        except BaseException:
            self.drop(self._name)
            raise

    def clone(self) -> tuple[str, str]:
        """Make a database; returns (name, URL)."""
        name = f"{self._name}_{uuid.uuid4().hex[:8]}"
        self._execute("CREATE DATABASE {} TEMPLATE {}", name, self._name)
        return name, self._at(name)

    def empty(self) -> tuple[str, str]:
        """Make a database without any table; returns (name, URL)."""
        name = f"{self._name}_{uuid.uuid4().hex[:8]}"
        self._execute("CREATE DATABASE {}", name)
        return name, self._at(name)

    def drop(self, name: str | None = None) -> None:
        """Drop a clone, or the template itself; whoever is connected is thrown out."""
        self._execute("DROP DATABASE IF EXISTS {} WITH (FORCE)", name or self._name)

    def _at(self, name: str) -> str:
        head, _, query = self._url.partition("?")
        scheme, _, rest = head.partition("://")
        return f"{scheme}://{rest.partition('/')[0]}/{name}" + (f"?{query}" if query else "")

    def _execute(self, statement: str, *names: str) -> None:
        with psycopg.connect(make_conninfo(self._url, connect_timeout=10), autocommit=True) as conn:
            conn.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


def _sweep() -> None:
    """Remove the folders of earlier runs that were killed; their servers have ended by themselves."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            with (folder / _CLAIM).open("rb") as claim, (folder / "postgres" / "users.lock").open("ab") as users:
                for lock in (claim, users):
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue
