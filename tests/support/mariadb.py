"""A private MariaDB server from the installed programs: own port, own folder, no durability."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pymysql

from tests.support.rabbit import free_ports

MISSING = (
    "MariaDB is not installed: the tests of Moodle sources on it are skipped; install it:"
    " apt-get install mariadb-server   (its service need not run)"
)
_PATH = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
_KEEPER = Path(__file__).with_name("keeper.py")
_FAST = ["--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=64M", "--skip-log-bin", "--sync-binlog=0"]


def installed() -> bool:
    """Whether a server can be started."""
    return all(shutil.which(name, path=_PATH) for name in ("mariadbd", "mariadb-install-db"))


class MariaDbServer:
    """One server. `connect()` is its administrator."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="hub-test-mariadb-"))
        [self.port] = free_ports(1)
        self._keeper: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server and wait until it takes connections; the first time its tables are made."""
        data = self.folder / "data"
        user = ["--user=root"] if os.geteuid() == 0 else []
        where = ["--no-defaults", f"--datadir={data}", *user]
        with (self.folder / "output").open("ab") as output:
            if not data.exists():
                install = [self._program("mariadb-install-db"), *where, "--auth-root-authentication-method=normal"]
                if subprocess.run([*install, "--skip-test-db"], stdout=output, stderr=output, check=False).returncode:
                    raise RuntimeError(f"MariaDB's tables were not made:\n{(self.folder / 'output').read_text()}")
            socket = [
                f"--socket={self.folder / 's'}",
                f"--port={self.port}",
                f"--pid-file={self.folder / 'pid'}",
                "--bind-address=127.0.0.1",
            ]
            output.flush()
            self._begin = (self.folder / "output").stat().st_size
            command = [self._program("mariadbd"), *where, *socket, *_FAST]
            self._keeper = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_KEEPER), str(self.folder), *command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        deadline = time.monotonic() + 90
        while not self._answers():
            if self._keeper.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"MariaDB did not start:\n{(self.folder / 'output').read_text()}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        """Whether the server has said that it is ready: PyMySQL leaks the socket of a connection that is refused."""
        return "ready for connections" in (self.folder / "output").read_text(errors="replace")[self._begin :]

    def connect(self, database: str | None = None) -> pymysql.Connection:
        """A connection of the administrator, in autocommit; `begin()` opens a transaction."""
        return pymysql.connect(
            unix_socket=str(self.folder / "s"), user="root", database=database, charset="utf8mb4", autocommit=True
        )

    @property
    def pid(self) -> int:
        """The server's process, while it runs."""
        return int((self.folder / "pid").read_text())

    def stop(self) -> None:
        """Kill the server; committed rows stay, as far as its process had written them."""
        self._end(keep=True)

    def close(self) -> None:
        """Stop for good and remove the folder."""
        self._end(keep=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _end(self, *, keep: bool) -> None:
        keeper, self._keeper = self._keeper, None
        if keeper is None:
            return
        assert keeper.stdin is not None
        if keep:
            keeper.stdin.write(b"k")
        keeper.stdin.close()
        keeper.wait(timeout=30)

    @staticmethod
    def _program(name: str) -> str:
        found = shutil.which(name, path=_PATH)
        assert found, MISSING
        return found
