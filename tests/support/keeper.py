"""Runs a command and its helpers for as long as the parent lives. A script: `keeper.py FOLDER CMD [-- CMD]...`

The parent holds the write end of our standard input and never writes. When that closes, because the
parent closed it or was killed, everything below us is ended and FOLDER removed (unless the parent wrote
a byte first: then FOLDER stays, for a restart).
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

_PR_SET_CHILD_SUBREAPER = 36


def descendants() -> set[int]:
    """Every process below this one."""
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as f:
                    parents[int(name)] = int(f.read().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found: set[int] = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {os.getpid()}


def end_all() -> None:
    """SIGKILL until none is left: the data is thrown away, or was stored by a clean stop before."""
    while found := descendants():
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass
        time.sleep(0.01)


def main() -> None:
    folder, words = sys.argv[1], sys.argv[2:]
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # orphans of ours come to us, not to init
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    commands: list[list[str]] = [[]]
    for word in words:
        if word == "--":
            commands.append([])
        else:
            commands[-1].append(word)
    processes = [
        subprocess.Popen(command, stdin=subprocess.DEVNULL, restore_signals=True, preexec_fn=_default_signals)
        for command in commands
    ]

    def wait_for_the_last() -> None:
        processes[-1].wait()
        os.kill(os.getpid(), signal.SIGUSR1)

    def end_with_error(*_: object) -> None:
        end_all()
        os._exit(1)

    signal.signal(signal.SIGUSR1, end_with_error)
    threading.Thread(target=wait_for_the_last, daemon=True).start()
    keep = os.read(0, 1)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    end_all()
    if not keep:
        shutil.rmtree(folder, ignore_errors=True)


def _default_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


if __name__ == "__main__":
    main()
