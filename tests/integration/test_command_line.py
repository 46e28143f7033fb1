"""The command line against a real database: what people and scripts get from it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pika
import psycopg
import pytest
from typer.testing import CliRunner, Result

from hub.cli.app import app
from hub.errors import HubError
from tests.support.http_target import HttpTarget, Reply

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


def read(hub: Hub, *args: object, code: int = 0) -> Any:
    return json.loads(hub(*args, "--json", code=code).stdout)


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
        result = read(hub, "tasks", "run", "--id", task, code=1)
        assert result["tasks"][0]["result"] == "failed"
        assert read(hub, "tasks", "failures")[0]["attempts"] == attempt
    assert read(hub, "tasks", "run", "--failed", code=1)["dead"] == 1
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
        (["service", "add", "x"], 1, "base_url: required; give --base-url"),
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
    hub("tasks", "run", code=1)
    assert read(hub, "tasks", "list")[0]["state"] == "delayed"
    assert "go on where they were" in hub("tasks", "retry", event["tasks"][0]).stdout
    (task,) = read(hub, "tasks", "list")
    assert (task["state"], task["attempts"]) == ("pending", 1)
    assert read(hub, "tasks", "retry", "--failed", "--restart")["attempts_restarted"] is True
    assert read(hub, "tasks", "list")[0]["attempts"] == 0
    assert read(hub, "tasks", "delete", event["tasks"][0], "--yes") == {"deleted": event["tasks"]}


def test_parallel_really_runs_at_once(hub: Hub, crm: str, target: HttpTarget) -> None:
    """Each request waits until all four are there: one at a time would never end well."""
    together = threading.Barrier(4, timeout=4.5)

    def wait(_: object) -> Reply:
        together.wait()
        return Reply(204)

    target.on("/users", wait)
    for i in range(4):
        hub("emit", "--name", EVENT, "--data", json.dumps({"objectid": i}))
    assert read(hub, "tasks", "run", "--parallel", 4)["delivered"] == 4


def test_failed_tasks_that_wait_for_a_thread_are_left_as_they_are(
    hub: Hub, crm: str, target: HttpTarget, database_url: str
) -> None:
    """Made due all at once, workers beside the command would take them: 24 at once instead of 2."""
    hub("service", "edit", "crm", "--set", "cb_failure_threshold=0")
    target.on("/users", 500)
    for i in range(6):
        hub("emit", "--name", EVENT, "--data", json.dumps({"objectid": i}))
    assert read(hub, "tasks", "run", code=1)["failed"] == 6
    seen: list[tuple[int, int]] = []

    def look(_: object) -> Reply:
        with psycopg.connect(database_url) as conn:
            row = conn.execute("SELECT count(*) FILTER (WHERE state IN ('pending', 'queued')),"
                               " count(*) FILTER (WHERE state = 'running') FROM tasks").fetchone()  # fmt: skip
        assert row
        seen.append(row)
        return Reply(204)

    target.on("/users", look)
    result = read(hub, "tasks", "run", "--failed", "--parallel", 2)
    assert (result["ran"], result["delivered"], result["skipped"]) == (6, 6, 0)
    assert len(seen) == 6 and all(due == 0 and running <= 2 for due, running in seen)


def test_a_task_that_a_worker_has_claimed_is_not_reported_as_skipped(
    hub: Hub, crm: str, target: HttpTarget, database_url: str
) -> None:
    (event,) = read(hub, "emit", "--name", EVENT, "--data", "{}")
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute("UPDATE tasks SET state = 'running', worker = 'other', lease_until = now() + interval '1 hour'")
    result = read(hub, "tasks", "run", "--id", event["tasks"][0])
    assert (result["ran"], result["elsewhere"], result["skipped"]) == (0, 1, 0) and target.seen == []


def test_a_run_shows_payload_and_response_and_fails_when_a_task_fails(hub: Hub, crm: str, target: HttpTarget) -> None:
    target.on("/users", Reply(422, body=b'{"why": "no such user"}'))
    hub("emit", "--name", EVENT, "--data", '{"objectid": 5}')
    moodle = "\\local_integrationhub\\task\\dispatch_event_task"
    shown = hub("tasks", "run", "--task", moodle, code=1)
    assert 'payload: {"id":5}' in shown.stdout and "no such user" in shown.stdout and "1 failed" in shown.stdout
    target.on("/users", 204)
    (row,) = read(hub, "tasks", "run", "--failed")["tasks"]
    assert (row["status"], json.loads(row["request_body"]), row["attempt"]) == (204, {"id": 5}, 2)


def test_one_task_log_has_attempts_and_scheduled_runs(hub: Hub, crm: str, target: HttpTarget) -> None:
    target.on("/users", 500)
    (event,) = read(hub, "emit", "--name", EVENT, "--data", "{}")
    hub("tasks", "run", code=1)
    hub("tasks", "run", "--task", "housekeeping_task")
    (attempt,) = read(hub, "log", "runs", "--task", "\\local_integrationhub\\task\\dispatch_event_task")
    assert (attempt["result"], attempt["service"], attempt["task_id"]) == ("error", "crm", event["tasks"][0])
    assert attempt["host"] and attempt["pid"] and "500" in attempt["error"]
    assert [row["name"] for row in read(hub, "log", "runs")] == ["housekeeping_task", "dispatch_event_task"]
    assert [row["name"] for row in read(hub, "log", "runs", "--failed")] == ["dispatch_event_task"]
    assert read(hub, "log", "runs", "--service", "crm", "--task", "dispatch_event_task") == [attempt]
    assert "nope_task" in hub("log", "runs", "--task", "nope_task", code=2).stderr
    hub("log", "runs", "--before", 5, code=2)


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
    hub("tasks", "run", code=1)
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


def test_ids_go_into_the_file_and_the_progress_to_the_terminal(
    hub: Hub, crm: str, hub_env: dict[str, str], tmp_path: Path
) -> None:
    """stderr is a terminal, stdout a file: the bar used to take what was printed."""
    events = tmp_path / "events.ndjson"
    events.write_text("".join(json.dumps({"name": EVENT, "data": {"objectid": n % 3}}) + "\n" for n in range(4)))
    mine, theirs = os.openpty()
    env = {k: v for k, v in hub_env.items() if k != "HUB_BROKER_URL"} | {"TERM": "xterm"}
    with (tmp_path / "ids").open("wb") as ids:
        command = [sys.executable, "-c", "from hub.cli import main; main()", "emit", str(events)]
        process = subprocess.Popen(command, env=env, stdout=ids, stderr=theirs)
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(mine, 4096):
            shown += piece
    except OSError:
        pass  # the other end is closed: the program has ended
    os.close(mine)
    assert process.wait(90) == 0
    assert len((tmp_path / "ids").read_text().split()) == 4
    assert b"4 event(s) accepted, 1 of them duplicates; 3 task(s)" in shown


def test_as_a_program_errors_are_on_stderr_with_the_right_code(hub_env: dict[str, str]) -> None:
    for args, code, says in (
        (["service", "show", "nope", "--json"], 1, "error: no service named 'nope'"),
        (["nope"], 2, "No such command"),
        (["--version"], 0, ""),
    ):
        process = run(hub_env, *args)
        out, err = process.communicate(timeout=90)
        assert (process.returncode, says in err) == (code, True), err
        assert "Traceback" not in err and (code == 0) == bool(out)


def test_a_database_that_is_away_is_said_in_one_line(hub_env: dict[str, str]) -> None:
    process = run({**hub_env, "HUB_DATABASE_URL": "postgresql://me:canary@127.0.0.1:1/x"}, "tasks", "list")
    _, err = process.communicate(timeout=90)
    assert process.returncode == 1 and "database does not answer" in err and "canary" not in err


def test_ctrl_c_finishes_the_attempt_and_leaves_no_claim(
    hub: Hub, crm: str, target: HttpTarget, hub_env: dict[str, str]
) -> None:
    """Interrupted in mid-attempt: the answer is still recorded, nothing new begins, nothing stays claimed."""
    arrived, go = threading.Event(), threading.Event()

    def hold(_: object) -> Reply:
        arrived.set()
        go.wait(90)
        return Reply(204)

    target.on("/users", hold)
    for i in range(3):
        hub("emit", "--name", EVENT, "--data", json.dumps({"objectid": i}))
    process = run(hub_env, "tasks", "run", start_new_session=True)
    assert arrived.wait(90)
    os.kill(process.pid, signal.SIGINT)
    go.set()
    _, err = process.communicate(timeout=90)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    states = [row["state"] for row in read(hub, "tasks", "list")]
    assert states == ["pending"] * 2 and len(target.seen) == 1


LISTINGS = ("service list", "rule list", "tasks list", "tasks failures", "dlq list", "log list", "log runs",
            "breaker list", "user list", "token list")  # fmt: skip


def test_an_empty_hub_lists_empty_arrays_and_tells_people_what_is_next(hub: Hub) -> None:
    """Scripts get `[]`; a person gets a hint on stderr, and stdout stays empty for the next in the pipe."""
    for listing in LISTINGS:
        assert read(hub, *listing.split()) == [], listing
        said = hub(*listing.split())
        assert said.stdout == "" and said.stderr.strip() not in ("", "nothing matches this filter"), listing


@pytest.mark.parametrize(
    "listing",
    ["rule list --service nobody", "tasks list --state held", "tasks list --failed", "tasks list --before 1",
     "tasks failures --service nobody", "dlq list --since 1h", "dlq list --reason expired", "log list --task 0",
     "log list --failed", "log list --until 1h", "log runs --failed", "log runs --task housekeeping_task"],
)  # fmt: skip
def test_a_filter_that_leaves_nothing_does_not_say_that_there_is_nothing(hub: Hub, listing: str) -> None:
    """Who has mistyped a name and is told "no rules yet" looks in the wrong place."""
    said = hub(*listing.split())
    assert said.stdout == "" and said.stderr.strip() == "nothing matches this filter"


def test_in_a_pipe_a_row_is_one_line_and_wide_cells_are_cut(hub: Hub, crm: str) -> None:
    """`hub tasks list | grep` must find a task as one line, whatever its error's length."""
    hub("rule", "edit", "users", "--endpoint", "/" + "x" * 500)
    hub("emit", "--name", "a\\" + "y" * 200, "--data", "{}")
    hub("emit", "--name", EVENT, "--data", "{}")
    for listing in ("rule list", "tasks list", "service list", "breaker list"):
        lines = hub(*listing.split()).stdout.splitlines()
        assert len(lines) == 2 and max(map(len, lines)) < 500, listing


def test_pruning_is_shown_and_asked_before_it_is_done(hub: Hub, crm: str, tmp_path: Path) -> None:
    """One wrong file must not delete a configuration unasked."""
    file = tmp_path / "hub.yaml"
    file.write_text("services: [{name: new, base_url: 'http://127.0.0.1:9'}]")
    dry = read(hub, "apply", file, "--prune", "--dry-run")
    assert [(row["kind"], row["name"], row["action"]) for row in dry] == [
        ("service", "new", "add"), ("rule", "users", "delete"), ("service", "crm", "delete")
    ]  # fmt: skip
    said = hub("apply", file, "--prune", "--dry-run").stdout
    assert "- service crm" in said and "- rule users" in said and "3 would change" in said
    said = hub("apply", file, "--prune", code=2).stderr  # nobody there to ask
    assert "crm" in said and "--yes" in said
    assert [row["name"] for row in read(hub, "service", "list")] == ["crm"]
    hub("emit", "--name", EVENT, "--data", '{"objectid": 1}')
    assert "- service crm" in hub("apply", file, "--prune", "--yes").stdout
    assert [row["name"] for row in read(hub, "service", "list")] == ["new"] and read(hub, "rule", "list") == []
    assert len(read(hub, "tasks", "list", "--orphan")) == 1
    assert "nothing to do" in hub("apply", file, "--prune").stdout


def test_fields_are_texts_where_texts_belong_and_one_header_leaves_the_others(hub: Hub, crm: str) -> None:
    hub("service", "edit", "crm", "--set", "headers.X-Tenant=7", "--set", "secret_headers.X-One=canary1")
    hub("service", "edit", "crm", "--set", "headers.X-Flag=true", "--set", "secret_headers.X-Two=2")
    row = read(hub, "service", "show", "crm")
    assert row["headers"] == {"X-Tenant": "7", "X-Flag": "true"}
    assert row["secret_headers"] == {"X-One": "***", "X-Two": "***"}
    hub("service", "edit", "crm", "--set", "headers={}", "--set", "rate_limit=2.5", "--set", "auth.token=123456")
    row = read(hub, "service", "show", "crm")
    assert "headers" not in row and row["rate_limit"] == 2.5 and row["auth"]["type"] == "bearer"
    assert "nothing to change" in hub("service", "edit", "crm", code=2).stderr
    assert "nothing to change" in hub("rule", "edit", "users", code=2).stderr


def test_preview_takes_one_stored_event_by_its_id(hub: Hub, crm: str) -> None:
    first, second = (hub("emit", "--name", EVENT, "--data", f'{{"objectid": {i}}}').stdout.strip() for i in (1, 2))
    assert read(hub, "rule", "preview", "users", "--event-id", first)["body"] == {"id": 1}
    assert read(hub, "rule", "preview", "users", "--event-id", second)["body"] == {"id": 2}
    assert "nope" in str(hub("rule", "preview", "users", "--event-id", "nope", code=1).exception)


def test_what_was_accepted_before_a_bad_line_is_in_the_json_too(hub: Hub, crm: str, tmp_path: Any) -> None:
    """More than a batch before it: whole batches and the part before the bad line, each event once."""
    file = tmp_path / "events.ndjson"
    good = [json.dumps({"name": EVENT, "data": {"objectid": i}}) for i in range(620)]
    file.write_text("\n".join([*good, '{"name": "x", "data": {}, "extra": 1}', good[0]]))
    result = hub("emit", file, "--json", code=1)
    accepted = json.loads(result.stdout)
    assert len({row["id"] for row in accepted}) == 620 and all(len(row["tasks"]) == 1 for row in accepted)
    assert "line 621: extra" in str(result.exception)
    hub("emit", "--name", "x", "--data", "{", "--json", code=2)


def test_dead_letters_go_by_service_time_and_number(hub: Hub, crm: str, target: HttpTarget) -> None:
    """A replay takes what was there when it began; an orphan stays and is told; deleting leaves newcomers."""
    target.on("/users", 400)
    hub("service", "edit", "crm", "--set", "max_attempts=1")
    for i in range(3):
        hub("emit", "--name", EVENT, "--data", json.dumps({"objectid": i}))
    result = hub("tasks", "run", code=1)
    assert "3 dead" in result.stdout and "400" in result.stderr
    letters = read(hub, "dlq", "list", "--service", "crm", "--since", "1h")
    assert [row["reason"] for row in letters] == ["attempts"] * 3
    assert read(hub, "dlq", "list", "--until", "1h") == []
    one = read(hub, "dlq", "show", letters[0]["id"])
    assert one["event_data"] == {"objectid": 2} and len(one["deliveries"]) == 1
    assert read(hub, "dlq", "replay", "--service", "crm", "--since", "1h")["replayed"] == 3
    assert read(hub, "tasks", "run", code=1)["dead"] == 3
    hub("dlq", "delete", "--all", code=2)  # nobody there to ask
    assert read(hub, "dlq", "delete", read(hub, "dlq", "list")[0]["id"], "--yes") == {"deleted": 1}
    hub("rule", "delete", "users", "--yes")
    dry = {"replayed": 0, "tasks": [], "orphans": 2, "would_replay": 0}
    assert read(hub, "dlq", "replay", "--all", "--dry-run") == dry
    assert read(hub, "dlq", "replay", "--all") == {"replayed": 0, "tasks": [], "orphans": 2}
    assert read(hub, "dlq", "delete", "--all", "--yes") == {"deleted": 2} and read(hub, "dlq", "list") == []


@pytest.mark.parametrize("odd", ['{"a": "\\ud800"}', '{"a": 1e999}', "no JSON"])
def test_a_row_that_is_no_json_is_shown_and_exported_as_it_is(
    hub: Hub, crm: str, target: HttpTarget, database_url: str, odd: str
) -> None:
    """An export that stops at one row that somebody edited by hand is no export."""
    import psycopg

    target.on("/users", 400)
    hub("service", "edit", "crm", "--set", "max_attempts=1")
    for i in range(2):
        hub("emit", "--name", EVENT, "--data", json.dumps({"objectid": i}))
    hub("tasks", "run", code=1)
    (event,) = read(hub, "emit", "--name", EVENT, "--data", '{"objectid": 2}')
    newest, _ = read(hub, "dlq", "list")
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute("UPDATE dead_letters SET event_data = %s WHERE id = %s", [odd, newest["id"]])
        conn.execute("UPDATE events SET data = %s", [odd])
    assert read(hub, "dlq", "show", newest["id"])["event_data"] == odd
    assert read(hub, "tasks", "show", event["tasks"][0])["event_data"] == odd
    assert hub("dlq", "show", newest["id"]).stdout and hub("tasks", "show", event["tasks"][0]).stdout
    lines = [json.loads(line) for line in hub("dlq", "export").stdout.splitlines()]
    assert [line["event_data"] for line in lines] == [odd, {"objectid": 0}]


@pytest.mark.parametrize("way", ["enable", "edit"])
def test_what_was_held_for_days_does_not_die_the_moment_it_may_run(
    hub: Hub, crm: str, target: HttpTarget, database_url: str, way: str
) -> None:
    import psycopg

    hub("service", "disable", "crm")
    hub("emit", "--name", EVENT, "--data", '{"objectid": 1}')
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute("UPDATE tasks SET expires_at = now() - interval '1 second'")
    hub("service", "enable", "crm") if way == "enable" else hub("service", "edit", "crm", "--set", "enabled=true")
    assert read(hub, "tasks", "run")["delivered"] == 1 and len(target.seen) == 1


def test_help_does_not_load_what_it_does_not_need(hub_env: dict[str, str]) -> None:
    code = (
        "import sys\ntry:\n from hub.cli import main; sys.argv = ['hub', '--help']; main()\nfinally:\n"
        " heavy = {'dramatiq', 'fastapi', 'psycopg', 'pika', 'zeep', 'pydantic', 'requests', 'prometheus_client'}\n"
        " print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=hub_env, capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]" and "dlq" in done.stdout


def test_the_log_is_followed_until_ctrl_c(hub: Hub, crm: str, target: HttpTarget, hub_env: dict[str, str]) -> None:
    """What was there, then what comes, each once."""
    hub("emit", "--name", EVENT, "--data", '{"objectid": 1}')
    hub("tasks", "run")
    process = run(hub_env, "log", "list", "--follow", "--json", start_new_session=True)
    assert process.stdout
    rows = [json.loads(process.stdout.readline())]
    hub("emit", "--name", EVENT, "--data", '{"objectid": 2}')
    hub("tasks", "run")
    rows.append(json.loads(process.stdout.readline()))
    os.kill(process.pid, signal.SIGINT)
    rest, err = process.communicate(timeout=90)
    assert (process.returncode, rest) == (130, "") and "Traceback" not in err
    assert [json.loads(row["request_body"]) for row in rows] == [{"id": 1}, {"id": 2}]


def test_events_come_through_a_pipe_too(hub: Hub, crm: str, hub_env: dict[str, str]) -> None:
    process = run(hub_env, "emit", "-", stdin=subprocess.PIPE)
    out, err = process.communicate('{"name": "a"}\n{"name": "b"}\n', timeout=90)
    assert (process.returncode, len(out.split())) == (0, 2), err


def test_response_queues_are_read_by_a_command(hub: Hub, broker_url: str, queue_prefix: str) -> None:
    """`--execute` of the scheduled task, on a real RabbitMQ: all that waits, JSON or not, is in the log."""
    queue = f"{queue_prefix}.answers"
    connection = pika.BlockingConnection(pika.URLParameters(broker_url))
    channel = connection.channel()
    channel.queue_declare(queue, durable=True)
    for body in (b'{"ok": 1}', b"42", b"no json"):
        channel.basic_publish("", queue, body)
    hub("service", "add", "mq", "--type", "amqp", "--base-url", f"{broker_url}?queue_declare={queue_prefix}.out",
        "--response-queue", queue)  # fmt: skip
    result = read(hub, "tasks", "run", "--task", "consume_responses_task", "--parallel", 2)
    assert (result["ran"], result["ok"], result["messages"]) == (1, 1, 3)
    rows = read(hub, "log", "list", "--direction", "inbound", "--service", "mq")
    assert [row["success"] for row in rows] == [False, True, True] and "JSON" in rows[0]["error"]
    (seen,) = read(hub, "log", "runs", "--task", "consume_responses_task")
    assert (seen["service"], seen["result"]) == ("mq", "ok")
    assert "mq" in hub("stats").stdout
    channel.queue_delete(queue)
    connection.close()


def test_without_any_server_each_command_has_its_own_and_leaves_none(tmp_path: Path) -> None:
    """Embedded: the first command makes the database, the second finds what the first did."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("HUB_")} | {"HUB_HOME": str(tmp_path / "home")}
    for args in (
        ["service", "add", "crm", "--base-url", "http://127.0.0.1:9"],
        ["rule", "add", "r", "--event", "a", "--service", "crm"],
        ["emit", "--name", "a", "--data", "{}"],
    ):
        process = run(env, *args)
        _, err = process.communicate(timeout=90)
        assert process.returncode == 0, err
    process = run(env, "tasks", "list", "--json")
    out, err = process.communicate(timeout=90)
    assert [(row["rule"], row["state"]) for row in json.loads(out)] == [("r", "pending")], err
    assert not [p for p in command_lines() if str(tmp_path) in p]


def command_lines() -> list[str]:
    """Command lines of the processes that live."""
    lines = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                lines.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            except OSError:
                continue
    return lines


def test_odd_words_end_in_one_line_not_in_a_traceback(hub: Hub, tmp_path: Path) -> None:
    """Numbers beyond bigint, bytes that are no UTF-8, files that cannot be written."""
    for args, code in (
        (["log", "runs", "--before", 10**20], 2),
        (["tasks", "show", 10**20], 1),
        (["service", "add", "a", "--base-url", "http://x", "--set", "auth=1", "--token", "x"], 2),
        (["service", "add", "\udcff", "--base-url", "http://x"], 1),
        (["dlq", "list", "--service", "\udcff"], 2),
        (["log", "list", "--event", "\udcff*"], 2),
        (["schedule", "show", "\udcff"], 2),
        (["emit", "--name", "\udcff"], 1),
        (["export", "-o", tmp_path / "no" / "file"], 2),
        (["dlq", "export", "-o", tmp_path], 2),
        (["apply", tmp_path], 2),
        (["token", "add", "t", "--expires", 10**9], 2),
    ):
        assert not hub(*args, code=code).stdout, args
    hub("export", "-o", tmp_path / "hub.yaml")
    assert "nothing to do" in hub("apply", tmp_path / "hub.yaml").stdout
