"""Prometheus and Alertmanager for tests: Debian's programs, on loopback, in a folder of their own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.support.rabbit import free_ports

MISSING = (
    "Prometheus is not installed, so nobody looked at metrics, alerts and dashboards. Run `make test` as root, or "
    "apt-get install --no-install-recommends prometheus prometheus-alertmanager   (their services need not run)"
)
PROGRAMS = {
    "promtool": ("promtool",),
    "prometheus": ("prometheus",),
    "amtool": ("amtool",),
    "alertmanager": ("prometheus-alertmanager", "alertmanager"),
}
_KEEPER = Path(__file__).with_name("keeper.py")


def installed() -> bool:
    """Whether all four programs are there."""
    return all(_find(name) for name in PROGRAMS)


def program(name: str) -> str:
    """The path of one; skips the test, loudly, when there is none."""
    path = _find(name)
    if path is None:
        pytest.skip(MISSING)
    return path


def _find(name: str) -> str | None:
    return next((path for word in PROGRAMS[name] if (path := shutil.which(word))), None)


def run(name: str, *args: object, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a tool to its end; both outputs come as one, in `stdout`."""
    return subprocess.run(
        [program(name), *map(str, args)],
        input=text,
        text=True,
        check=False,
        timeout=120,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


class Server:
    """A server that ends with the test, however the test ends.

    Args:
        command: what to run; `{folder}` and `{port}` are filled in.
        ready: path that answers 200 when it is up.
    """

    def __init__(self, command: list[str], ready: str, files: dict[str, str] | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="hub-test-eyes-"))
        (self.port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        for name, content in (files or {}).items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        words = [w.format(folder=self.folder, port=self.port) for w in command]
        with (self.folder / "output").open("ab") as output:
            self._keeper = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_KEEPER), str(self.folder), *words],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        deadline = time.monotonic() + 30
        while not self._answers(ready):
            if self._keeper.poll() is not None or time.monotonic() > deadline:
                text = (self.folder / "output").read_text(errors="replace")[-3000:]
                self.close()
                raise RuntimeError(f"{words[0]} did not start:\n{text}")
            time.sleep(0.05)

    def _answers(self, path: str) -> bool:
        try:
            return bool(urllib.request.urlopen(self.url + path, timeout=2).status == 200)
        except OSError:
            return False

    def get(self, path: str, **params: object) -> Any:
        """JSON from the server's API."""
        query = urllib.parse.urlencode({k: str(v) for k, v in params.items()})
        with urllib.request.urlopen(f"{self.url}{path}?{query}", timeout=30) as answer:
            return json.load(answer)

    def close(self) -> None:
        """Stop, and remove the folder."""
        assert self._keeper.stdin is not None
        self._keeper.stdin.close()
        self._keeper.wait(timeout=30)
        shutil.rmtree(self.folder, ignore_errors=True)


class Prometheus(Server):
    """A Prometheus with the given configuration (`{folder}` is filled in by the caller's files)."""

    def __init__(self, config: str, files: dict[str, str] | None = None) -> None:
        super().__init__(
            [
                program("prometheus"),
                "--config.file={folder}/prometheus.yml",
                "--storage.tsdb.path={folder}/data",
                "--web.listen-address=127.0.0.1:{port}",
                "--rules.alert.resend-delay=1s",
                "--log.level=warn",
            ],
            "/-/ready",
            {"prometheus.yml": config, **(files or {})},
        )

    def query(self, expr: str, at: float | None = None) -> list[dict[str, Any]]:
        """An instant query's samples: `metric` and `value`."""
        answer = self.get("/api/v1/query", query=expr, **({"time": at} if at else {}))
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    def range(self, expr: str, start: float, end: float, step: float) -> list[dict[str, Any]]:
        """A range query's series: `metric` and `values`."""
        answer = self.get("/api/v1/query_range", query=expr, start=start, end=end, step=step)
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result


class Alertmanager(Server):
    """An Alertmanager with the given configuration, alone in its cluster."""

    def __init__(self, config: str) -> None:
        super().__init__(
            [
                program("alertmanager"),
                "--config.file={folder}/alertmanager.yml",
                "--storage.path={folder}/data",
                "--web.listen-address=127.0.0.1:{port}",
                "--cluster.listen-address=",
                "--log.level=warn",
            ],
            "/-/ready",
            {"alertmanager.yml": config},
        )
