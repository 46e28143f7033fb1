"""Who may do what in the console: roles, sessions, CSRF, links, markup from outside."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from hub.web.passwords import hash_password
from hub.web.server import WebServer
from tests.e2e.console.site import EVERY_PAGE, NEEDS_BROWSER, PASSWORD, Site, sign_in, signed_in
from tests.support import clients

pytestmark = NEEDS_BROWSER


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
            ("/services/kept/disable", {}),
            ("/services/new", {"name": "x", "base_url": "http://x"}),
            ("/rules/kept/delete", {}),
            ("/queue/act", {"act": "purge"}),
            ("/dead-letters/act", {"act": "replay-all"}),
            ("/dead-letters/act", {"act": "delete-all"}),
            ("/events/new", {"name": "dead", "data": "{}"}),
            ("/schedules/housekeeping_task/disable", {}),
            ("/access/tokens", {"name": "x", "scope": "manage"}),
            ("/access/users/change", {"name": "vic", "act": "manage"}),
        ):
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
        for there, where in (
            ("/queue?state=held", "/queue?state=held"),
            ("//evil.example", "/"),
            ("https://evil.example", "/"),
            ("/\\evil.example", "/"),
        ):
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
