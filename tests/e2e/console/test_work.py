"""What people do in the console, in a real browser."""

from __future__ import annotations

import json
import re

from playwright.sync_api import Dialog, Page, expect

from hub.config.definitions import RuleSpec, parse_spec
from hub.domain.urls import join_password
from hub.models import Event
from tests.e2e.console.site import EVENT, HOSTILE, NEEDS_BROWSER, Site, sign_in, signed_in
from tests.support import clients
from tests.support.waiting import eventually

pytestmark = NEEDS_BROWSER


def test_from_nothing_to_a_replayed_dead_letter(page: Page, site: Site) -> None:
    """The way of a newcomer: service, rule, event, delivery; then the target breaks, and is repaired."""
    sign_in(page, "maria")
    page.goto("/services/new")
    page.get_by_label("Name", exact=True).fill("crm")
    page.get_by_label("Address", exact=True).fill(site.target.url)
    page.get_by_label("Tries per attempt").fill("1")
    page.get_by_label("Circuit opens after").fill("2")
    page.get_by_text("More").click()
    page.get_by_label("Attempts per task").fill("2")
    page.get_by_role("button", name="Add service").click()
    expect(page.get_by_role("status")).to_contain_text("Service crm was added")
    page.get_by_role("button", name="Test connection").click()
    expect(page.get_by_role("status")).to_contain_text("Reached")

    page.goto("/rules/new")
    page.get_by_label("Name", exact=True).fill("users")
    page.get_by_label("Event", exact=True).fill(EVENT)
    page.get_by_label("Service").select_option("crm")
    page.get_by_label("Endpoint").fill("/users")
    page.get_by_label("Payload").fill('{"id": {{objectid}')
    expect(page.locator("[data-error]")).to_contain_text("line 1")
    page.get_by_label("Payload").fill('{"id": {{objectid}}}')
    expect(page.locator("[data-body]")).to_contain_text('"id": 5')
    page.get_by_role("button", name="Add rule").click()

    site.target.on("/users", 201)
    page.goto("/deliveries?service=crm")
    expect(page.locator("#log")).to_contain_text("No delivery matches this filter")
    site.hub.intake.handle_event(Event(EVENT, {"objectid": 41}))
    expect(page.locator("#log tbody tr")).to_have_count(1)  # it comes by itself: the list is live
    expect(page.locator("#log tbody tr")).to_contain_text("201")
    assert site.target.seen[-1].json() == {"id": 41}

    site.target.on("/users", 503)
    site.hub.intake.handle_event(Event(EVENT, {"objectid": 42}))
    page.goto("/services/crm")
    expect(page.locator("#state")).to_contain_text("open circuit")
    expect(page.locator("#state")).to_contain_text("1 dead letter")
    page.goto("/dead-letters?service=crm")
    page.locator("#letters tbody").get_by_role("link").first.click()
    expect(page.get_by_role("heading", name="Last response")).to_contain_text("503")

    site.target.on("/users", 200)
    page.goto("/services/crm")
    page.get_by_role("button", name="Close circuit").click()
    page.goto("/dead-letters?service=crm")
    page.get_by_label("Select all on this page").check()
    page.get_by_role("button", name="Replay selected").click()
    expect(page.get_by_role("status")).to_contain_text("1 dead letter replayed")
    eventually(lambda: site.hub.views.deliveries.list(service="crm")[0]["success"])
    assert site.target.seen[-1].json() == {"id": 42}
    page.goto("/deliveries?service=crm&result=ok")
    expect(page.locator("#log tbody tr")).to_have_count(2)


def test_the_schedule_is_changed_with_its_next_runs_in_sight(page: Page, site: Site) -> None:
    signed_in(page, site, "maria")
    page.goto("/schedules")
    card = page.locator("article", has_text="consume_responses_task")
    field = card.get_by_label("Cron expression")
    field.fill("61 * * * *")
    expect(card.locator("[data-error]")).to_contain_text("minute")
    card.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert")).to_contain_text("minute")
    field = page.locator("article", has_text="consume_responses_task").get_by_label("Cron expression")
    field.fill("*/7 * * * *")
    expect(card.locator("[data-runs] li")).to_have_count(5)
    card.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status")).to_contain_text("*/7")
    assert site.hub.schedule.show("consume_responses_task").cron == "*/7 * * * *"
    card.get_by_role("button", name="Reset to").click()
    expect(page.get_by_role("status")).to_contain_text("again")
    assert site.hub.schedule.show("consume_responses_task").cron == "* * * * *"


def test_an_event_is_sent_by_hand(page: Page, site: Site) -> None:
    """The third step of a newcomer needs no terminal."""
    site.hub.registry.rules.add(
        parse_spec(RuleSpec, {"name": "by hand", "event": "hand.made", "service": "kept", "endpoint": "/hand"})
    )
    site.target.on("/hand", 200)
    signed_in(page, site, "maria")
    page.goto("/events/new?name=hand.made")
    page.get_by_label("Data").fill('{"n": 7')
    page.get_by_role("button", name="Send event").click()
    expect(page.get_by_role("alert")).to_contain_text("line 1")
    page.get_by_label("Data").fill('{"n": 7}')
    page.get_by_role("button", name="Send event").click()
    expect(page.get_by_role("status")).to_contain_text("created 1 task")
    expect(page.locator("#event")).to_contain_text("by hand to kept matches")
    expect(page.locator("#event")).to_contain_text("delivered")
    assert site.target.seen[-1].json() == {"n": 7}
    page.get_by_role("link", name="Send one like it").click()
    expect(page.get_by_label("Data")).to_have_value('{\n  "n": 7\n}')
    page.get_by_label("Event").fill("hand.unknown")
    page.get_by_role("button", name="Send event").click()
    expect(page.get_by_role("status")).to_contain_text("No rule matches")
    expect(page.get_by_role("heading", level=1)).to_contain_text("hand.unknown")


def test_errors_of_a_form_are_shown_at_their_fields_all_at_once(page: Page, site: Site) -> None:
    """In the words of the form; the first wrong field has the focus, and typed values stay."""
    signed_in(page, site, "maria")
    page.goto("/services/new")
    page.get_by_label("Name", exact=True).fill("typed")
    page.get_by_label("Timeout").fill("soon")
    page.get_by_label("Tries per attempt").fill("-1")
    page.get_by_role("button", name="Add service").click()
    alert = page.get_by_role("alert")
    for text in ("Address ", "Timeout must be a number", "Tries per attempt must be at least 0"):
        expect(alert).to_contain_text(text)
    expect(page.locator("[name=base_url]")).to_be_focused()
    for name in ("base_url", "timeout", "max_retries"):
        expect(page.locator(f"[name={name}]")).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_label("Timeout")).to_have_accessible_description(re.compile("Timeout must be a number"))
    expect(page.get_by_label("Name", exact=True)).to_have_value("typed")
    expect(page.get_by_label("Name", exact=True)).not_to_have_attribute("aria-invalid", "true")


def test_leaving_a_form_with_unsaved_changes_asks_first(page: Page, site: Site) -> None:
    """The browser asks; a form that was not changed is left without a question."""
    signed_in(page, site, "maria")
    asked: list[str] = []

    def accept(dialog: Dialog) -> None:
        asked.append(dialog.type)
        dialog.accept()

    page.on("dialog", accept)
    page.goto("/rules/new")
    page.get_by_role("link", name="Cancel").click()
    page.wait_for_url("**/rules")
    assert asked == []
    page.goto("/rules/new")
    page.get_by_label("Name", exact=True).fill("half a rule")
    page.get_by_role("link", name="Cancel").click()
    page.wait_for_url("**/rules")
    assert asked == ["beforeunload"]


def asked(client: clients.Client, **query: str) -> str:
    """The page that asks before all dead letters that match are replayed or deleted."""
    answer = client.get("/dead-letters/all", params=query)
    assert answer.status_code == 200
    return answer.text


def test_all_that_match_are_counted_before_they_are_replayed_or_deleted(maria: clients.Client, site: Site) -> None:
    """What the filters leave out is not touched, and the dry run says what a click would do."""
    before = site.hub.views.dead_letters.count()
    hub, rule = site.hub, {"name": "bulk", "event": "bulk.*", "service": "kept", "endpoint": "/bulk"}
    hub.registry.rules.add(parse_spec(RuleSpec, rule))
    site.target.on("/bulk", 500)
    hub.intake.handle_events([Event("bulk.a", {"n": n}) for n in range(3)] + [Event("bulk.b", {})])
    eventually(lambda: hub.views.dead_letters.count() == before + 4)
    only = {"event": "bulk.a"}
    assert "Replay 3 dead letters?" in asked(maria, act="replay-all", **only)
    assert "Delete 3 dead letters?" in asked(maria, act="delete-all", **only)
    assert len(maria.get("/dead-letters/export", params=only).text.splitlines()) == 3
    assert "<button name=" not in asked(maria, act="replay-all", until="2020-01-01T00:00:00Z", **only)
    site.target.on("/bulk", 200)
    assert maria.post("/dead-letters/act", data=only | {"act": "replay-all"}).status_code == 303
    assert hub.views.dead_letters.count() == before + 1
    hub.registry.rules.delete("bulk")
    page = asked(maria, act="replay-all", event="bulk.b")
    assert "Replay 0 dead letters?" in page and "1 other cannot be replayed" in page
    maria.post("/dead-letters/act", data={"act": "replay-all", "event": "bulk.b"})
    assert hub.views.dead_letters.count() == before + 1, "without its rule it stays"
    maria.post("/dead-letters/act", data={"act": "delete-all", "event": "bulk.b"})
    assert hub.views.dead_letters.count() == before


def test_the_amqp_form_takes_parts_and_keeps_what_it_does_not_show(maria: clients.Client, site: Site) -> None:
    """People type what they mean; the URI's escapes are the hub's business. An empty password means: as it was."""
    form = {
        "name": "mq",
        "type": "amqp",
        "amqp_host": "mq.example.org",
        "amqp_user": "m@x",
        "amqp_password": "p/w:d",
        "amqp_vhost": "a/b",
        "amqp_tls": "on",
        "amqp_queue_declare": "q 1",
    }
    assert maria.post("/services/new", data=form).status_code == 303
    first = site.hub.configuration.service("mq")
    assert first.base_url == "amqps://m%40x@mq.example.org/a%2Fb?queue_declare=q+1"
    assert first.secrets["password"] == "p/w:d" and not first.enabled
    site.hub.registry.services.update(
        "mq", {"base_url": join_password(first.base_url, "p%2Fw:d") + "&heartbeat=20"}, None
    )
    page = maria.get("/services/mq/edit").text
    assert 'value="a/b"' in page and 'value="m@x"' in page and "p/w:d" not in page and "p%2Fw" not in page
    answer = maria.post("/services/mq/edit", data=form | {"amqp_password": "", "amqp_vhost": "c"})
    assert answer.status_code == 303, re.findall('role="alert">([^<]*)', answer.text)
    second = site.hub.configuration.service("mq")
    assert "mq.example.org/c?" in second.base_url and "heartbeat=20" in second.base_url
    assert second.secrets["password"] == "p/w:d"
    moved = maria.post("/services/mq/edit", data=form | {"amqp_password": "", "amqp_host": "mq2.example.org"})
    assert moved.status_code == 422 and "must be entered again" in moved.text and "p/w:d" not in moved.text
    site.hub.registry.services.delete("mq")


def test_two_who_edit_a_rule_do_not_overwrite_each_other_unasked(maria: clients.Client, site: Site) -> None:
    site.hub.registry.rules.add(parse_spec(RuleSpec, {"name": "shared", "event": "never", "service": "kept"}))
    version = str(site.hub.configuration.rule("shared").version)
    site.hub.registry.rules.update("shared", {"endpoint": "/theirs"}, None)
    form = {"name": "shared", "event": "never", "service": "kept", "endpoint": "/mine", "version": version}
    answer = maria.post("/rules/shared/edit", data=form)
    assert answer.status_code == 409 and "Somebody else" in answer.text and 'value="/mine"' in answer.text
    assert site.hub.configuration.rule("shared").endpoint == "/theirs"
    newer = re.search(r'name="version" value="(\d+)"', answer.text)
    assert newer
    assert maria.post("/rules/shared/edit", data=form | {"version": newer[1]}).status_code == 303
    assert site.hub.configuration.rule("shared").endpoint == "/mine"
    site.hub.registry.rules.delete("shared")


def test_the_preview_shows_the_latest_real_event_and_where_a_template_is_wrong(maria: clients.Client) -> None:
    form = {"event": "dead", "payload": '{"t": {{text}},\n "x": "{{nope}}"}'}
    good = maria.post("/rules/preview", data=form).json()
    assert json.loads(good["body"]) == {"t": HOSTILE, "x": None} and "latest dead" in good["source"]
    bad = maria.post("/rules/preview", data=form | {"payload": '{"t": 1,\n "x" 2}'}).json()
    assert (bad["line"], bad["column"], bad["field"]) == (2, 6, "payload")
    strict = maria.post("/rules/preview", data=form | {"strict": "on"}).json()
    assert "nope" in strict["error"]
    other = maria.post("/rules/preview", data=form | {"conditions": '{"text": "other"}'}).json()
    assert other["matches"] is False and other["error"] is None


def test_the_request_of_a_delivery_is_copied_as_curl(page: Page, site: Site) -> None:
    """The button holds the whole command; the page links to the rule."""
    signed_in(page, site, "maria")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    row = next(r for r in site.hub.views.deliveries.list(limit=100) if r["direction"] == "outbound" and r["rule"])
    page.goto(f"/deliveries/{row['id']}")
    page.get_by_role("button", name="Copy as cURL").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith(f"curl -i -X {row['method']} {site.target.url}")
