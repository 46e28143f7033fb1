"""Accessibility, small screens, live parts and times."""

from __future__ import annotations

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.e2e.console.site import EVERY_PAGE, NEEDS_BROWSER, Site, signed_in

pytestmark = NEEDS_BROWSER


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
