"""The command line against a real database: what people and scripts get from it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from hub.cli.app import app
from hub.errors import HubError
from tests.servers import HttpTarget, Reply

EVENT = "\\core\\event\\user_created"
Hub = Callable[..., Result]


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


def read(hub: Hub, *args: object) -> Any:
    return json.loads(hub(*args, "--json").stdout)


@pytest.fixture
def target() -> Iterator[HttpTarget]:
    with HttpTarget() as server:
        yield server


@pytest.fixture
def crm(hub: Hub, target: HttpTarget) -> str:
    hub("service", "add", "crm", "--base-url", target.url, "--token", "canary-7f3a", "--max-retries", 1)
    hub("rule", "add", "users", "--event", EVENT, "--service", "crm", "--endpoint", "/users",
        "--payload", '{"id": {{objectid}}}')  # fmt: skip
    return "crm"


def test_an_event_goes_in_and_is_delivered_by_a_command(hub: Hub, crm: str, target: HttpTarget) -> None:
    """The shortest way from nothing to "it arrived", as the README shows it."""
    first = hub("emit", "--name", EVENT, "--data", '{"objectid": 5}').stdout.split()
    again = read(hub, "emit", "--name", EVENT, "--data", '{"objectid": 5}')
    assert [row["id"] for row in again] == first and again[0]["duplicate"] is True and again[0]["tasks"] == []
    (task,) = read(hub, "tasks", "list")
    assert {"id", "event", "rule", "service", "state", "attempts", "next_run_at", "last_error", "created_at"} <= set(
        task
    )
    assert task["state"] == "pending" and task["next_run_at"].endswith("Z")
    result = read(hub, "tasks", "run")
    assert (result["ran"], result["delivered"]) == (1, 1)
    assert [s.json() for s in target.seen] == [{"id": 5}]
    (delivery,) = read(hub, "log", "list", "--task", task["id"])
    wanted = "id task_id direction service event endpoint method attempt tries status latency_ms success error"
    assert {*wanted.split(), "request_body", "response_body", "created_at"} <= set(delivery)
    assert read(hub, "tasks", "show", task["id"])["state"] == "delivered"


def test_a_task_that_fails_five_times_is_a_dead_letter_and_is_replayed(hub: Hub, crm: str, target: HttpTarget) -> None:
    target.on("/users", 500)
    (event,) = read(hub, "emit", "--name", EVENT, "--data", '{"objectid": 6}')
    (task,) = event["tasks"]
    hub("service", "edit", "crm", "--set", "cb_failure_threshold=0")
    for attempt in range(1, 5):
        result = read(hub, "tasks", "run", "--id", task)
        assert result["tasks"][0]["result"] == "failed"
        assert read(hub, "tasks", "fails")[0]["attempts"] == attempt
    assert read(hub, "tasks", "run", "--failed")["dead"] == 1
    (letter,) = read(hub, "dlq", "list")
    assert {"id", "task_id", "event", "rule", "service", "attempts", "reason", "error", "payload", "created_at"} <= set(
        letter
    )
    assert (letter["attempts"], letter["reason"], "500" in letter["error"]) == (5, "attempts", True)
    assert len(target.seen) == 5
    line = json.loads(hub("dlq", "export").stdout)
    assert line["event_data"] == {"objectid": 6}
    assert read(hub, "dlq", "replay", "--all", "--dry-run")["would_replay"] == 1
    target.on("/users", 201)
    replayed = read(hub, "dlq", "replay", "--id", letter["id"])
    assert replayed["replayed"] == 1 and read(hub, "dlq", "list") == []
    assert read(hub, "tasks", "run")["delivered"] == 1
    keys = {s.headers["idempotency-key"] for s in target.seen}
    assert len(keys) == 2  # one for the five attempts, another for the replay


def test_a_file_of_events_stops_at_the_bad_line_and_says_which(hub: Hub, crm: str, tmp_path: Any) -> None:
    file = tmp_path / "events.ndjson"
    file.write_text(
        '{"name": "a", "data": {}}\n\n{"eventname": "\\\\core\\\\x", "userid": 1}\n{"nome": 1}\n{"name": "b"}\n'
    )
    result = hub("emit", file, code=1)
    assert len(result.stdout.split()) == 2
    assert "line 4" in str(result.exception) and "name" in str(result.exception)


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["emit"], 2, "--name"),
        (["emit", "--name", "x", "--data", "{bad"], 2, "--data: not JSON"),
        (["emit", "--name", "", "--data", "{}"], 1, "name"),
        (["emit", "no-such-file.ndjson"], 2, "No such file"),
        (["service", "show", "nope"], 1, "no service named 'nope'"),
        (["service", "add", "x", "--base-url", "ftp://x"], 1, "base_url"),
        (["service", "add", "x", "--base-url", "http://x", "--set", "nope=1"], 1, "nope: unknown field"),
        (["service", "add", "x", "--type", "amqp", "--base-url", "amqp://h/?dlq=a"], 1, "dlq"),
        (["service", "add", "x", "--base-url", "http://x", "--set", "signing_secret=%%"], 1, "signing_secret"),
        (["service", "add", "x", "--base-url", "http://x", "--token", "env:HUB_TEST_NOPE"], 2, "HUB_TEST_NOPE"),
        (["tasks", "run", "--task", "nope"], 2, "--task"),
        (["tasks", "run", "--id", "99"], 1, "no task 99"),
        (["tasks", "retry"], 2, "--failed"),
        (["dlq", "replay"], 2, "--all"),
        (["dlq", "replay", "--id", "99"], 1, "no dead letter 99"),
        (["dlq", "list", "--since", "yesterday"], 2, "30m"),
        (["schedule", "set", "consume_responses_task", "61 * * * *"], 1, "minute"),
        (["schedule", "set", "nope", "* * * * *"], 1, "no scheduled task"),
        (["log", "list", "--direction", "up"], 2, "inbound"),
        (["token", "add", "t", "--scope", "all"], 2, "--scope"),
        (["breaker", "reset"], 2, "--all"),
    ],
)
def test_bad_input_is_refused_with_its_reason(hub: Hub, args: list[str], code: int, says: str) -> None:
    """Usage errors exit 2, everything else that fails exits 1, and both say what to do."""
    result = hub(*args, code=code)
    assert says in (str(result.exception) if code == 1 else result.stderr)
    assert not result.stdout


def test_a_get_rule_on_a_queue_is_refused(hub: Hub) -> None:
    hub("service", "add", "q", "--type", "amqp", "--base-url", "amqp://guest:guest@localhost/?queue_declare=q")
    result = hub("rule", "add", "r", "--event", "x", "--service", "q", "--method", "GET", code=1)
    assert "method" in str(result.exception)


def test_secrets_are_shown_nowhere(hub: Hub, crm: str) -> None:
    """Canaries: a token and a password that no listing may print."""
    hub("service", "add", "q", "--type", "amqp", "--base-url", "amqp://me:canary-7f3b@localhost/?queue_declare=q")
    hub("service", "edit", "crm", "--set", "secret_headers.X-Key=canary-7f3c", "--set", "inbound.token=canary-7f3d")
    for args in (["service", "list"], ["service", "show", "crm"], ["service", "show", "q"]):
        assert "canary" not in hub(*args).stdout and "canary" not in hub(*args, "--json").stdout
    assert "canary" not in hub("export").output


def test_what_is_held_and_orphaned_is_shown_and_purged(hub: Hub, crm: str) -> None:
    hub("rule", "disable", "users")
    hub("emit", "--name", EVENT, "--data", "{}")
    (task,) = read(hub, "tasks", "list", "--state", "held")
    assert read(hub, "tasks", "run")["ran"] == 0
    hub("rule", "delete", "users", code=2)  # nobody there to ask
    hub("rule", "delete", "users", "--yes")
    (orphan,) = read(hub, "tasks", "list", "--orphan")
    assert orphan["id"] == task["id"] and orphan["state"] == "held"
    assert read(hub, "tasks", "purge-orphans", "--yes") == {"purged": 1}
    assert read(hub, "tasks", "show", task["id"])["state"] == "cancelled"


def test_retry_says_whether_attempts_restart(hub: Hub, crm: str, target: HttpTarget) -> None:
    target.on("/users", 500)
    (event,) = read(hub, "emit", "--name", EVENT, "--data", '{"objectid": 1}')
    hub("tasks", "run")
    assert read(hub, "tasks", "list")[0]["state"] == "delayed"
    assert "go on where they were" in hub("tasks", "retry", event["tasks"][0]).stdout
    (task,) = read(hub, "tasks", "list")
    assert (task["state"], task["attempts"]) == ("pending", 1)
    assert read(hub, "tasks", "retry", "--failed", "--restart")["attempts_restarted"] is True
    assert read(hub, "tasks", "list")[0]["attempts"] == 0
    assert read(hub, "tasks", "delete", event["tasks"][0], "--yes") == {"deleted": event["tasks"]}


def test_parallel_really_runs_at_once(hub: Hub, crm: str, target: HttpTarget) -> None:
    """Each request waits until all four are there: one at a time would never end well."""
    together = threading.Barrier(4, timeout=4)

    def wait(_: object) -> Reply:
        together.wait()
        return Reply(204)

    target.on("/users", wait)
    for i in range(4):
        hub("emit", "--name", EVENT, "--data", json.dumps({"objectid": i}))
    assert read(hub, "tasks", "run", "--parallel", 4)["delivered"] == 4


def test_schedules_are_changed_and_reset(hub: Hub) -> None:
    rows = {row["name"]: row for row in read(hub, "schedule", "list")}
    assert {"name", "cron", "enabled", "last_run_at", "last_result", "next_run_at"} <= set(
        rows["consume_responses_task"]
    )
    assert read(hub, "schedule", "set", "consume_responses_task", "*/5 * * * *")["cron"] == "*/5 * * * *"
    assert read(hub, "schedule", "disable", "consume_responses_task")["enabled"] is False
    assert read(hub, "schedule", "enable", "consume_responses_task")["enabled"] is True
    assert len(read(hub, "schedule", "show", "consume_responses_task")["next_runs"]) == 5
    assert read(hub, "schedule", "run", "housekeeping_task")["run_requested"] is True
    assert read(hub, "schedule", "reset", "consume_responses_task")["cron"] == "* * * * *"
    assert read(hub, "tasks", "run", "--task", "housekeeping_task")["ran"] == 1
    assert read(hub, "log", "runs")[0]["result"] == "ok"


def test_breakers_are_listed_and_reset(hub: Hub, crm: str, target: HttpTarget) -> None:
    target.on("/users", 500)
    hub("service", "edit", "crm", "--set", "cb_failure_threshold=1")
    hub("emit", "--name", EVENT, "--data", "{}")
    hub("tasks", "run")
    (circuit,) = read(hub, "breaker", "list")
    assert circuit["state"] == "open" and circuit["service"] == "crm" and circuit["retry_at"] and circuit["failures"]
    assert read(hub, "breaker", "reset", "crm") == {"reset": ["crm"]}
    assert read(hub, "breaker", "list")[0]["state"] == "closed"
    stats = read(hub, "stats")
    assert stats["dead"] == 0 and stats["delayed"] == 1 and stats["breakers"]


def test_preview_shows_the_request_for_an_event_that_was_really_seen(hub: Hub, crm: str) -> None:
    hub("rule", "preview", "users", code=1)
    hub("emit", "--name", EVENT, "--data", '{"objectid": 11}')
    row = read(hub, "rule", "preview", "users")
    assert (row["body"], row["endpoint"], row["method"]) == ({"id": 11}, "/users", "POST")
    assert read(hub, "rule", "preview", "users", "--data", '{"objectid": null}')["body"] == {"id": None}


def test_accounts(hub: Hub) -> None:
    hub("user", "add", "eve", "--role", "manage", stdin="correct horse battery\n")
    hub("user", "add", "bob", stdin="correct horse battery\n")
    assert {row["name"]: row["role"] for row in read(hub, "user", "list")} == {"eve": "manage", "bob": "view"}
    assert "last user" in str(hub("user", "delete", "eve", "--yes", code=1).exception)
    token = read(hub, "token", "add", "moodle", "--expires", 30)
    assert token["token"] and token["token"] not in hub("token", "list", "--json").stdout
    hub("token", "revoke", "moodle")
    assert read(hub, "token", "list")[0]["revoked_at"]
    assert "/login/link/" in hub("user", "link").stdout


def run(env: dict[str, str], *args: str, **more: Any) -> subprocess.Popen[str]:
    env = {k: v for k, v in env.items() if k != "HUB_BROKER_URL"}
    return subprocess.Popen(
        [sys.executable, "-c", "from hub.cli import main; main()", *args],
        env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more,
    )  # fmt: skip


def test_as_a_program_errors_are_on_stderr_with_the_right_code(hub_env: dict[str, str]) -> None:
    for args, code, says in (
        (["service", "show", "nope", "--json"], 1, "error: no service named 'nope'"),
        (["nope"], 2, "No such command"),
        (["--version"], 0, ""),
    ):
        process = run(hub_env, *args)
        out, err = process.communicate(timeout=30)
        assert (process.returncode, says in err) == (code, True), err
        assert "Traceback" not in err and (code == 0) == bool(out)


def test_a_database_that_is_away_is_said_in_one_line(hub_env: dict[str, str]) -> None:
    process = run({**hub_env, "HUB_DATABASE_URL": "postgresql://me:canary@127.0.0.1:1/x"}, "tasks", "list")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1 and "database does not answer" in err and "canary" not in err


def test_ctrl_c_finishes_the_attempt_and_leaves_no_claim(
    hub: Hub, crm: str, target: HttpTarget, hub_env: dict[str, str]
) -> None:
    """Interrupted in mid-attempt: the answer is still recorded, nothing new begins, nothing stays claimed."""
    arrived, go = threading.Event(), threading.Event()

    def hold(_: object) -> Reply:
        arrived.set()
        go.wait(20)
        return Reply(204)

    target.on("/users", hold)
    for i in range(3):
        hub("emit", "--name", EVENT, "--data", json.dumps({"objectid": i}))
    process = run(hub_env, "tasks", "run", start_new_session=True)
    assert arrived.wait(20)
    os.kill(process.pid, signal.SIGINT)
    go.set()
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    states = [row["state"] for row in read(hub, "tasks", "list")]
    assert states == ["pending"] * 2 and len(target.seen) == 1
