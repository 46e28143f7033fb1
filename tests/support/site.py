"""A hub as it is deployed: `hub worker`, `hub web`, `hub exporter`, each a process of its own, told by environment."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Self

from hub.programs.supervisor import die_with_parent
from hub.settings import Settings
from tests.support.processes import below
from tests.support.waiting import eventually
from tests.support.workers import environment

HUB = Path(sys.executable).with_name("hub")
_SAYS = {
    "exporter": re.compile(r"http://([\w.:]+)/metrics"),
    "web": re.compile(r"Integration Hub listens on http://([\w.:]+)"),
    "worker": re.compile(r""),
}


class Site:
    """Processes of one deployment. What they write goes to files in `folder`, their counters to `folder/metrics`."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.folder = folder
        own = {
            "metrics_dir": folder / "metrics",
            "listen": "127.0.0.1:0",
            "exporter_listen": "127.0.0.1:0",
            "log_format": "json",
        }
        self.settings = settings.model_copy(update=own)
        self.settings.metrics_folder.mkdir(parents=True, exist_ok=True)
        self.env = environment(self.settings)
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, *words: str) -> None:
        """`hub WORDS`; returns when the process says where it listens, if it does so at all."""
        role = words[0]
        with self._log(role).open("wb") as output:
            self.running[role] = subprocess.Popen(
                [HUB, *words],
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        eventually(lambda: self.address(role) is not None or self.running[role].poll() is not None, f"hub {role}")
        assert self.running[role].poll() is None, self.output(role)

    def address(self, role: str) -> str | None:
        """Where a process listens, once it says so; empty for one that does not."""
        found = _SAYS[role].search(self.output(role))
        return (found[1] if found.groups() else "") if found else None

    def run(self, *words: str) -> str:
        """A command of the hub to its end; what it printed."""
        done = subprocess.run([HUB, *words], env=self.env, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def metrics(self) -> str:
        """What the exporter shows now."""
        with urllib.request.urlopen(f"http://{self.address('exporter')}/metrics", timeout=120) as answer:
            return str(answer.read().decode())

    def kill(self, role: str) -> None:
        """SIGKILL the process and everything below it, at once."""
        process = self.running.pop(role)
        for pid in (process.pid, *below(process.pid)):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        process.wait()

    def stop(self, role: str, seconds: float = 120) -> int:
        """SIGTERM, and wait for the orderly end; its exit code."""
        process = self.running[role]
        process.terminate()
        code = process.wait(seconds)
        del self.running[role]
        return code

    def output(self, role: str) -> str:
        """What the process wrote."""
        return self._log(role).read_text(errors="replace")

    def _log(self, role: str) -> Path:
        return self.folder / f"{role}.log"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is not None:
            for role in self.running:
                print(f"--- {role}\n{self.output(role)[-4000:]}")
        for role in list(self.running):
            self.kill(role)
