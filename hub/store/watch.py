"""Watches the connections of a process: leaves a PostgreSQL server that stopped responding or is no longer primary.

A server that was paused, or whose machine was cut off behind a proxy, sends no reset, and TCP keeps the connection: a
statement would wait without a limit. So while a statement takes long, the watch opens a new connection to the same
server. If that fails too, the connections that wait for the server are ended; the pool then tries the other hosts.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from weakref import WeakSet

import psycopg
import structlog
from psycopg.pq import TransactionStatus

from hub.store.database import Connection
from hub.store.servers import Server, Servers

log = structlog.get_logger("hub.store.watch")
_EVERY = 0.5  # seconds between two checks
_LONG = 2.0  # seconds of a statement after which its server is probed
_AGAIN = 5.0  # seconds before a server that responded is probed again
_PROBES = 3  # failed probes after which the only server of a URL is left; of several servers, one is enough
_SURVEY = 5.0  # seconds between two surveys of all servers


class ServerWatch:
    """One thread per process.

    Args:
        connections: all open connections of the process.
        changed: called when new connections must go to other servers.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        servers: Servers,
        connections: Callable[[], list[Connection]],
        changed: Callable[[], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._servers = servers
        self._connections = connections
        self._changed = changed
        self._clock = clock
        self._active: dict[Connection, float] = {}  # connection -> when its statement was first seen
        self._probe_at: dict[Server, float] = {}
        self._failed: dict[Server, int] = {}
        self._ended: WeakSet[Connection] = WeakSet()
        self._surveyed_at = float("-inf")
        self._reported: frozenset[Server] = frozenset()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread. Calling it again changes nothing."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="hub-servers", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop the thread; a probe in progress is not waited for."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(_EVERY):
            try:
                self.check()
            except Exception:
                log.exception("database servers not checked; tried again")

    def check(self) -> None:
        """One round: probe the servers of long statements, and survey the servers of a URL with several hosts."""
        now = self._clock()
        for server in self._long(now):
            if self._unresponsive(server, now):
                self._servers.try_last(server)
                self._changed()
                self._leave(server, "a database server does not respond; its connections are ended")
        if self._servers.several and now - self._surveyed_at >= _SURVEY:
            self._surveyed_at = now
            if self._servers.survey():
                self._changed()
        for host, port in self._servers.stale - self._reported:
            log.error("an old primary still accepts writes; the hub leaves it", host=host, port=port)
        self._reported = self._servers.stale
        for server in self._servers.stale:  # each time: a connection may have been opened meanwhile
            self._leave(server, "connections to an old primary are ended")

    def _unresponsive(self, server: Server, now: float) -> bool:
        """Probe a server, unless it has responded a moment ago."""
        if now < self._probe_at.get(server, float("-inf")):
            return False
        if self._servers.responds(server):
            self._probe_at[server] = now + _AGAIN
            self._failed.pop(server, None)
            return False
        failed = self._failed[server] = self._failed.get(server, 0) + 1
        if failed < (1 if self._servers.several else _PROBES):
            return False
        del self._failed[server]
        return True

    def _long(self, now: float) -> set[Server]:
        """The servers whose statements take long. Samples: a fast series of statements counts too; a probe is cheap."""
        active = {c: self._active.get(c, now) for c in self._connections() if _is_active(c)}
        self._active = active
        return {found for c, since in active.items() if now - since >= _LONG and (found := _server(c)) is not None}

    def _leave(self, server: Server, text: str) -> None:
        ended = [c for c in self._connections() if _server(c) == server and c not in self._ended]
        for conn in ended:
            _end(conn)
            self._ended.add(conn)
            self._active.pop(conn, None)
        if ended:
            log.warning(text, host=server[0], port=server[1], connections=len(ended))


def _is_active(conn: Connection) -> bool:
    return not conn.closed and conn.pgconn.transaction_status == TransactionStatus.ACTIVE


def _server(conn: Connection) -> Server | None:
    try:
        return None if conn.closed else (conn.info.host, str(conn.info.port))
    except psycopg.Error:
        return None


def _end(conn: Connection) -> None:
    """Shut the socket down: the only way to interrupt another thread that waits for the server."""
    try:
        with socket.socket(fileno=os.dup(conn.fileno())) as sock:
            sock.shutdown(socket.SHUT_RDWR)
    except (OSError, psycopg.Error):
        pass  # it has ended
