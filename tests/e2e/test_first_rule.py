"""The tutorial, typed as it is written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.rabbit import free_ports
from tests.support.waiting import eventually

_ROOT = Path(__file__).parents[2]
_DOCS = _ROOT / "docs"
_PATIENCE = 300  # seconds, on a machine that has a lot to do


def _blocks(text: str) -> list[str]:
    """The shell blocks, in order."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [block for language, block in blocks if not language]


@contextmanager
def _running(command: str, env: dict[str, str], log: Path, ready: str) -> Iterator[None]:
    with log.open("w") as out:
        process = subprocess.Popen(command.split(), env=env, stdout=out, stderr=out, cwd=_ROOT)
        try:
            _until(log, ready)
            yield
        finally:
            process.terminate()
            process.wait(_PATIENCE)


def _until(log: Path, text: str) -> None:
    eventually(lambda: text in log.read_text(), f"{text!r} in {log}")


def test_a_newcomer_gets_there_with_what_the_tutorial_says(tmp_path: Path) -> None:
    """Service, rule, event, delivery; then the same over HTTP; then the file of the how-to, applied and exported."""
    web, port = free_ports(2)
    env = {name: value for name, value in os.environ.items() if not name.startswith("HUB_")}
    env |= {
        "HUB_HOME": str(tmp_path / ".hub"),
        "HUB_LISTEN": f"127.0.0.1:{web}",
        "PATH": f"{Path(sys.executable).parent}:{env['PATH']}",
        "BILLING_TOKEN": "t",
        "CAMPUS_PASSWORD": "p",
    }
    text = (_DOCS / "tutorial" / "first-rule.md").read_text("utf-8")
    guide = (_DOCS / "how-to" / "configure-as-code.md").read_text("utf-8")
    example = re.search(r"^```yaml\n(.*?)^```", guide, re.MULTILINE | re.DOTALL)
    assert example is not None
    (tmp_path / "hub.yaml").write_text(example[1], "utf-8")
    text = text.replace(":8080", f":{web}").replace(":9000", f":{port}").replace(" 9000", f" {port}")
    up, target, path, *steps = [block.strip() for block in _blocks(text)]
    assert (up, path.splitlines()[0]) == ("make up", 'export PATH="$PWD/.venv/bin:$PATH"')
    seen = tmp_path / "target.log"
    with (
        _running("hub up", env, tmp_path / "up.log", "Integration Hub listens on"),
        _running(target.replace(".venv/bin/python", sys.executable), env, seen, "a sample service"),
    ):
        for step in [path.splitlines()[1], *steps, *(block for block in _blocks(guide))]:
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", step.replace("curl ", "curl --fail -sS ")],
                env=env,
                cwd=tmp_path,
                timeout=_PATIENCE,
                check=False,
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, f"{step}\n{done.stdout}\n{done.stderr}"
        _until(seen, "PUT /crm/users/42 -> 201")
        _until(seen, "PUT /crm/users/43 -> 201")
        assert "${BILLING_TOKEN}" in (tmp_path / "hub.yaml").read_text()
        rows = subprocess.run(["hub", "log", "list"], env=env, capture_output=True, text=True, check=True).stdout
        assert "/users/42" in rows
