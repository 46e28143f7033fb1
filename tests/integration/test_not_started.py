"""A process that cannot start says why in one line, and ends with 1, for its supervisor to try again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("module", ["hub.worker", "hub.scheduler"])
@pytest.mark.parametrize(
    ("database", "why"),
    [("postgresql://hub:canary-71@127.0.0.1:1/hub", "the database does not respond"), ("", "HUB_BROKER_URL")],
)
def test_no_traceback_when_something_is_missing(module: str, database: str, why: str, tmp_path: Path) -> None:
    env = {
        "PATH": "/usr/bin:/bin",
        "HUB_HOME": str(tmp_path),
        "HUB_DATABASE_URL": database,
        "HUB_BROKER_URL": "amqp://guest:canary-72@127.0.0.1:1/",
        "HUB_LOG_FORMAT": "json",
    }
    code = f"import importlib; importlib.import_module({module!r}).broker"
    ended = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
    output = ended.stdout + ended.stderr
    assert ended.returncode == 1
    assert why in output and "not started" in output
    assert "Traceback" not in output and "canary" not in output
