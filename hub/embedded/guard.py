"""The keeper of embedded mode's PostgreSQL: runs the server for as long as somebody uses it.

A script of its own, standard library only (`python -I -S guard.py ROOT -- COMMAND...`), because it
has to outlive the process that started it: a killed `hub up` cannot stop its server any more, but the
kernel takes back its lock on `users.lock`, and that is what the guard waits for. It also starts the
server again when that was killed, and waits for its end, so that no zombie is left.
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
_QUICK = 2.0  # seconds: a server that ends sooner did not really start
_PATIENCE = 4  # that many quick ends in a row, and the guard gives up


def postmaster_pid(data: Path) -> int | None:
    """The process id in `postmaster.pid`, or None."""
    try:
        return int((data / "postmaster.pid").read_text().split("\n", 1)[0])
    except (OSError, ValueError):
        return None


def _works_in(data: Path) -> set[int]:
    """Processes whose working directory is `data`: a postmaster and its backends."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cwd").readlink() == data:
                found.add(int(entry.name))
        except OSError:
            continue
    return found


def _clear_stale_lock(data: Path) -> None:
    """Remove the lock files of a killed server whose process id now belongs to a stranger.

    PostgreSQL recognises a stale lock by itself unless that id is in use again, which is the usual case
    in a restarted container. As long as any of its backends lives the files stay: they are what keeps
    a second server off the same data.
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
        """Start the server, or take over one that runs already; come back when it has ended."""
        threading.Thread(target=self._wait_until_unused, daemon=True).start()
        running = postmaster_pid(self._data)
        if running is not None and running in _works_in(self._data):
            self._keep_adopted(running)
            return
        quick = 0
        while quick < _PATIENCE:
            with self._mutex:
                if self._unused:
                    return
                _clear_stale_lock(self._data)
                self._server = subprocess.Popen(self._command, stdin=subprocess.DEVNULL)
            began = time.monotonic()
            code = self._server.wait()
            if self._unused or code == 0:  # 0: somebody shut it down on purpose
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
            threading.Event().wait()  # keep the lock until the process ends: nobody uses a stopping server


def _interrupt(pid: int) -> None:
    """SIGINT is PostgreSQL's fast shutdown: sessions are ended, a checkpoint is written."""
    try:
        os.kill(pid, signal.SIGINT)
    except ProcessLookupError:
        pass


def main() -> int:
    """Take `guard.lock`, go into the background, guard. Exit 3: another guard is at work."""
    root, command = Path(sys.argv[1]), sys.argv[3:]
    os.umask(0o077)
    lock = (root / "guard.lock").open("ab")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return OTHER_GUARD
    if os.fork():
        os._exit(0)
    os.setsid()  # out of the terminal's reach: Ctrl-C is for the hub, which still needs its database
    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    Guard(root, command).run()
    os._exit(0)  # at once: the locks must not be free before the process is gone


if __name__ == "__main__":
    sys.exit(main())
