"""The guard of embedded mode's PostgreSQL: runs the server while a process uses it.

A separate script that needs only the standard library (`python -I -S guard.py ROOT -- COMMAND...`), because it
outlives the process that started it: a killed `hub up` cannot stop its server, but the kernel releases its lock on
`users.lock`, which the guard waits for. The guard restarts a killed server, and reaps it, so that no zombie is left.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

OTHER_GUARD = 3
_QUICK = 2.0  # seconds; a server that ends sooner has not started
_QUICK_ENDS = 4  # consecutive quick ends after which the guard gives up


def postmaster_pid(data: Path) -> int | None:
    """The process id in `postmaster.pid`, or None."""
    try:
        return int((data / "postmaster.pid").read_text().split("\n", 1)[0])
    except (OSError, ValueError):
        return None


def _works_in(data: Path) -> set[int]:
    """The processes whose working directory is `data`: a postmaster and its backends."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cwd").readlink() == data:
                found.add(int(entry.name))
        except OSError:
            continue
    return found


def _clear_stale_lock(data: Path) -> None:
    """Remove the lock files of a killed server whose process id now belongs to another program.

    PostgreSQL recognises a stale lock unless the process id is in use again, which is common in a restarted
    container. The files stay while a backend of the server is alive: they prevent a second server on the same data.
    """
    pid = postmaster_pid(data)
    if pid is None or not Path("/proc/self/cwd").exists() or not Path(f"/proc/{pid}").exists():
        return
    if not _works_in(data):
        for name in ("postmaster.pid", ".s.PGSQL.5432.lock"):
            (data / name).unlink(missing_ok=True)


class Guard:
    """Runs one server until nobody holds a lock on `users.lock`."""

    def __init__(self, root: Path, command: list[str]) -> None:
        self._root = root
        self._data = root / "data"
        self._command = command
        self._server: subprocess.Popen[bytes] | None = None
        self._mutex = threading.Lock()
        self._unused = False

    def run(self) -> None:
        """Start the server, or adopt a running one; returns when it has ended."""
        threading.Thread(target=self._wait_until_unused, daemon=True).start()
        running = postmaster_pid(self._data)
        if running is not None and running in _works_in(self._data):
            self._keep_adopted(running)
            return
        quick = 0
        while quick < _QUICK_ENDS:
            with self._mutex:
                if self._unused:
                    return
                _clear_stale_lock(self._data)
                self._server = subprocess.Popen(self._command, stdin=subprocess.DEVNULL)
            began = time.monotonic()
            code = self._server.wait()
            if self._unused or code == 0:  # 0: it was shut down on purpose
                return
            quick = quick + 1 if time.monotonic() - began < _QUICK else 0
            if quick:
                time.sleep(0.05 * 2**quick)

    def _keep_adopted(self, pid: int) -> None:
        while pid in _works_in(self._data):
            if self._unused:
                _interrupt(pid)
            time.sleep(0.1)

    def _wait_until_unused(self) -> None:
        with (self._root / "users.lock").open("ab") as users:
            fcntl.flock(users, fcntl.LOCK_EX)
            with self._mutex:
                self._unused = True
                if self._server is not None:
                    _interrupt(self._server.pid)
            threading.Event().wait()  # keep the lock until the process ends: a stopping server accepts no user


def _interrupt(pid: int) -> None:
    """Send SIGINT, PostgreSQL's fast shutdown: sessions end, a checkpoint is written."""
    try:
        os.kill(pid, signal.SIGINT)
    except ProcessLookupError:
        pass


def main() -> int:
    """Take `guard.lock`, go into the background, run the guard. Exit 3: another guard is running."""
    root, command = Path(sys.argv[1]), sys.argv[3:]
    os.umask(0o077)
    lock = (root / "guard.lock").open("ab")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return OTHER_GUARD
    if os.fork():
        os._exit(0)
    os.setsid()  # detach from the terminal: Ctrl-C stops the hub, which still needs its database
    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    Guard(root, command).run()
    os._exit(0)  # at once: the locks must not be released before the process ends


if __name__ == "__main__":
    sys.exit(main())
