"""Pictures of the console: `python -m tests.support.pictures FOLDER` draws every page of a filled hub.

`python -m tests.support.pictures --docs` draws those that the documentation shows.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, sync_playwright

from hub.app.lifecycle import Hub, build
from hub.config.definitions import RuleSpec, ServiceSpec, parse_spec
from hub.models import Event
from hub.programs.up import work
from hub.settings import Settings
from hub.web.passwords import hash_password
from hub.web.server import WebServer
from tests.support.http_target import HttpTarget
from tests.support.hubs import add_source
from tests.support.provision import browser as browser_path
from tests.support.waiting import eventually

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
DOCS = {"overview": "/", "rule": "/rules/contacts/edit", "dead-letter": "/dead-letters/{letter}"}
DOCS_FOLDER = Path(__file__).parents[2] / "deploy" / "pictures"
USER = "\\core\\event\\user_created"
COURSE = "\\core\\event\\course_completed"
PAGES = (
    "/",
    "/services",
    "/services/new",
    "/services/crm",
    "/services/crm/edit",
    "/services/queue/edit",
    "/sources",
    "/sources/campus/edit",
    "/rules",
    "/rules/contacts/edit",
    "/rules/contacts/backfill",
    "/events/new",
    "/events",
    "/events?q=userid:1",
    "/events/find?id=dead-letter:{letter}",
    "/activity",
    "/queue",
    "/queue?state=held",
    "/tasks/{task}",
    "/dead-letters",
    "/dead-letters/{letter}",
    "/dead-letters/all?act=delete-all",
    "/deliveries",
    "/deliveries/{delivery}",
    "/deliveries/{delivery}/resend",
    "/schedules",
    "/access",
    "/nope",
)


@contextmanager
def filled() -> Iterator[tuple[str, str, dict[str, int]]]:
    """A hub with something on every page: its address, a session's secret, ids for `PAGES`."""
    with tempfile.TemporaryDirectory() as home:
        settings = Settings(
            home=Path(home),
            listen="127.0.0.1:0",
            retry_delays="0,0,0,0",
            secret_keys="MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
        )
        with HttpTarget() as target, build(settings, role="up") as hub, work(hub, threads=2), WebServer(hub) as server:
            ids = _fill(hub, target)
            yield server.url, hub.accounts.sessions.start(hub.accounts.users.get("maria").id), ids


def _fill(hub: Hub, target: HttpTarget) -> dict[str, int]:
    target.on("/contacts", 201)
    target.on("/completions", 503)
    for service in (
        {
            "name": "crm",
            "base_url": target.url,
            "auth": {"type": "bearer", "token": "t0ken"},
            "max_retries": 1,
            "cb_failure_threshold": 0,
            "max_attempts": 3,
        },
        {"name": "queue", "type": "amqp", "base_url": "amqp://me:pw@127.0.0.1:1/v?queue_declare=q", "enabled": False},
    ):
        hub.registry.services.add(parse_spec(ServiceSpec, service))
    for rule in (
        {
            "name": "contacts",
            "event": USER,
            "service": "crm",
            "endpoint": "/contacts",
            "payload": '{"id": "{{objectid}}", "name": "{{other.username}}"}',
        },
        {"name": "completions", "event": COURSE, "service": "crm", "endpoint": "/completions"},
        {"name": "archive", "event": "\\core\\event\\*", "service": "queue"},
    ):
        hub.registry.rules.add(parse_spec(RuleSpec, rule))
    add_source(hub, "mysql://hub_reader:pw@moodle-db.example.org/moodle", "campus", events=["\\core\\event\\*"])
    hub.db.run(
        "UPDATE source_positions SET last_id = 8123456, newest_id = 8123968, polled_at = now(), read_rows = 812345,"
        " reached_at = now() - interval '75 seconds', events = 1234, errors = 2, error_at = now() - interval '1 hour',"
        " last_error = 'no connection to moodle-db.example.org:3306: connection refused'"
    )
    add_source(hub, "postgresql://hub_reader:pw@127.0.0.1:9/moodle", "library", enabled=False)
    for user, role in (("maria", "manage"), ("vic", "view")):
        hub.accounts.users.add(user, hash_password("correct horse battery"), role)  # type: ignore[arg-type]
    hub.accounts.tokens.add("moodle", "ingest")
    data = {"eventname": USER, "userid": 2, "courseid": 0, "other": {"username": "student1"}}
    hub.intake.handle_events([Event(USER, data | {"objectid": n}) for n in range(60)])
    hub.intake.handle_events([Event(COURSE, {"objectid": n, "courseid": 10}) for n in range(6)])
    hub.registry.rules.update("contacts", {"endpoint": "/contacts", "strict": True})
    hub.registry.rules.update("contacts", {"strict": False})
    assert eventually(lambda: hub.views.dead_letters.count() == 6)
    letter = hub.views.dead_letters.list()[0]
    return {"task": letter["task_id"], "letter": letter["id"], "delivery": hub.views.deliveries.list()[0]["id"]}


def draw(
    browser: Browser,
    site: tuple[str, str, dict[str, int]],
    to: Path,
    pages: Sequence[str],
    width: int,
    scheme: Literal["dark", "light"],
) -> None:
    """One picture a page."""
    url, secret, ids = site
    context = browser.new_context(
        base_url=url,
        color_scheme=scheme,
        viewport={"width": width, "height": 900},
    )
    context.add_cookies([{"name": "hub_session", "value": secret, "url": url}])
    page = context.new_page()
    for template in pages:
        path = template.format(**ids)
        page.goto(path, wait_until="networkidle")
        wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        if wide > 0:
            print(f"{template} at {width}: {wide} px too wide")
        name = "".join(c if c.isalnum() else "-" for c in template.strip("/")) or "overview"
        page.screenshot(path=to / f"{name}-{width}-{scheme}.png", full_page=True)
    context.close()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=DOCS_FOLDER)
    parser.add_argument("--docs", action="store_true")
    parser.add_argument("--pages", nargs="*", default=PAGES)
    parser.add_argument("--widths", nargs="*", type=int, default=[1440, 768, 390])
    parser.add_argument("--schemes", nargs="*", default=["light", "dark"])
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    with filled() as site, sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=browser_path(), args=FLAGS)
        if given.docs:
            for name, path in DOCS.items():
                draw(chromium, site, given.folder, [path], 1440, "light")
                drawn = "".join(c if c.isalnum() else "-" for c in path.strip("/")) or "overview"
                (given.folder / f"{drawn}-1440-light.png").rename(given.folder / f"{name}.png")
        else:
            for width in given.widths:
                for scheme in given.schemes:
                    draw(chromium, site, given.folder, given.pages, width, scheme)
        chromium.close()


if __name__ == "__main__":
    main()
