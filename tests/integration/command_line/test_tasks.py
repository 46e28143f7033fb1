"""`hub tasks` and `hub log`."""

from __future__ import annotations

import json
import os
import signal
import threading

import psycopg
import pytest

from tests.integration.command_line.commands import EVENT, Hub, read, run
from tests.support.http_target import HttpTarget, Reply


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
    assert "stay counted" in hub("tasks", "retry", event["tasks"][0]).stdout
    (task,) = read(hub, "tasks", "list")
    assert (task["state"], task["attempts"]) == ("pending", 1)
    assert read(hub, "tasks", "retry", "--failed", "--restart")["attempts_restarted"] is True
    assert read(hub, "tasks", "list")[0]["attempts"] == 0
    assert read(hub, "tasks", "delete", event["tasks"][0], "--yes") == {"deleted": event["tasks"]}


def test_parallel_really_runs_at_once(hub: Hub, crm: str, target: HttpTarget) -> None:
    """Each request waits until all four are there: one at a time would never end well."""
    together = threading.Barrier(4, timeout=110)
    hub("service", "edit", "crm", "--set", "timeout=120")

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
            row = conn.execute(
                "SELECT count(*) FILTER (WHERE state IN ('pending', 'queued')),"
                " count(*) FILTER (WHERE state = 'running') FROM tasks"
            ).fetchone()
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
