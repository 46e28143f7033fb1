"""A private PgBouncer in front of a test's PostgreSQL."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from psycopg.conninfo import conninfo_to_dict

from tests.support.rabbit import free_ports
from tests.support.waiting import eventually

MISSING = "no PgBouncer: its tests are skipped; install it: apt-get install pgbouncer"
_CONFIG = """
[databases]
* = host={host} port={port} user={user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = 10
max_client_conn = 200
logfile = {folder}/log
pidfile = {folder}/pid
"""


def program() -> str | None:
    """The path of `pgbouncer`."""
    return shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")


@contextmanager
def pgbouncer(database_url: str, mode: str) -> Iterator[str]:
    """Run a PgBouncer with `pool_mode` of `mode`; gives the URL of the same database through it."""
    server = conninfo_to_dict(database_url)
    folder = Path(tempfile.mkdtemp(prefix="hub-test-pgbouncer-"))
    (listen,) = free_ports(1)
    (folder / "ini").write_text(
        _CONFIG.format(
            host=server["host"],
            port=server.get("port", 5432),
            user=server.get("user", "hub"),
            listen=listen,
            mode=mode,
            folder=folder,
        )
    )
    # It refuses to run as root; inside a user namespace root has another name, and the same access to files.
    prefix = [] if os.geteuid() else ["unshare", "-U", "--map-user=65534", "--map-group=65534"]
    command = [*prefix, program() or "pgbouncer", str(folder / "ini")]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: _listens(listen), what="PgBouncer listens")
        yield f"postgresql://hub@127.0.0.1:{listen}/{quote(str(server['dbname']))}"
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _listens(port: int) -> bool:
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0
