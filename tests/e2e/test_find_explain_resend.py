"""A person's question, from the event to the answer: found by a user's id, explained, sent again, and who did it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hub.settings import Settings
from tests.support import clients
from tests.support.http_target import HttpTarget, Reply
from tests.support.site import Site
from tests.support.waiting import eventually

EVENT = "\\core\\event\\user_enrolment_created"


def test_a_users_event_is_found_explained_and_sent_again(settings: Settings, tmp_path: Path) -> None:
    """1,000 events, two of them user 42's; one rule delivers, a rule that is added later has a service that fails."""
    settings = settings.model_copy(update={"retry_delays": (600.0,)})
    with Site(settings, tmp_path) as site, HttpTarget() as target:

        def read(*words: str) -> Any:
            return json.loads(site.run(*words, "--json"))

        target.on("/down", Reply(503))
        site.run("service", "add", "crm", "--base-url", target.url)
        site.run("rule", "add", "all", "--event", EVENT, "--service", "crm", "--endpoint", "/up")
        file = tmp_path / "events.ndjson"
        lines = [{"eventname": EVENT, "objectid": n, "userid": 2, "relateduserid": n % 500} for n in range(1000)]
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        sent = site.run("emit", str(file)).split()
        site.start("worker", "--processes", "1", "--threads", "8")
        site.start("web")
        eventually(lambda: len(target.seen) >= 1000, "all are delivered")

        found = read("events", "search", "relateduserid:42")
        assert {row["id"] for row in found} == {sent[42], sent[542]}
        token = read("token", "add", "reader", "--scope", "view")["token"]
        api = f"http://{site.address('web')}/api/v1/events"
        headers = {"Authorization": f"Bearer {token}"}
        page = clients.get(api, params={"q": "relateduserid:42"}, headers=headers).json()
        assert {row["id"] for row in page["items"]} == {sent[42], sent[542]}

        site.run("service", "add", "lms", "--base-url", target.url, "--max-retries", "1")
        site.run(
            "rule",
            "add",
            "late",
            "--event",
            EVENT,
            "--service",
            "lms",
            "--endpoint",
            "/down",
            "--conditions",
            '{"relateduserid": 42}',
        )
        assert read("rule", "backfill", "late", "--since", "1h", "--dry-run")["tasks"] == 2
        site.run("rule", "backfill", "late", "--since", "1h", "--yes")
        eventually(lambda: len(read("tasks", "list", "--state", "delayed")) == 2, "both failed once")
        again = read("rule", "backfill", "late", "--since", "1h", "--dry-run")
        assert (again["matched"], again["skipped"], again["tasks"]) == (2, 2, 0), "no event gets a second task"

        story = read("events", "show", sent[42])
        why = {rule["rule"]: (rule["matched"], rule["reason"]) for rule in story["rules"]}
        assert why["all"][0] and why["late"][0] and why["late"][1]
        (waiting,) = [task for task in story["tasks"] if task["rule"] == "late"]
        assert waiting["waits_for"].startswith("retry 2 of 5 at ")
        other = {rule["rule"]: rule for rule in read("events", "show", sent[43])["rules"]}
        assert other["late"]["matched"] is False and "relateduserid" in other["late"]["reason"]

        (delivered,) = [row for row in story["deliveries"] if row["service"] == "crm"]
        before = len(target.seen)
        assert read("log", "resend", str(delivered["id"]))["resent"] == 1
        eventually(lambda: any(s.json()["objectid"] == 42 and s.path == "/up" for s in target.seen[before:]), "again")
        done = [row["action"] for row in read("activity", "list")]
        assert {"delivery.resend", "backfill.start", "rule.add", "service.add", "token.add"} <= set(done)
