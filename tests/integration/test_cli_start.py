"""What a listing imports decides how long it takes: clients of brokers and services stay out."""

from __future__ import annotations

import subprocess
import sys

import pytest

_RUN = """
import atexit, sys
heavy = ("dramatiq", "periodiq", "pendulum", "pika", "requests", "urllib3", "zeep", "fastapi", "structlog")
atexit.register(lambda: print("IMPORTED", *[name for name in heavy if name in sys.modules], file=sys.stderr))
sys.argv = ["hub", *sys.argv[1:]]
from hub.cli import main
main()
"""


@pytest.mark.parametrize(
    "command", ["tasks list", "tasks failures", "log list", "log runs", "dlq list", "breaker list", "activity list"]
)
def test_a_listing_imports_no_client(hub_env: dict[str, str], command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _RUN, *command.split()], env=hub_env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1].split() == ["IMPORTED"]


def test_supervisors_import_nothing_of_a_hub() -> None:
    """They live as long as what they supervise; their memory is that of an empty interpreter."""
    code = (
        "import sys, hub.programs.supervisor; print([m for m in ('structlog', 'pydantic', 'rich') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
