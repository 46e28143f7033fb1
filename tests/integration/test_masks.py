"""A service's `mask`: the values it covers are shown, exported and logged nowhere, and delivered all the same."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest

from hub.inbound.webhooks import WEBHOOK_RECEIVED
from hub.store.users import Role
from hub.web.passwords import hash_password
from tests.support import clients
from tests.support.api import Api
from tests.support.console import signed_in
from tests.support.http_target import HttpTarget, Reply, Seen
from tests.support.hubs import add_rule, add_service, attempt, emit

CANARY = "canary-mail@example.org"
TWICE = "canary-second@example.org"
EVENT = {"other": {"email": CANARY, "name": "Ann"}, "userid": 5}
TEMPLATE = {"user": {"email": "{{other.email}}"}, "name": "{{other.name}}", "again": "to {{other.email}}"}


def echo(seen: Seen) -> Reply:
    """A service that repeats everything in its response, where no path of the mask leads."""
    return Reply(500, {"user": {"email": TWICE}, "error": f"cannot do {seen.path}", "you": seen.body.decode()})


@pytest.fixture
def target(api: Api) -> Any:
    api.hub.lease.start()
    for role in ("view", "manage"):
        api.hub.accounts.users.add(role, hash_password("correct horse battery"), role)
    with HttpTarget() as target:
        target.default = echo
        add_service(api.hub, target.url, mask=["user.email"], max_attempts=1, cb_failure_threshold=0)
        add_rule(api.hub, payload=TEMPLATE, endpoint="/users/{{other.email}}/{{userid}}")
        yield target


def shown(api: Api, task: int) -> dict[str, str]:
    """Every page, answer and export that could show a task's event, requests and responses, for both roles."""
    views = api.hub.views
    ids = [row["id"] for row in views.deliveries.list()]
    letters = [row["id"] for row in views.dead_letters.list()]
    api_paths = [
        f"/api/v1/tasks/{task}",
        "/api/v1/tasks",
        "/api/v1/deliveries",
        "/api/v1/dead-letters",
        "/api/v1/dead-letters/export",
    ]
    api_paths += [f"/api/v1/deliveries/{i}" for i in ids] + [f"/api/v1/dead-letters/{i}" for i in letters]
    pages = [
        f"/tasks/{task}",
        "/queue",
        "/deliveries",
        "/dead-letters",
        "/dead-letters/export",
        "/services/crm",
        "/",
        "/rules/r1",
        "/events/new?name=e",
    ]
    pages += [f"/deliveries/{i}" for i in ids] + [f"/dead-letters/{i}" for i in letters]
    found: dict[str, str] = {}
    for role in get_args(Role):
        client = api.client(role)
        found |= {f"{role} {path}": client.get(path).text for path in api_paths}
        preview = client.post("/api/v1/rules/r1/preview", json={})
        found[f"{role} preview"] = preview.text
        with signed_in(api.hub, api.url, role) as browser:
            found |= {f"{role} page {path}": browser.get(path).text for path in pages}
            form = {"event": "e", "endpoint": "/{{other.email}}", "payload": json.dumps(TEMPLATE), "method": "POST"}
            found[f"{role} preview page"] = browser.post("/rules/preview", data=form).text
    return found


def test_what_a_mask_covers_is_shown_nowhere_and_delivered_all_the_same(
    api: Api, target: HttpTarget, capfd: pytest.CaptureFixture[str]
) -> None:
    [task] = emit(api.hub, data=EVENT)
    before = shown(api, task)
    assert attempt(api.hub, task) == "failed"
    after = shown(api, task)
    [seen] = target.seen
    assert seen.json()["user"]["email"] == CANARY and CANARY in seen.path.replace("%40", "@"), "the service gets it"
    for where, text in [*before.items(), *after.items(), ("log", "".join(capfd.readouterr()))]:
        for canary in (CANARY, TWICE, CANARY.replace("@", "%40")):
            assert canary not in text, where
    [row] = api.hub.views.deliveries.list()
    assert row["endpoint"] == "/users/***/5"
    assert json.loads(row["request_body"]) == {"user": {"email": "***"}, "name": "Ann", "again": "to ***"}
    assert json.loads(row["response_body"])["error"] == "cannot do /users/***/5"
    [letter] = api.hub.views.dead_letters.list(full=True)
    assert json.loads(letter["event_data"]) == {"other": {"email": "***", "name": "Ann"}, "userid": 5}
    logged = api.hub.db.all("SELECT endpoint, error, request_body, response_body FROM deliveries")
    logged += api.hub.db.all("SELECT error, payload, response_body FROM dead_letters")
    assert CANARY not in str(logged) and TWICE not in str(logged), "a log has no use for it"
    [again] = api.hub.dead_letters.replay([letter["id"]]).tasks
    target.default = 204
    assert attempt(api.hub, again) == "delivered"
    assert target.seen[-1].json()["user"]["email"] == CANARY, "a replay sends what the event said"


def test_a_mask_covers_what_was_logged_before_it_was_set(api: Api, target: HttpTarget) -> None:
    api.hub.registry.services.update("crm", {"mask": []})
    [task] = emit(api.hub, data=EVENT)
    assert attempt(api.hub, task) == "failed"
    assert CANARY in str(api.hub.views.dead_letters.list(full=True))
    api.hub.registry.services.update("crm", {"mask": ["user.email"]})
    for where, text in shown(api, task).items():
        assert CANARY not in text and TWICE not in text, where


def test_what_a_caller_sent_is_masked_as_the_caller_says_wherever_it_goes(api: Api) -> None:
    """The event of a webhook is delivered to another service, which has no mask of its own."""
    api.hub.lease.start()
    with HttpTarget(500) as target:
        add_service(api.hub, "http://127.0.0.1:9/", "caller", inbound={"token": "t0ken"}, mask=["card.number"])
        add_service(api.hub, target.url, max_attempts=1)
        add_rule(
            api.hub,
            event=WEBHOOK_RECEIVED,
            payload={"n": "{{payload.card.number}}"},
            endpoint="/{{payload.card.number}}",
        )
        call = clients.post(
            f"{api.url}/webhook/caller", json={"card": {"number": CANARY}}, headers={"X-API-Key": "t0ken"}
        )
        [task] = call.json()["tasks"]
        assert CANARY not in str(api.hub.views.tasks.get(task)) and CANARY not in str(
            api.hub.views.events.sample(WEBHOOK_RECEIVED)
        )
        assert attempt(api.hub, task) == "failed"
        assert target.seen[0].json() == {"n": CANARY}
        assert CANARY not in str(api.hub.views.dead_letters.list(full=True)) + str(api.hub.views.deliveries.list())
        assert CANARY.replace("@", "%40") not in str(api.hub.views.deliveries.list())


def test_a_response_that_is_no_json_is_hidden_as_a_whole(api: Api, target: HttpTarget) -> None:
    target.default = Reply(500, f"<p>no user {TWICE}</p>")
    [task] = emit(api.hub, data=EVENT)
    attempt(api.hub, task)
    assert api.hub.views.deliveries.list()[0]["response_body"] == "***"
