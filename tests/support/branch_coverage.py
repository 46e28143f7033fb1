"""pytest plugin: branch coverage of hub, subprocesses included, with a floor (`-p tests.support.branch_coverage`).

Only tests of `MEASURED` are traced: the others run servers, browsers and load, and some limit memory. The floor is
checked when none of the measured tests was left out. Data: `.cache/coverage`.
"""

from __future__ import annotations

import io
import os
from collections.abc import Generator
from pathlib import Path

import pytest
from coverage import Coverage

ROOT = Path(__file__).parents[2]
MEASURED = (ROOT / "tests" / "unit", ROOT / "tests" / "integration")
DATA = ROOT / ".cache" / "coverage"
_SUBPROCESSES = "COVERAGE_PROCESS_CONFIG"  # set by coverage's `patch = subprocess`


class Tracer:
    """Traces this process and those that it starts, while it is on."""

    def __init__(self) -> None:
        self._coverage = Coverage(str(DATA / "data"), data_suffix=True, config_file=str(ROOT / "pyproject.toml"))
        self._coverage.start()
        self._environment = os.environ[_SUBPROCESSES]
        self._on = True

    def switch(self, on: bool) -> None:
        """Start or stop tracing."""
        if on == self._on:
            return
        self._on = on
        if on:
            os.environ[_SUBPROCESSES] = self._environment
            self._coverage.start()
        else:
            self._coverage.stop()
            del os.environ[_SUBPROCESSES]

    def save(self) -> None:
        """Write the data file."""
        self.switch(False)
        self._coverage.save()


class Plugin:
    """Switches the tracer on and off in the processes that run tests; combines and checks in the one that reports."""

    def __init__(self, tracer: Tracer | None) -> None:
        self._tracer = tracer
        self._shown: list[str] = []

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        if self._tracer is not None:
            self._tracer.switch(any(item.path.is_relative_to(folder) for folder in MEASURED))
        return (yield)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._tracer is not None:
            self._tracer.save()
        if "PYTEST_XDIST_WORKER" in os.environ or session.config.option.collectonly:
            return
        combined = Coverage(str(DATA / "data"), config_file=str(ROOT / "pyproject.toml"))
        if not any(DATA.glob("data.*")):
            return
        combined.combine([str(DATA)])
        combined.save()
        total, floor = combined.report(file=io.StringIO()), combined.config.fail_under
        self._shown.append(f"branch coverage of hub: {total:.1f} % (floor {floor:.0f} %)")
        if _everything(session.config) and total < floor and session.exitstatus == pytest.ExitCode.OK:
            self._shown.append("below the floor; `coverage report` with the data in .cache/coverage shows the lines")
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for line in self._shown:
            terminalreporter.write_line(line)


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Before the first import of hub."""
    worker = "PYTEST_XDIST_WORKER" in os.environ
    if not worker:
        DATA.mkdir(parents=True, exist_ok=True)
        for old in DATA.glob("data*"):
            old.unlink()
    distributed = bool(getattr(early_config.known_args_namespace, "numprocesses", None))
    early_config.pluginmanager.register(Plugin(Tracer() if worker or not distributed else None))


def _everything(config: pytest.Config) -> bool:
    """Whether no test of `MEASURED` was left out."""
    asked = [(ROOT / argument).resolve() for argument in config.args]
    whole = all(any(folder.is_relative_to(path) for path in asked) for folder in MEASURED)
    return whole and not (config.option.keyword or config.option.markexpr)
