"""A browser and a hub to look at."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from hub.app.lifecycle import build
from hub.programs.up import work
from hub.settings import Settings
from hub.web.server import WebServer
from tests.e2e.console.site import CHROMIUM, FLAGS, Site, fill
from tests.support import clients
from tests.support.console import signed_in as session
from tests.support.databases import Template
from tests.support.http_target import HttpTarget

expect.set_options(timeout=60_000)  # live parts come every five seconds


@pytest.fixture(scope="module")
def site(database_template: Template, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A whole hub in one process, with something on every page."""
    name, url = database_template.clone()
    settings = Settings(
        database_url=url,
        home=tmp_path_factory.mktemp("home"),
        listen="127.0.0.1:0",
        retry_delays="0,0,0,0",
        secret_keys="MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
    )
    with HttpTarget() as target, build(settings, role="up") as hub, work(hub, threads=2), WebServer(hub) as server:
        ids = fill(hub, target)
        yield Site(hub, server.url, target, ids)
    database_template.drop(name)


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


@pytest.fixture
def maria(site: Site) -> Iterator[clients.Client]:
    """Signed in without a browser."""
    with session(site.hub, site.url, "maria") as client:
        yield client
