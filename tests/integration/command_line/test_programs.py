"""`hub` as a program: exit codes, stderr, signals, no server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from tests.integration.command_line.commands import EVENT, Hub, read, run
from tests.support.http_target import HttpTarget, Reply


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
    assert process.returncode == 1 and "database does not respond" in err and "canary" not in err


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


def test_help_does_not_load_what_it_does_not_need(hub_env: dict[str, str]) -> None:
    code = (
        "import sys\ntry:\n from hub.cli import main; sys.argv = ['hub', '--help']; main()\nfinally:\n"
        " heavy = {'dramatiq', 'fastapi', 'psycopg', 'pika', 'zeep', 'pydantic', 'requests', 'prometheus_client'}\n"
        " print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=hub_env, capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]" and "dlq" in done.stdout


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
