"""The console's pages of the event log and of the audit trail."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hub.models import Event
from hub.web.passwords import hash_password
from tests.support import clients
from tests.support.api import Api
from tests.support.console import signed_in
from tests.support.hubs import add_rule, add_service, attempt, emit


@pytest.fixture
def maria(api: Api) -> Iterator[clients.Client]:
    api.hub.accounts.users.add("maria", hash_password("correct horse battery"), "manage")
    with signed_in(api.hub, api.url, "maria") as client:
        yield client


def test_an_event_is_found_and_explained(api: Api, maria: clients.Client) -> None:
    hub = api.hub
    hub.lease.start()
    add_service(hub, "http://127.0.0.1:9", max_attempts=1)
    add_rule(hub, "all")
    add_rule(hub, "course", conditions={"courseid": 10})
    [task] = emit(hub, data={"relateduserid": 42, "courseid": 12}, key="order-7")
    emit(hub, data={"relateduserid": 43})
    found = maria.get("/events", params={"q": "relateduserid:42"}).text
    assert "order-7" in found and found.count('<tr id="row-') == 1
    assert maria.get("/events", params={"q": "relateduserid:41"}).text.count("No event matches") == 1
    wrong = maria.get("/events", params={"q": "status:gone"})
    assert wrong.status_code == 422 and "neither an HTTP status" in wrong.text
    page = maria.get("/events", params={"q": "order-7"})
    assert page.status_code == 303 and page.headers["location"].startswith("/events/")
    page = maria.get(page.headers["location"])
    assert "courseid is 12, and must be 10" in page.text and "no worker is running" in page.text
    assert attempt(hub, task) == "failed"
    letter = hub.views.dead_letters.list()[0]["id"]
    for to in (f"/tasks/{task}", f"/dead-letters/{letter}", f"/deliveries/{hub.views.deliveries.list()[0]['id']}"):
        assert "/events/find?id=" in maria.get(to).text, to
    for ident in (f"task:{task}", f"dead-letter:{letter}"):
        assert maria.get("/events/find", params={"id": ident}).headers["location"] == str(page.request.url.path)
    assert maria.get("/events/find", params={"id": "none"}).status_code == 404


def test_a_search_goes_on_where_it_stopped(api: Api, maria: clients.Client) -> None:
    api.hub.intake.handle_events([Event("e", {"x": "y", "n": n}) for n in range(60)])
    first = maria.get("/events", params={"q": "x:y"}).text
    assert first.count('<tr id="row-') == 50 and "Older" in first
    more = first.split('class="more"><a class="button" href="')[1].split('"')[0].replace("&amp;", "&")
    assert maria.get(more).text.count('<tr id="row-') == 10
    assert maria.get("/events").text.count('<tr id="row-') == 50


def test_run_now_of_a_task_that_cannot_run_says_why(api: Api, maria: clients.Client) -> None:
    add_service(api.hub, "http://127.0.0.1:9")
    add_rule(api.hub)
    [task] = emit(api.hub)
    api.hub.registry.rules.enable("r1", False)
    assert "rule r1 disabled" in maria.get("/queue").text and "rule r1 disabled" in maria.get(f"/tasks/{task}").text
    maria.post("/queue/act", data={"act": "retry", "id": task, "next": f"/tasks/{task}"})
    assert f"Not run: task {task} cannot run now: rule r1 disabled." in maria.get(f"/tasks/{task}").text


def test_the_activity_page_shows_who_changed_what(api: Api, maria: clients.Client) -> None:
    add_service(api.hub, "http://127.0.0.1:9", auth={"type": "bearer", "token": "canary-1"})
    add_rule(api.hub)
    maria.post("/services/crm/disable")
    page = maria.get("/activity", params={"kind": "service", "name": "crm"}).text
    assert "service.change" in page and "<del>true</del>" in page and "<ins>false</ins>" in page and "maria" in page
    assert "canary-1" not in page and "rule.add" not in page
    assert "rule.add" in maria.get("/activity", params={"action": "rule.add"}).text
    assert "No change matches" in maria.get("/activity", params={"actor": "nobody"}).text
    assert "/activity?kind=service&amp;name=crm" in maria.get("/services/crm").text
    assert "/activity?kind=rule&amp;name=r1" in maria.get("/rules/r1/edit").text


def test_who_may_only_view_sees_events_and_no_activity(api: Api) -> None:
    api.hub.accounts.users.add("vic", hash_password("correct horse battery"), "view")
    with signed_in(api.hub, api.url, "vic") as vic:
        assert vic.get("/events").status_code == 200 and vic.get("/activity").status_code == 403
