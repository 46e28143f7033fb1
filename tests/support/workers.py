"""Real worker processes: `dramatiq hub.worker:broker`, to stop and to kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from hub.programs.supervisor import die_with_parent
from hub.settings import Settings
from tests.support.processes import below


def environment(settings: Settings, **more: str) -> dict[str, str]:
    """The environment that gives a process these settings."""
    keep = {name: value for name, value in os.environ.items() if not name.startswith("HUB_")}
    for name in settings.model_fields_set:
        value = getattr(settings, name)
        text = value.get_secret_value() if hasattr(value, "get_secret_value") else value
        keep[f"HUB_{name.upper()}"] = ",".join(map(str, text)) if isinstance(text, tuple) else str(text)
    return keep | {"dramatiq_restart_delay": "300", "PYTHONWARNINGS": "default"} | more


class Workers:
    """A master and its worker processes, as one group."""

    def __init__(self, settings: Settings, *, processes: int = 1, threads: int = 4) -> None:
        self._env = environment(settings)
        self._command = [
            sys.executable,
            "-m",
            "dramatiq",
            "--processes",
            str(processes),
            "--threads",
            str(threads),
            "--worker-shutdown-timeout",
            "20000",
            "--skip-logging",
            "hub.worker:broker",
        ]
        self._output = tempfile.TemporaryFile()  # noqa: SIM115
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start; they are at work a moment later."""
        self._process = subprocess.Popen(
            self._command,
            env=self._env,
            stdout=self._output,
            stderr=self._output,
            start_new_session=True,
            preexec_fn=die_with_parent,  # also when the test run is killed
        )

    def kill(self) -> None:
        """SIGKILL all of them at once."""
        process, self._process = self._process, None
        if process is not None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def stop(self) -> int:
        """SIGTERM, and wait for the orderly end."""
        process, self._process = self._process, None
        assert process is not None
        process.terminate()
        try:
            return process.wait(120)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise

    def pids(self) -> list[int]:
        """The processes that run."""
        return below(self._process.pid) if self._process is not None else []

    def output(self) -> str:
        """What they wrote."""
        self._output.seek(0)
        return self._output.read().decode(errors="replace")

    def close(self) -> None:
        """End whatever is left."""
        self.kill()
        self._output.close()


@contextmanager
def workers(settings: Settings, *, processes: int = 1, threads: int = 4) -> Iterator[Workers]:
    """Workers that run; what they wrote is printed when the test fails."""
    group = Workers(settings, processes=processes, threads=threads)
    group.start()
    try:
        yield group
    except BaseException:
        print(group.output()[-6000:])
        raise
    finally:
        group.close()
