"""Restart child processes that end. `hub worker` and `hub scheduler` become a supervisor after their checks.

Dramatiq ends all of its processes when one of them is killed. periodiq ends when the broker is unreachable at a tick.
Therefore each runs in a process of its own, which is restarted after a pause that grows with consecutive failures.

`python -m hub.programs.supervisor TITLE GRACE COUNT COMMAND...` runs COUNT copies of a command. `hub worker` and
`hub scheduler` replace themselves by it, which frees the memory of their imports.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import NoReturn

_PAUSES = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)  # seconds before a restart, by consecutive failures
_STABLE = 60.0  # seconds after which a process counts as started
_POLL = 0.2  # seconds
_PR_SET_PDEATHSIG = 1


def _error(message: str, **fields: object) -> None:
    """Log an error. Imports structlog late, so that a supervisor needs little memory."""
    import structlog

    if __name__ == "__main__":
        from hub.programs.log_setup import configure_logging
        from hub.settings import load_settings

        configure_logging(load_settings())
    structlog.get_logger("hub.programs.supervisor").error(message, **fields)


def die_with_parent() -> None:
    """Ask the kernel (Linux) to send SIGTERM when the parent ends, so that no worker is left behind."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@contextlib.contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set. A second signal ends the process at once."""
    stop = threading.Event()

    def handle(number: int, _: object) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Child:
    def __init__(self, command: Sequence[str], env: Mapping[str, str] | None) -> None:
        self._command = list(command)
        self._env = env
        self._failures = 0
        self._started = 0.0
        self._due = 0.0
        self.process: subprocess.Popen[bytes] | None = None

    def poll(self) -> None:
        """Start the process if it is due; schedule a restart if it has ended."""
        now = time.monotonic()
        if self.process is None:
            if now >= self._due:
                # A session of its own: Ctrl-C reaches only the supervisor, which then stops its children.
                self.process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                    preexec_fn=die_with_parent,
                    env=None if self._env is None else {**os.environ, **self._env},
                )
                self._started = now
        elif (code := self.process.poll()) is not None:
            self._failures = 0 if now - self._started >= _STABLE else self._failures + 1
            pause = _PAUSES[min(self._failures, len(_PAUSES) - 1)]
            _error("process ended and will be restarted", process=self._command[-1], code=code, seconds=pause)
            self.process, self._due = None, now + pause


def supervise(
    commands: Sequence[Sequence[str]], stop: threading.Event, *, grace: float, env: Mapping[str, str] | None = None
) -> int:
    """Run the commands and restart them until `stop`; then send SIGTERM, and SIGKILL after `grace` seconds.

    Returns:
        0, or 1 if a process had to be killed.
    """
    children = [_Child(command, env) for command in commands]
    while not stop.is_set():
        for child in children:
            child.poll()
        stop.wait(_POLL)
    running = [child.process for child in children if child.process is not None]
    for process in running:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
    deadline = time.monotonic() + grace
    killed = 0
    for process in running:
        try:
            process.wait(timeout=max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            _error("process did not stop in time and is killed", child=process.pid)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            killed = 1
    return killed


def replace_process(command: Sequence[str], *, count: int, grace: float) -> NoReturn:
    """Replace this process by a supervisor of `count` copies of `command`, with the same process id."""
    sys.stdout.flush()
    sys.stderr.flush()
    title = " ".join(["hub", *sys.argv[1:]])  # visible in the process list
    arguments = [sys.executable, "-m", "hub.programs.supervisor", title, str(grace), str(count), *command]
    os.execv(sys.executable, arguments)  # noqa: S606 - this interpreter, no shell


def main() -> int:
    """Supervise the command of the command line."""
    grace, count, command = float(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
    with stop_signals() as stop:
        return supervise([command] * count, stop, grace=grace)


if __name__ == "__main__":
    sys.exit(main())
