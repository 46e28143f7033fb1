"""What a rule would have done with the latest events, before it is enabled."""

from __future__ import annotations

from hub.app.lifecycle import Hub
from hub.operations.trial import trial
from tests.support.api import Api, problem
from tests.support.http_target import HttpTarget
from tests.support.hubs import add_rule, add_service, count, emit, emit_many


def test_it_says_what_would_have_become_of_the_latest_events(hub: Hub, target: HttpTarget) -> None:
    add_service(hub, target.url, mask=["secret"])
    emit_many(hub, 10, "old")
    emit_many(hub, 20, "other")
    emit_many(hub, 30, "e")
    emit(hub, "e", {"n": 5, "who": "ann", "secret": "hidden from all"})
    payload, wanted = {"who": "{{who}}", "secret": "{{secret}}"}, {"n": {"lt": 10}}
    rule = add_rule(hub, conditions=wanted, endpoint="/{{secret}}", payload=payload, strict=True, enabled=False)
    before = count(hub, "tasks"), count(hub, "events")
    found = trial(hub, rule, 51)
    assert (found.events, found.other_name, found.conditions_failed) == (51, 20, 20)
    assert (found.matched, found.failed) == (11, 10)
    [(error, number)] = found.errors
    assert "{{who}}" in error and number == 10
    [request] = found.requests
    assert request["body"] == {"who": "ann", "secret": "***"} and request["endpoint"] == "/***"
    assert (count(hub, "tasks"), count(hub, "events")) == before, "nothing is sent or stored"


def test_the_api_tries_a_rule_that_is_not_saved(api: Api, target: HttpTarget) -> None:
    add_service(api.hub, target.url)
    emit_many(api.hub, 3)
    add_rule(api.hub)
    view = api.client("view")
    saved = view.post("/api/v1/rules/r1/trial").json()
    assert (saved["events"], saved["matched"], len(saved["requests"])) == (3, 3, 3)
    unsaved = {"name": "r1", "event": "nothing", "service": "crm"}
    assert view.post("/api/v1/rules/r1/trial", json={"rule": unsaved, "last": 2}).json()["other_name"] == 2
    problem(view.post("/api/v1/rules/r1/trial", json={"last": 0}), 422, "last")
    problem(view.post("/api/v1/rules/none/trial"), 404)
