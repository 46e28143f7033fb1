"""`hub emit`: files, pipes, ids and progress."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.integration.command_line.commands import EVENT, Hub, read, run
from tests.support.http_target import HttpTarget


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


def test_a_file_of_events_stops_at_the_bad_line_and_says_which(hub: Hub, crm: str, tmp_path: Any) -> None:
    file = tmp_path / "events.ndjson"
    file.write_text(
        '{"name": "a", "data": {}}\n\n{"eventname": "\\\\core\\\\x", "userid": 1}\n{"nome": 1}\n{"name": "b"}\n'
    )
    result = hub("emit", file, code=1)
    assert len(result.stdout.split()) == 2
    assert "line 4" in str(result.exception) and "name" in str(result.exception)


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


def test_events_come_through_a_pipe_too(hub: Hub, crm: str, hub_env: dict[str, str]) -> None:
    process = run(hub_env, "emit", "-", stdin=subprocess.PIPE)
    out, err = process.communicate('{"name": "a"}\n{"name": "b"}\n', timeout=90)
    assert (process.returncode, len(out.split())) == (0, 2), err
