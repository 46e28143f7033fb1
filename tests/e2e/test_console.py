"""The console in a real browser, on a real hub: what people do in it, what they may not, and that all can use it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

from hub.app.lifecycle import Hub, build
from hub.config.definitions import RuleSpec, ServiceSpec, parse_spec
from hub.domain.urls import join_password
from hub.models import Event
from hub.programs.up import work
from hub.settings import Settings
from hub.web.passwords import hash_password
from hub.web.server import WebServer
from tests.support import clients
from tests.support.console import signed_in as session
from tests.support.databases import Template
from tests.support.http_target import HttpTarget, Reply
from tests.support.provision import browser as browser_path
from tests.support.waiting import eventually

CHROMIUM = browser_path()
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="NO BROWSER: apt-get install chromium, or nothing here is proven"),
]
expect.set_options(timeout=60_000)  # live parts come every five seconds
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", "--no-first-run"]  # fmt: skip
EVENT = "\\core\\event\\user_created"
HOSTILE = "<script>document.title='pwned'</script><img src=x onerror=alert(1)>"
PASSWORD = "correct horse battery"
EVERY_PAGE = ("/", "/services", "/services/new", "/services/kept", "/services/kept/edit", "/services/queue/edit",
              "/rules", "/rules/new", "/rules/kept", "/rules/kept/edit", "/events/new", "/queue", "/tasks/{task}",
              "/dead-letters", "/dead-letters/{letter}", "/dead-letters/all?act=delete-all", "/deliveries",
              "/deliveries/{delivery}", "/schedules", "/access")  # fmt: skip


@dataclass
class Site:
    hub: Hub
    url: str
    target: HttpTarget
    ids: dict[str, int]

    def path(self, template: str) -> str:
        return self.url + template.format(**self.ids)


@pytest.fixture(scope="module")
def site(database_template: Template, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A whole hub in one process, with something on every page."""
    name, url = database_template.clone()
    settings = Settings(
        database_url=url, home=tmp_path_factory.mktemp("home"), listen="127.0.0.1:0", retry_delays="0,0,0,0",
        secret_keys="MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
    )  # fmt: skip
    with HttpTarget() as target, build(settings, role="up") as hub, work(hub, threads=2), WebServer(hub) as server:
        ids = _fill(hub, target)
        yield Site(hub, server.url, target, ids)
    database_template.drop(name)


def _fill(hub: Hub, target: HttpTarget) -> dict[str, int]:
    target.on("/dead", Reply(500, {"error": HOSTILE}))
    for spec in (
        {"name": "kept", "base_url": target.url, "auth": {"type": "bearer", "token": "canary-token"}, "max_retries": 1,
         "cb_failure_threshold": 0, "max_attempts": 2},
        {"name": "queue", "type": "amqp", "base_url": "amqp://me:canary-password@127.0.0.1:1/v?queue_declare=q",
         "enabled": False},
    ):  # fmt: skip
        hub.registry.services.add(parse_spec(ServiceSpec, spec))
    for rule in ({"name": "kept", "event": "dead", "service": "kept", "endpoint": "/dead"},
                 {"name": "held", "event": "dead", "service": "queue"}):  # fmt: skip
        hub.registry.rules.add(parse_spec(RuleSpec, rule))
    for user, role in (("maria", "manage"), ("vic", "view")):
        hub.accounts.users.add(user, hash_password(PASSWORD), role)  # type: ignore[arg-type]
    hub.accounts.tokens.add("moodle", "ingest")
    accepted = hub.intake.handle_event(Event("dead", {"text": HOSTILE}))
    eventually(lambda: hub.views.dead_letters.count() == 1)
    (letter,) = hub.views.dead_letters.list()
    return {"task": accepted.tasks[0], "letter": letter["id"], "delivery": hub.views.deliveries.list()[0]["id"]}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser, site: Site) -> Iterator[Page]:
    """A fresh browser; whatever its console complains of fails the test."""
    context = browser.new_context(base_url=site.url)
    context.set_default_timeout(60_000)
    complaints: list[str] = []
    page = context.new_page()
    page.on("pageerror", lambda e: complaints.append(str(e)))
    page.on("console", lambda m: complaints.append(m.text) if "Content Security" in m.text else None)
    page.on("dialog", lambda dialog: dialog.accept())
    yield page
    page.goto("about:blank")  # closing a page that is still on its way to another has hung
    context.close()
    assert complaints == []


def signed_in(page: Page, site: Site, user: str) -> None:
    """With a session of its own, without the wait for the password's hash."""
    secret = site.hub.accounts.sessions.start(site.hub.accounts.users.get(user).id)
    page.context.add_cookies([{"name": "hub_session", "value": secret, "url": site.url}])


def sign_in(page: Page, user: str) -> None:
    page.goto("/login")
    page.get_by_label("Name").fill(user)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()


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


def test_who_may_only_view_changes_nothing_and_sees_no_secret(page: Page, site: Site) -> None:
    signed_in(page, site, "vic")
    for template in EVERY_PAGE:
        page.goto(site.path(template))
        html = page.content()
        assert "canary" not in html, template
        own = page.locator("main form[method=post]").evaluate_all(
            "forms => forms.map(f => f.getAttribute('action') || '')"
        )
        assert set(own) <= {"/access/password", "/access/sessions/revoke"}, (template, own)
    cookies = {c["name"]: c["value"] for c in page.context.cookies()}
    csrf = page.locator("body").get_attribute("data-csrf") or ""
    with clients.Client(base_url=site.url, cookies=cookies) as client:
        for path, data in (
            ("/services/kept/disable", {}), ("/services/new", {"name": "x", "base_url": "http://x"}),
            ("/rules/kept/delete", {}), ("/queue/act", {"act": "purge"}), ("/dead-letters/act", {"act": "replay-all"}),
            ("/dead-letters/act", {"act": "delete-all"}), ("/events/new", {"name": "dead", "data": "{}"}),
            ("/schedules/housekeeping_task/disable", {}), ("/access/tokens", {"name": "x", "scope": "manage"}),
            ("/access/users/change", {"name": "vic", "act": "manage"}),
        ):  # fmt: skip
            assert client.post(path, data={**data, "csrf": csrf}).status_code == 403, path
    assert site.hub.configuration.service("kept").enabled and site.hub.accounts.users.get("vic").role == "view"


def test_forms_need_the_token_of_their_page(page: Page, site: Site) -> None:
    """A form on another site cannot act for who is signed in here."""
    sign_in(page, "maria")
    cookies = {c["name"]: c["value"] for c in page.context.cookies()}
    (session,) = [c for c in page.context.cookies() if c["name"] == "hub_session"]
    assert session["httpOnly"] and session["sameSite"] == "Lax"
    with clients.Client(base_url=site.url, cookies=cookies) as client:
        for csrf in ("", "wrong"):
            assert client.post("/services/kept/disable", data={"csrf": csrf}).status_code == 403
        evil = {"Sec-Fetch-Site": "cross-site"}
        assert client.post("/login", data={"name": "maria", "password": PASSWORD}, headers=evil).status_code == 403
    assert site.hub.configuration.service("kept").enabled


def test_a_session_is_new_after_sign_in_and_over_after_sign_out(page: Page, site: Site) -> None:
    """Fixation: a cookie that was there before is worth nothing afterwards, also not the one of before."""
    page.context.add_cookies([{"name": "hub_session", "value": "planted", "url": site.url}])
    sign_in(page, "maria")
    (first,) = [c["value"] for c in page.context.cookies() if c["name"] == "hub_session"]
    assert first != "planted"
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    with clients.Client(base_url=site.url, cookies={"hub_session": first}) as client:
        answer = client.get("/services?x=1")
        assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=%2Fservices%3Fx%3D1")


def test_after_sign_in_only_own_pages_are_opened(site: Site) -> None:
    with clients.Client(base_url=site.url) as client:
        for there, where in (("/queue?state=held", "/queue?state=held"), ("//evil.example", "/"),
                             ("https://evil.example", "/"), ("/\\evil.example", "/")):  # fmt: skip
            answer = client.post("/login", data={"name": "maria", "password": PASSWORD, "next": there})
            assert (answer.status_code, answer.headers["location"]) == (303, where)


def test_guessing_passwords_is_slowed_down(site: Site) -> None:
    with WebServer(site.hub) as own, clients.Client(base_url=own.url) as client:  # the others share an address with us
        site.hub.accounts.users.add("guessed", hash_password(PASSWORD), "view")
        tries = [
            client.post("/login", data={"name": "guessed", "password": f"wrong {i}"}).status_code for i in range(12)
        ]
        assert tries[:10] == [401] * 10 and tries[11] == 429
        answer = client.post("/login", data={"name": "guessed", "password": PASSWORD})
        assert answer.status_code == 429 and int(answer.headers["retry-after"]) > 0


def test_the_link_makes_one_administrator(page: Page, site: Site) -> None:
    link = f"/login/link/{site.hub.accounts.links.add()}"
    page.goto(link)
    page.get_by_label("Name").fill("ada")
    page.get_by_label("Password", exact=False).first.fill("short")
    page.get_by_label("Password again").fill("short")
    page.evaluate("document.querySelectorAll('input').forEach(i => i.removeAttribute('minlength'))")
    page.get_by_role("button").click()
    expect(page.get_by_role("alert")).to_contain_text("at least 10 characters")
    page.get_by_label("Password", exact=False).first.fill(PASSWORD)
    page.get_by_label("Password again").fill(PASSWORD)
    page.get_by_role("button").click()
    expect(page.get_by_role("status")).to_contain_text("Welcome, ada")
    assert site.hub.accounts.users.get("ada").role == "manage"
    assert clients.get(site.url + link).status_code == 404


def test_what_came_from_outside_is_text_and_never_markup(page: Page, site: Site) -> None:
    signed_in(page, site, "maria")
    for template in EVERY_PAGE:
        page.goto(site.path(template))
        assert page.title() != "pwned" and page.locator("img[src=x]").count() == 0
    page.goto(site.path("/dead-letters/{letter}"))
    expect(page.locator("pre").first).to_contain_text("<script>")


def test_nothing_but_own_files_may_run(site: Site) -> None:
    with clients.Client(base_url=site.url) as client:
        answer = client.get("/login")
        policy = answer.headers["content-security-policy"]
        assert "unsafe" not in policy and "default-src 'none'" in policy and "script-src 'self'" in policy
        assert not re.search(r"<(script|style)[^>]*>[^<]", answer.text) and " style=" not in answer.text
        assert (
            client.get("/static/hub.css").status_code == 200 and client.get("/static/../server.py").status_code == 404
        )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_on_any_page(browser: Browser, site: Site, scheme: str) -> None:
    """Labels, contrast, roles, focus: in both themes."""
    context = browser.new_context(base_url=site.url, color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    axe = Axe()
    found: list[str] = []
    # Colours are all that a theme changes.
    options = {} if scheme == "light" else {"runOnly": ["color-contrast"]}
    for template in ("/login", *EVERY_PAGE):
        page.goto(site.path(template))
        if template == "/login":
            signed_in(page, site, "maria")
        for violation in axe.run(page, options=options).response["violations"]:
            if violation["impact"] in ("serious", "critical"):
                where = [node["target"] for node in violation["nodes"]][:3]
                found.append(f"{template}: {violation['id']} {where}")
    context.close()
    assert found == []


def test_the_pages_hold_on_a_phone(browser: Browser, site: Site) -> None:
    """Nothing but tables may be wider than the screen, and those scroll by themselves."""
    context = browser.new_context(base_url=site.url, viewport={"width": 380, "height": 780})
    page = context.new_page()
    signed_in(page, site, "maria")
    for template in EVERY_PAGE:
        page.goto(site.path(template))
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), template
    context.close()


def test_live_parts_leave_the_reader_s_choice_alone(page: Page, site: Site) -> None:
    """A refresh must not take away the boxes that somebody has ticked."""
    signed_in(page, site, "maria")
    page.goto("/queue?state=held")
    box = page.locator("#tasks input[name=id]").first
    box.check()
    page.evaluate("refresh()")  # waits for the promise
    expect(box).to_be_checked()


@pytest.fixture
def maria(site: Site) -> Iterator[clients.Client]:
    """Signed in without a browser."""
    with session(site.hub, site.url, "maria") as client:
        yield client


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
    expect(page.get_by_role("status")).to_contain_text("made 1 task")
    expect(page.locator("#task")).to_contain_text("Delivered")
    assert site.target.seen[-1].json() == {"n": 7}


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
        "name": "mq", "type": "amqp", "amqp_host": "mq.example.org", "amqp_user": "m@x", "amqp_password": "p/w:d",
        "amqp_vhost": "a/b", "amqp_tls": "on", "amqp_queue_declare": "q 1",
    }  # fmt: skip
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
    assert moved.status_code == 422 and "give it again" in moved.text and "p/w:d" not in moved.text
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


def test_times_are_the_reader_s_and_charts_have_words(browser: Browser, site: Site) -> None:
    """A filter in Tokyo's evening asks for Tokyo's evening; who sees no chart is told what it shows."""
    context = browser.new_context(base_url=site.url, timezone_id="Asia/Tokyo", locale="en-GB")
    page = context.new_page()
    signed_in(page, site, "maria")
    page.goto("/")
    expect(page.get_by_role("img", name=re.compile("Attempts in the last 60 minutes: .* failed"))).to_be_visible()
    page.goto("/deliveries")
    cell = page.locator("#log tbody time").first
    at = cell.get_attribute("datetime")
    clock = "([t, zone]) => new Date(t).toLocaleTimeString('en-GB', {timeZone: zone})"
    assert at and re.search("now|ago", cell.inner_text())
    assert page.evaluate(clock, [at, "Asia/Tokyo"]) in (cell.get_attribute("title") or "")
    page.get_by_role("button", name="Times: local").click()
    assert page.evaluate(clock, [at, "UTC"]) in (cell.get_attribute("title") or "")
    page.get_by_label("From").fill("2026-01-01T09:30")
    page.get_by_role("button", name="Search").click()
    assert "since=2026-01-01T00%3A30%3A00.000Z" in page.url and "until" not in page.url
    expect(page.get_by_label("From")).to_have_value("2026-01-01T09:30")
    context.close()


def test_a_page_says_when_it_is_of_the_past(page: Page, site: Site) -> None:
    """Nobody takes old numbers for new ones because the hub, or the session, is gone."""
    signed_in(page, site, "maria")
    page.goto("/")
    page.route("**/*", lambda route: route.abort())
    page.evaluate("refresh()")
    expect(page.locator("#stale")).to_contain_text("does not respond")
    page.unroute("**/*")
    page.evaluate("refresh()")
    expect(page.locator("#stale")).to_be_hidden()
    for cookie in page.context.cookies():
        if cookie["name"] == "hub_session":
            site.hub.accounts.sessions.end(cookie["value"])
    page.evaluate("refresh()")
    expect(page.locator("#stale").get_by_role("link", name="Sign in")).to_be_visible()
