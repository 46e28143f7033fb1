"""`hub dlq`."""

from __future__ import annotations

import json

import psycopg
import pytest

from tests.integration.command_line.commands import EVENT, Hub, read
from tests.support.http_target import HttpTarget


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
