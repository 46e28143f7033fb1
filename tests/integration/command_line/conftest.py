"""A `hub` command line on a database of the test's own."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner, Result

from hub.cli.app import app
from hub.errors import HubError
from tests.integration.command_line.commands import EVENT, Hub
from tests.support.http_target import HttpTarget


@pytest.fixture
def hub(hub_env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Hub:
    """Runs one command in this process; a `HubError` is exit 1, as `main` makes it."""
    for name, value in hub_env.items():
        if name.startswith("HUB_") and name != "HUB_BROKER_URL":
            monkeypatch.setenv(name, value)
    runner = CliRunner()

    def run(*args: object, code: int = 0, stdin: str | None = None) -> Result:
        result = runner.invoke(app, [str(a) for a in args], input=stdin)
        if isinstance(result.exception, HubError):
            result.exit_code = 1
        elif result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
        return result

    return run


@pytest.fixture
def crm(hub: Hub, target: HttpTarget) -> str:
    hub("service", "add", "crm", "--base-url", target.url, "--token", "canary-7f3a", "--max-retries", 1)
    hub(
        "rule",
        "add",
        "users",
        "--event",
        EVENT,
        "--service",
        "crm",
        "--endpoint",
        "/users",
        "--payload",
        '{"id": {{objectid}}}',
    )
    return "crm"
