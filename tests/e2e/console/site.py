"""A hub with something on every page of its console."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from playwright.sync_api import Page, expect

from hub.app.lifecycle import Hub
from hub.config.definitions import RuleSpec, ServiceSpec, parse_spec
from hub.models import Event
from hub.web.passwords import hash_password
from tests.support.http_target import HttpTarget, Reply
from tests.support.hubs import add_source
from tests.support.provision import browser as browser_path
from tests.support.waiting import eventually

CHROMIUM = browser_path()
NEEDS_BROWSER = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="NO BROWSER: apt-get install chromium, or nothing here is proven"),
]
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
EVENT = "\\core\\event\\user_created"
HOSTILE = "<script>document.title='pwned'</script><img src=x onerror=alert(1)>"
PASSWORD = "correct horse battery"
EVERY_PAGE = (
    "/",
    "/services",
    "/services/new",
    "/services/kept",
    "/services/kept/edit",
    "/services/queue/edit",
    "/sources",
    "/sources/new",
    "/sources/campus/edit",
    "/rules",
    "/rules/new",
    "/rules/kept",
    "/rules/kept/edit",
    "/events/new",
    "/queue",
    "/tasks/{task}",
    "/dead-letters",
    "/dead-letters/{letter}",
    "/dead-letters/all?act=delete-all",
    "/deliveries",
    "/deliveries/{delivery}",
    "/schedules",
    "/access",
)


@dataclass
class Site:
    hub: Hub
    url: str
    target: HttpTarget
    ids: dict[str, int]

    def path(self, template: str) -> str:
        return self.url + template.format(**self.ids)


def fill(hub: Hub, target: HttpTarget) -> dict[str, int]:
    target.on("/dead", Reply(500, {"error": HOSTILE}))
    for spec in (
        {
            "name": "kept",
            "base_url": target.url,
            "auth": {"type": "bearer", "token": "canary-token"},
            "max_retries": 1,
            "cb_failure_threshold": 0,
            "max_attempts": 2,
        },
        {
            "name": "queue",
            "type": "amqp",
            "base_url": "amqp://me:canary-password@127.0.0.1:1/v?queue_declare=q",
            "enabled": False,
        },
    ):
        hub.registry.services.add(parse_spec(ServiceSpec, spec))
    for rule in (
        {"name": "kept", "event": "dead", "service": "kept", "endpoint": "/dead"},
        {"name": "held", "event": "dead", "service": "queue"},
    ):
        hub.registry.rules.add(parse_spec(RuleSpec, rule))
    add_source(hub, "mysql://reader:canary-database@127.0.0.1:9/moodle", "campus")
    for user, role in (("maria", "manage"), ("vic", "view")):
        hub.accounts.users.add(user, hash_password(PASSWORD), role)  # type: ignore[arg-type]
    hub.accounts.tokens.add("moodle", "ingest")
    accepted = hub.intake.handle_event(Event("dead", {"text": HOSTILE}))
    eventually(lambda: hub.views.dead_letters.count() == 1)
    (letter,) = hub.views.dead_letters.list()
    return {"task": accepted.tasks[0], "letter": letter["id"], "delivery": hub.views.deliveries.list()[0]["id"]}


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
