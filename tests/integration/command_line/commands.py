"""Run `hub` commands."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from typer.testing import Result

EVENT = "\\core\\event\\user_created"


Hub = Callable[..., Result]


def read(hub: Hub, *args: object, code: int = 0) -> Any:
    return json.loads(hub(*args, "--json", code=code).stdout)


def run(env: dict[str, str], *args: str, **more: Any) -> subprocess.Popen[str]:
    env = {k: v for k, v in env.items() if k != "HUB_BROKER_URL"}
    return subprocess.Popen(
        [sys.executable, "-c", "from hub.cli import main; main()", *args],
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **more,
    )
