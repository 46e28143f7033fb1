"""The console's forms that send again, as a server gives them: resend, edited or not, of an event, and backfills."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from hub.web.passwords import hash_password
from tests.support import clients
from tests.support.api import Api
from tests.support.console import signed_in
from tests.support.http_target import HttpTarget
from tests.support.hubs import add_rule, add_service, attempt, count, emit, emit_many


@pytest.fixture
def maria(api: Api) -> Iterator[clients.Client]:
    api.hub.accounts.users.add("maria", hash_password("correct horse battery"), "manage")
    with signed_in(api.hub, api.url, "maria") as client:
        yield client


@pytest.fixture
def delivery(api: Api, target: HttpTarget) -> int:
    """A delivered delivery whose payload has a masked value."""
    hub = api.hub
    hub.lease.start()
    add_service(hub, target.url, mask=["secret"])
    add_rule(hub, endpoint="/x")
    (task,) = emit(hub, data={"n": 1, "secret": "top secret"})
    assert attempt(hub, task) == "delivered"
    return int(hub.views.deliveries.list(task=task)[0]["id"])


def new_task(location: str) -> int:
    found = re.fullmatch(r"/tasks/(\d+)", location)
    assert found is not None, location
    return int(found[1])


def test_a_delivery_is_sent_again_by_a_button(
    api: Api, maria: clients.Client, delivery: int, target: HttpTarget
) -> None:
    page = maria.get(f"/deliveries/{delivery}").text
    assert f'action="/deliveries/{delivery}/resend"' in page and f'href="/deliveries/{delivery}/resend"' in page
    response = maria.post(f"/deliveries/{delivery}/resend")
    assert response.status_code == 303
    task = new_task(response.headers["location"])
    assert attempt(api.hub, task) == "delivered" and len(target.at("/x")) == 2
    origin = api.hub.views.origins.get(task)
    assert origin is not None and (origin["actor"], origin["actor_kind"]) == ("maria", "user")
    again = api.hub.views.deliveries.list(task=task)[0]["id"]
    assert "sent again" in maria.get(f"/deliveries/{again}").text, "its page says where it came from"


def test_only_what_was_changed_in_the_form_is_an_edit(
    api: Api, maria: clients.Client, delivery: int, target: HttpTarget
) -> None:
    """A masked payload that nobody touched is sent as the rule makes it."""
    url = f"/deliveries/{delivery}/resend"
    page = maria.get(url).text
    assert "***" in page and "top secret" not in page
    shown = '{\n  "n": 1,\n  "secret": "***"\n}'
    untouched = {"shown_payload": shown, "payload": shown, "shown_endpoint": "/x", "endpoint": "/other"}
    task = new_task(maria.post(url, data=untouched).headers["location"])
    assert attempt(api.hub, task) == "delivered"
    assert target.at("/other")[0].json() == {"n": 1, "secret": "top secret"}
    masked = maria.post(url, data=untouched | {"payload": '{"n": 2, "secret": "***"}'})
    assert masked.status_code == 422 and "stands for a masked value" in masked.text
    broken = maria.post(url, data=untouched | {"payload": "{"})
    assert broken.status_code == 422 and "not JSON" in broken.text and count(api.hub, "tasks") == 0


def test_an_event_is_sent_again_from_its_page(api: Api, maria: clients.Client, delivery: int) -> None:
    number = api.hub.db.all("SELECT id FROM events")[0]["id"]
    assert f'action="/events/{number}/resend"' in maria.get(f"/events/{number}").text
    response = maria.post(f"/events/{number}/resend")
    assert response.headers["location"] == f"/events/{number}" and count(api.hub, "tasks") == 1


def test_a_rule_is_backfilled_from_its_page(api: Api, maria: clients.Client, delivery: int) -> None:
    hub = api.hub
    emit_many(hub, 12, "past")
    add_rule(hub, "late", "past")
    url = "/rules/late/backfill"
    page = maria.get(url).text
    assert "would have matched <b>12</b>" in page and "not backfilled yet" in page
    assert f'href="{url}"' in maria.get("/rules/late/edit").text
    form = {"since": "2020-01-01T00:00", "until": "", "rate": "20"}
    counted = maria.post(url, data=form | {"act": "count"})
    assert counted.status_code == 200 and "<b>12 tasks</b> would be made" in counted.text
    assert maria.post(url, data=form | {"act": "start", "expected": "12"}).status_code == 303
    (found,) = hub.backfills.list()
    assert (found.state, found.expected, found.rate, found.actor) == ("running", 12, 20, "maria")
    for act, state in (("pause", "paused"), ("resume", "running"), ("cancel", "cancelled")):
        assert f'action="/backfills/{found.id}/{act}"' in maria.get(url).text
        assert maria.post(f"/backfills/{found.id}/{act}").status_code == 303
        assert hub.backfills.get(found.id).state == state
    for wrong in ({"rate": "fast"}, {"since": ""}, {"since": "2020-01-02T00:00", "until": "2020-01-01T00:00"}):
        assert maria.post(url, data=form | {"act": "start"} | wrong).status_code == 422


def test_who_may_only_look_sends_nothing_again(api: Api, maria: clients.Client, delivery: int) -> None:
    api.hub.accounts.users.add("vera", hash_password("correct horse battery"), "view")
    with signed_in(api.hub, api.url, "vera") as vera:
        assert "resend" not in vera.get(f"/deliveries/{delivery}").text
        for path in (f"/deliveries/{delivery}/resend", "/events/1/resend", "/rules/r1/backfill", "/backfills/1/cancel"):
            assert vera.post(path).status_code == 403, path
    assert count(api.hub, "tasks") == 0
