"""`hub events`: list, search, show."""

from __future__ import annotations

import json
from pathlib import Path

from tests.integration.command_line.commands import EVENT, Hub, read
from tests.support.hubs import USER_LOGGED_IN


def test_an_event_is_found_by_what_it_is_about(hub: Hub, crm: str, tmp_path: Path) -> None:
    """What a person asks: user 42's enrolment did not arrive."""
    lines = [
        json.dumps({"name": "enrolled", "data": USER_LOGGED_IN | {"relateduserid": n, "n": n}}) for n in (41, 42, 43)
    ]
    path = tmp_path / "events.ndjson"
    path.write_text("\n".join(lines))
    ids = hub("emit", path).stdout.split()
    [found] = read(hub, "events", "search", "relateduserid:42")
    assert found["id"] == ids[1] and found["state"] == "unmatched"
    assert [row["id"] for row in read(hub, "events", "search", "other.username:student1 n:43")] == [ids[2]]
    assert "enrolled" in hub("events", "search", "relateduserid:42").stdout
    assert hub("events", "search", "relateduserid:1").stderr.strip().endswith("no event matches")
    story = read(hub, "events", "show", ids[1])
    assert [(rule["rule"], rule["matched"]) for rule in story["rules"]] == [("users", False)]
    assert story["rules"][0]["reason"] == f"the event's name is not {EVENT}"
    assert [row["id"] for row in read(hub, "events", "list", "--unmatched")] == ids[::-1]
    assert read(hub, "events", "list", "--name", "x*") == []


def test_a_task_says_what_it_waits_for(hub: Hub, crm: str) -> None:
    event_id = hub("emit", "--name", EVENT, "--data", '{"objectid": 5}').stdout.strip()
    [task] = read(hub, "tasks", "list")
    assert task["waits_for"] == "no worker is running"
    hub("rule", "disable", "users")
    assert read(hub, "tasks", "show", task["id"])["waits_for"] == "rule users disabled"
    refused = hub("tasks", "retry", task["id"], code=1)
    assert "cannot run now: rule users disabled" in str(refused.exception)
    assert read(hub, "tasks", "run", "--id", task["id"])["tasks"][0]["error"] == "rule users disabled"
    story = read(hub, "events", "show", str(task["id"]))
    assert story["id"] == event_id and story["tasks"][0]["waits_for"] == "rule users disabled"
    assert "rule users disabled" in hub("events", "show", event_id).stdout


def test_a_search_that_cannot_be_read_is_a_usage_error(hub: Hub) -> None:
    assert "neither an HTTP status" in hub("events", "search", "status:gone", code=2).output
    assert "no event" in str(hub("events", "show", "none", code=1).exception)
