"""`HUB_LOG_FORMAT=json`: every line of every process is one JSON object, also when something is missing or fails."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped, unused-ignore]
import pytest

from hub import __version__
from hub.app.lifecycle import build
from hub.programs.log_fields import ATTEMPT, COMMON, json_schema
from hub.settings import Settings
from tests.support.databases import PostgresServer
from tests.support.http_target import HttpTarget
from tests.support.hubs import add_rule, add_service, count, emit_many
from tests.support.proxy import unused_port
from tests.support.rabbit import RabbitNode
from tests.support.waiting import eventually
from tests.support.workers import environment

HUB = str(Path(sys.executable).with_name("hub"))
SCHEMA = jsonschema.Draft202012Validator(json_schema())


class Process:
    """A command of the hub and the lines that it wrote."""

    def __init__(self, tmp_path: Path, env: dict[str, str], *command: str) -> None:
        self._path = tmp_path / f"{command[0].replace('/', '_')}-{len(list(tmp_path.iterdir()))}.log"
        with self._path.open("wb") as output:
            self.process = subprocess.Popen(
                [HUB, *command], env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(120)
        finally:
            self.process.kill()
            self.process.wait()

    @property
    def text(self) -> str:
        return self._path.read_text()

    def lines(self) -> list[dict[str, Any]]:
        """All complete lines; each must be one JSON object as `hub logs schema` describes it."""
        text = self.text
        found = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
        for line in found:
            SCHEMA.validate(line)
            assert line["version"] == __version__
        return found

    def says(self, part: str) -> bool:
        return any(part in line["message"] or part in str(line.get("error")) for line in self.lines())


@pytest.fixture
def env(settings: Settings) -> dict[str, str]:
    made = environment(settings.model_copy(update={"listen": "127.0.0.1:0"}), HUB_LOG_FORMAT="json")
    return made | {"HUB_LISTEN": "127.0.0.1:0", "HUB_EXPORTER_LISTEN": f"127.0.0.1:{unused_port()}"}


@pytest.mark.parametrize("command", ["scheduler", "worker", "web", "exporter"])
def test_all_lines_are_json_while_the_broker_is_away(command: str, env: dict[str, str], tmp_path: Path) -> None:
    env |= {"HUB_BROKER_URL": f"amqp://hub:canary-81@127.0.0.1:{unused_port()}/", "HUB_LOG_LEVEL": "INFO"}
    expected = {"scheduler": "tick not sent", "worker": "connection error"}
    with Process(tmp_path, env, command) as process:
        eventually(lambda: process.says(expected.get(command, "listen")) or process.says("served"))
    lines = process.lines()
    assert "Traceback" not in process.text and "exception" not in {name for line in lines for name in line}
    assert "file an issue" not in process.text and "canary" not in process.text
    assert len({line["pid"] for line in lines}) >= 1


def test_the_scheduler_backs_off_and_ticks_once_the_broker_is_back(
    env: dict[str, str], rabbitmq: RabbitNode, tmp_path: Path
) -> None:
    rabbitmq.stop()
    with Process(tmp_path, env | {"HUB_BROKER_URL": rabbitmq.url}, "scheduler") as process:

        def pauses() -> list[float]:
            return [line["next_try_in"] for line in process.lines() if line["message"] == "tick not sent"]

        eventually(lambda: len(pauses()) >= 4, what="four tries")
        assert pauses()[:4] == sorted(pauses()[:4]) and pauses()[3] > pauses()[0]
        rabbitmq.start()
        eventually(lambda: _depth(rabbitmq, env) >= 1, what="a tick")
    assert "a process ended" not in process.text and "Traceback" not in process.text


def _depth(node: RabbitNode, env: dict[str, str]) -> int:
    from hub.errors import UnavailableError
    from hub.tasks.broker import HubBroker

    broker = HubBroker(node.url)
    try:
        return broker.ready(f"{env['HUB_QUEUE_PREFIX']}.tick") or 0
    except UnavailableError:
        return 0
    finally:
        broker.close()


@pytest.mark.parametrize("command", ["scheduler", "worker", "web"])
def test_a_process_without_a_database_says_so_in_one_line(command: str, env: dict[str, str], tmp_path: Path) -> None:
    env |= {"HUB_DATABASE_URL": f"postgresql://hub:canary-82@127.0.0.1:{unused_port()}/hub"}
    with Process(tmp_path, env, command) as process:
        assert process.process.wait(120) == 1
    (line,) = [line for line in process.lines() if line["level"] in ("error", "critical")]
    assert line["message"] == "not started" and "the database does not respond" in line["error"]
    assert "Traceback" not in process.text and "canary" not in process.text


@pytest.mark.fault
def test_a_database_that_goes_away_leaves_only_short_json_lines(
    env: dict[str, str], postgres: PostgresServer, tmp_path: Path
) -> None:
    env |= {"HUB_DATABASE_URL": postgres.url}
    assert subprocess.run([HUB, "migrate"], env=env, check=False).returncode == 0
    with Process(tmp_path, env, "worker") as worker, Process(tmp_path, env, "scheduler") as scheduler:
        eventually(lambda: worker.says("relay elected"))
        postgres.stop()
        eventually(lambda: worker.says("the database does not respond"))
        postgres.start()
    for process in (worker, scheduler):
        process.lines()
        assert "Traceback" not in process.text and "file an issue" not in process.text


_UNCAUGHT = """
import threading, warnings
from hub.programs.log_setup import configure_logging
from hub.settings import load_settings
configure_logging(load_settings())
warnings.warn("a warning")
class Bad:
    def __del__(self): raise ValueError("in __del__")
Bad()
def fail(): raise ValueError("in a thread")
t = threading.Thread(target=fail); t.start(); t.join()
raise ValueError("in the main thread")
"""


def test_warnings_and_uncaught_exceptions_are_json_lines(env: dict[str, str]) -> None:
    done = subprocess.run([sys.executable, "-W", "default", "-c", _UNCAUGHT], env=env, capture_output=True, text=True)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert done.returncode == 1 and len(lines) == 4 and os.getpid() not in {line["pid"] for line in lines}
    assert lines[0]["message"] == "a warning"
    assert [
        text in line["exception"]
        for text, line in zip(("in __del__", "in a thread", "in the main thread"), lines[1:], strict=True)
    ] == [True] * 3


def test_an_attempt_writes_one_line_and_successes_are_sampled(settings: Settings, tmp_path: Path) -> None:
    """Failures are always logged; the sample is the same for every process, since it is chosen by task."""
    settings = settings.model_copy(update={"max_attempts": 2, "retry_delays": (0.1,), "log_successes": 0.25})
    env = environment(settings, HUB_LOG_FORMAT="json")
    with HttpTarget() as target, build(settings, role="web") as hub, Process(tmp_path, env, "worker") as worker:
        target.on("/refused", 422)
        add_service(hub, target.url)
        add_rule(hub)
        add_rule(hub, "r2", event="bad", endpoint="/refused")
        tasks = emit_many(hub, 200)
        bad = emit_many(hub, 3, "bad")
        eventually(lambda: count(hub, "tasks") == 0 and count(hub, "dead_letters") == 3, what="every end")
        eventually(lambda: sum(line["message"] == "dead letter" for line in worker.lines()) == 3, what="the last line")
        lines = [line for line in worker.lines() if "attempt" in line]
    delivered = [line for line in lines if line["message"] == "delivered"]
    assert 20 < len(delivered) < 80 and {line["task"] for line in delivered} <= set(tasks)
    assert {line["sample_rate"] for line in delivered} == {0.25}
    failed = [(line["task"], line["attempt"], line["message"]) for line in lines if line["message"] != "delivered"]
    assert sorted(failed) == sorted(
        (task, attempt, "attempt failed" if attempt == 1 else "dead letter") for task in bad for attempt in (1, 2)
    )
    known = set(COMMON) | set(ATTEMPT) | {"reason"}
    assert {name for line in lines for name in line} <= known, "a field of attempts that is not documented"


def test_the_schema_is_a_command() -> None:
    """For whoever sets up the log collector."""
    done = subprocess.run([HUB, "logs", "schema"], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    jsonschema.Draft202012Validator.check_schema(found)
    assert found == json_schema()
