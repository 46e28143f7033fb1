"""Two PostgreSQL servers with streaming replication on 127.0.0.1: a primary, and a standby that can be promoted."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import psycopg

from hub.embedded.programs import ENV, binaries
from tests.support.rabbit import free_ports
from tests.support.waiting import eventually

_OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "wal_level": "replica",
    "max_wal_senders": "4",
    "max_connections": "60",
    "hot_standby": "on",
    "shared_buffers": "32MB",
    "wal_receiver_status_interval": "1",
    "fsync": "off",  # servers are killed, machines are not
}
# PostgreSQL refuses root; inside a user namespace root has another name, and the same access to files.
_PREFIX = [] if os.geteuid() else ["unshare", "-U", "--map-user=65534", "--map-group=65534"]


class Server:
    """One server. Its processes are in a session of their own, so that they can be paused together."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"postgresql://hub@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        options = _OPTIONS | {"port": str(self.port), "unix_socket_directories": str(self.folder)}
        command = [*_PREFIX, str(binaries() / "postgres"), "-D", str(self.folder)]
        command += [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, env=ENV, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        eventually(self.responds, what="PostgreSQL responds")

    def responds(self) -> bool:
        try:
            psycopg.connect(self.url, connect_timeout=2).close()
        except psycopg.Error:
            return False
        return True

    def execute(self, statement: str) -> list[tuple[object, ...]]:
        with psycopg.connect(self.url, autocommit=True, connect_timeout=5) as conn:
            cursor = conn.execute(statement.encode())
            return list(cursor.fetchall()) if cursor.description else []

    def promote(self) -> None:
        """Make a standby the primary."""
        self.execute("SELECT pg_promote(true, 30)")

    def pause(self) -> None:
        """Stop all processes: TCP keeps the connections, nothing responds."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL all processes."""
        self._signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait(30)

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def _signal(self, number: int) -> None:
        """To the postmaster and its children: each child is the leader of its own process group."""
        assert self._process is not None
        for pid in _session(self._process.pid):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass


def _session(leader: int) -> list[int]:
    """A process and its descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            continue
        children.setdefault(parent, []).append(int(entry.name))
    found = [leader]
    for pid in found:
        found += children.get(pid, [])
    return found


class Pair:
    """A primary and its standby, replicating; `url` names both.

    Args:
        synchronous: a commit waits for the standby.
    """

    def __init__(self, *, synchronous: bool = True) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="hub-test-pair-"))
        one, two = free_ports(2)
        self.primary = Server(self._folder / "one", one)
        self.standby = Server(self._folder / "two", two)
        self._synchronous = synchronous

    @property
    def url(self) -> str:
        return f"postgresql://hub@127.0.0.1:{self.primary.port},127.0.0.1:{self.standby.port}/postgres"

    def __enter__(self) -> Pair:
        try:
            _run("initdb", "-D", str(self.primary.folder), "-U", "hub", "-A", "trust", "-E", "UTF8", "--no-locale")
            self.primary.start()
            source = f"host=127.0.0.1 port={self.primary.port} user=hub application_name=standby"
            _run("pg_basebackup", "-D", str(self.standby.folder), "-R", "-c", "fast", "-d", source)
            self.standby.start()
            if self._synchronous:
                self.primary.execute("ALTER SYSTEM SET synchronous_standby_names = 'standby'")
                self.primary.execute("SELECT pg_reload_conf()")
            state = "sync" if self._synchronous else "async"
            eventually(lambda: self._state() == state, what=f"the standby is {state}")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.primary.close()
        self.standby.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def fail_over(self) -> None:
        """Promote the standby. It waits for no standby of its own."""
        self.standby.promote()

    def _state(self) -> object:
        rows = self.primary.execute("SELECT sync_state FROM pg_stat_replication WHERE state = 'streaming'")
        return rows[0][0] if rows else None


def _run(program: str, *arguments: str) -> None:
    command = [*_PREFIX, str(binaries() / program), *arguments]
    done = subprocess.run(command, env=ENV, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{program}: {done.stderr[-1000:]}")
