"""The console's pages as a server gives them: no browser, no script."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import httpx
import pytest

from hub.web.passwords import hash_password
from tests.support import clients
from tests.support.api import Api
from tests.support.console import signed_in
from tests.support.http_target import HttpTarget, Reply
from tests.support.hubs import add_rule, add_service, attempt, emit


@pytest.fixture
def maria(api: Api) -> Iterator[clients.Client]:
    api.hub.accounts.users.add("maria", hash_password("correct horse battery"), "manage")
    with signed_in(api.hub, api.url, "maria") as client:
        yield client


@pytest.fixture
def target(api: Api) -> Iterator[HttpTarget]:
    """A service that gives up after one attempt, and this process as its worker."""
    api.hub.lease.start()
    with HttpTarget() as target:
        add_service(api.hub, target.url, max_attempts=1, cb_failure_threshold=0)
        add_rule(api.hub)
        yield target


@pytest.mark.parametrize("odd", ['{"a": "\\ud800"}', '{"a": 1e999}', "no JSON <b>", "9" * 5000])
def test_a_row_that_is_no_json_is_shown_as_it_is(api: Api, maria: clients.Client, target: HttpTarget, odd: str) -> None:
    """What somebody wrote into the database by hand, or a service answered, hides nothing else."""
    target.on("/x", Reply(500, odd.encode()))
    [dead], [waiting] = emit(api.hub, data={"n": 1}), emit(api.hub, data={"n": 2})
    assert attempt(api.hub, dead) == "failed"
    api.hub.db.run("UPDATE dead_letters SET event_data = %s", [odd])
    api.hub.db.run("UPDATE events SET data = %s", [odd])
    (letter,) = api.hub.views.dead_letters.list()
    (delivery,) = api.hub.views.deliveries.list()
    shown = odd.replace("<", "&lt;").replace(">", "&gt;").replace('"', "&#34;")
    for page in (f"/dead-letters/{letter['id']}", f"/tasks/{waiting}", f"/deliveries/{delivery['id']}"):
        answer = maria.get(page)
        assert answer.status_code == 200 and shown in answer.text, page
    assert [line["event_data"] for line in lines(maria.get("/dead-letters/export"))] == [odd]


@pytest.mark.parametrize("odd", ["²", "٣", "9" * 30, "-1", "x"])
def test_a_number_in_an_address_that_is_none_is_no_fault(api: Api, maria: clients.Client, odd: str) -> None:
    for page in ("/queue", "/dead-letters", "/deliveries"):
        assert maria.get(page, params={"before": odd, "status": odd, "event": odd}).status_code == 200, page
    for form in ("/queue/act", "/dead-letters/act"):
        assert maria.post(form, data={"act": "delete", "id": odd}).status_code == 303, form


def test_all_dead_letters_are_counted_before_they_are_replayed(
    api: Api, maria: clients.Client, target: HttpTarget
) -> None:
    """Without a script, too: a click on "Replay all" asks first, and says how many it would be."""
    add_rule(api.hub, "gone", "other")
    target.on("/x", 500)
    for task in [*emit(api.hub, data=1), *emit(api.hub, data=2), *emit(api.hub, "other")]:
        assert attempt(api.hub, task) == "failed"
    api.hub.registry.rules.delete("gone")
    page = maria.get("/dead-letters").text
    assert 'href="/dead-letters/all?act=replay-all"' in page and "data-count" not in page
    filtered = maria.get("/dead-letters?event=e").text
    assert 'href="/dead-letters/all?act=replay-all&amp;event=e"' in filtered
    sure = maria.get("/dead-letters/all?act=replay-all").text
    assert "Replay 2 dead letters?" in sure and "1 other cannot be replayed" in sure
    assert "Delete 3 dead letters?" in maria.get("/dead-letters/all?act=delete-all").text
    only = maria.get("/dead-letters/all", params={"act": "replay-all", "event": "other", "since": "2026-01-01T00:00Z"})
    assert "Replay 0 dead letters?" in only.text and 'name="act"' not in only.text
    assert len(api.hub.views.dead_letters.list()) == 3, "asking changes nothing"
    assert maria.post("/dead-letters/act", data={"act": "replay-all"}).status_code == 303
    assert [row["event"] for row in api.hub.views.dead_letters.list()] == ["other"]


def lines(answer: httpx.Response) -> list[dict[str, object]]:
    return [json.loads(line) for line in answer.text.splitlines()]


def test_the_service_form_shows_no_stored_secret_and_keeps_what_is_left_empty(api: Api, maria: clients.Client) -> None:
    secret = "whsec_" + "QUJD" * 8
    add_service(
        api.hub,
        "http://127.0.0.1:9/",
        "vault",
        auth={"type": "bearer", "token": "t-1"},
        signing_secret=secret,
        inbound={"token": "in-1"},
        secret_headers={"X-Key": "k-1", "X-Gone": "g-1"},
    )
    page = maria.get("/services/vault/edit").text
    assert "***" not in page and page.count("Stored. Leave empty to keep.") == 3
    assert not any(value in page for value in ("t-1", secret, "in-1", "k-1"))
    form = {
        "name": "vault",
        "type": "rest",
        "base_url": "http://127.0.0.1:9/",
        "auth_type": "bearer",
        "enabled": "on",
        "secret_headers": "X-Key: ",
    }

    def save(**more: str) -> httpx.Response:
        return maria.post("/services/vault/edit", data=form | more)

    assert save().status_code == 303
    kept = {"token": "t-1", "signing_secret": secret, "inbound_token": "in-1", "header:X-Key": "k-1"}
    assert api.hub.configuration.service("vault").secrets == kept
    assert save(auth_token="t-2", remove="signing_secret").status_code == 303
    assert api.hub.configuration.service("vault").secrets == {
        "token": "t-2",
        "inbound_token": "in-1",
        "header:X-Key": "k-1",
    }
    for field in ("auth_token", "inbound_token"):
        refused = save(**{field: "***new"})
        assert refused.status_code == 422 and "begins with ***" in refused.text, field
    assert save(signing_secret="whsec_c2hvcnQ=").status_code == 422
    changed = save(auth_type="apikey")
    assert changed.status_code == 422 and "Token or key is required" in changed.text, (
        "a secret does not move to another kind"
    )
    new = maria.post("/services/new", data=form | {"name": "other", "auth_token": "***"})
    assert new.status_code == 422 and "begins with ***" in new.text


def test_the_task_log_is_filtered_by_class_and_by_failure(api: Api, maria: clients.Client, target: HttpTarget) -> None:
    target.on("/x", 500)
    (task,) = emit(api.hub)
    assert attempt(api.hub, task) == "failed"
    api.hub.housekeeping.run()

    def classes(**query: str) -> list[str]:
        """The column Task of the table, top to bottom."""
        table = maria.get("/schedules", params=query).text.partition("<h2>Task log</h2>")[2]
        return re.findall(r"<tr><td[^>]*>(?:.*?)</td><td>(\w+_task)</td>", table)

    assert classes() == ["housekeeping_task", "dispatch_event_task"]
    assert classes(task="dispatch_event_task") == ["dispatch_event_task"]
    assert classes(task="housekeeping_task") == ["housekeeping_task"]
    assert classes(failed="1") == ["dispatch_event_task"]
    assert classes(task="housekeeping_task", failed="1") == []


def test_sources_are_added_edited_and_shown_without_the_password(api: Api, maria: clients.Client) -> None:
    form = {
        "name": "campus",
        "enabled": "on",
        "scheme": "mysql",
        "host": "127.0.0.1",
        "port": "9",
        "user": "re:ader",
        "password": "canary/pw",
        "database": "moodle",
        "prefix": "m_",
        "tls": "off",
        "start": "17",
        "lookups": "on",
        "events": "\\core\\event\\user_*\n\\core\\event\\course_*",
        "batch": "50",
    }
    assert maria.post("/sources/new", data=form | {"prefix": "m;"}).status_code == 422
    assert maria.post("/sources/new", data=form).status_code == 303
    source = api.hub.registry.sources.source("campus")
    assert (source.url, source.secrets) == ("mysql://re%3Aader@127.0.0.1:9/moodle", {"password": "canary/pw"})
    assert source.options == {
        "prefix": "m_",
        "events": ["\\core\\event\\user_*", "\\core\\event\\course_*"],
        "start": 17,
        "batch": 50,
    }
    pages = maria.get("/sources").text + maria.get("/sources/campus/edit").text
    assert "canary" not in pages and "starting" in pages
    kept = form | {"password": "", "version": "1", "batch": "60"}
    assert maria.post("/sources/campus/edit", data=kept | {"host": "evil.example.org"}).status_code == 422
    assert maria.post("/sources/campus/edit", data=kept).status_code == 303
    assert maria.post("/sources/campus/edit", data=kept).status_code == 409
    assert api.hub.registry.sources.source("campus").secrets == {"password": "canary/pw"}
    for act in ("disable", "enable", "test", "reset"):
        assert maria.post(f"/sources/campus/{act}", data={"to": "now"}).status_code == 303
    assert api.hub.db.one("SELECT start FROM source_positions") == {"start": "now"}
    assert maria.post("/sources/campus/delete").status_code == 303
    assert api.hub.registry.sources.sources() == []
