"""Lookups: templates read what a Moodle event only names, from the site's real tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from hub.app.lifecycle import Hub
from hub.app.sources import make_poller
from hub.codec import loads
from hub.models import Event
from hub.operations.preview import latest_event, preview
from hub.sources.moodle_database import MoodleDatabase
from hub.sources.moodle_rows import USER_COLUMNS, MoodleRows
from hub.store.source_positions import SourcePositions
from tests.support.databases import Template
from tests.support.http_target import HttpTarget
from tests.support.hubs import add_rule, add_service, add_source, attempt, emit, task
from tests.support.moodle_site import PASSWORD, MoodleSite, log_row

PAYLOAD = (
    '{"mail": "{{user.email}}", "name": "{{relateduser.firstname}} {{relateduser.lastname}}",'
    ' "course": "{{course.shortname}}", "category": "{{course.category.name}}",'
    ' "department": "{{user.profile.department}}", "roles": "{{user.roles}}", "cohorts": "{{cohorts}}"}'
)
EVENT = "\\core\\event\\course_completed"


def fill(site: MoodleSite) -> None:
    """Two people, a course in a category, a custom field, roles in the course and above it, a cohort."""
    user = (
        "INSERT INTO mdl_user (id, username, password, firstname, lastname, email, secret)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s)"
    )
    site.run(user, [2, "admin", "hash-canary", "Ada", "Admin", "ada@example.org", "canary"])
    site.run(user, [7, "zoe", "hash-canary", "Zoë", "Löwe", "zoe@example.org", "canary"])
    site.run("INSERT INTO mdl_user_info_field (id, shortname) VALUES (1, 'department')")
    site.run("INSERT INTO mdl_user_info_data (userid, fieldid, data) VALUES (2, 1, 'Physics')")
    site.run("INSERT INTO mdl_course_categories (id, name, idnumber) VALUES (3, 'Science', 'SCI')")
    site.run("INSERT INTO mdl_course (id, category, fullname, shortname) VALUES (4, 3, 'Waves', 'PHY-1')")
    site.run("INSERT INTO mdl_context (id, contextlevel, instanceid, path) VALUES (21, 50, 4, '/1/21')")
    site.run("INSERT INTO mdl_role (id, shortname) VALUES (1, 'manager'), (3, 'editingteacher'), (5, 'student')")
    site.run(
        "INSERT INTO mdl_role_assignments (roleid, contextid, userid)"
        " VALUES (1, 1, 2), (3, 21, 2), (5, 21, 7), (5, 99, 2)"
    )
    site.run("INSERT INTO mdl_cohort (id, name) VALUES (1, 'Year 1')")
    site.run("INSERT INTO mdl_cohort_members (cohortid, userid) VALUES (1, 7)")


@pytest.fixture
def delivered(hub: Hub, target: HttpTarget) -> Iterator[HttpTarget]:
    """A service that takes everything, and the rule under test."""
    add_service(hub, target.url)
    add_rule(hub, event=EVENT, payload=PAYLOAD, endpoint="/people/{{relateduser.email}}")
    yield target


def read(hub: Hub) -> int:
    """Read the source `site` once; the id of the last task."""
    source = hub.registry.sources.source("site")
    poller, close = make_poller(hub, source, SourcePositions(hub.db, source.id, "test"))
    while poller.look() == "more":
        pass
    close()
    row = hub.db.one("SELECT max(id) AS id FROM tasks")
    assert row is not None
    return int(row["id"])


def test_a_row_arrives_with_names_and_addresses(hub: Hub, moodle: MoodleSite, delivered: HttpTarget) -> None:
    fill(moodle)
    add_source(hub, moodle.url, start=0)
    moodle.insert([log_row(EVENT)])
    assert attempt(hub, read(hub)) == "delivered"
    [request] = delivered.seen
    assert request.path == f"/people/{quote('zoe@example.org', safe='')}"
    assert loads(request.body) == {
        "mail": "ada@example.org",
        "name": "Zoë Löwe",
        "course": "PHY-1",
        "category": "Science",
        "department": "Physics",
        "roles": ["editingteacher", "manager"],
        "cohorts": ["Year 1"],
    }


def test_a_missing_row_is_null_or_fails_a_strict_rule(hub: Hub, moodle_pg: MoodleSite, delivered: HttpTarget) -> None:
    add_source(hub, moodle_pg.url, start=0)
    moodle_pg.insert([log_row(EVENT)])
    hub.registry.rules.update("r1", {"endpoint": "/x"})
    assert attempt(hub, read(hub)) == "delivered"
    assert loads(delivered.seen[0].body)["mail"] is None
    hub.registry.rules.update("r1", {"strict": True})
    moodle_pg.insert([log_row(EVENT)])
    last = read(hub)
    assert attempt(hub, last) == "failed"
    assert "{{user.email}} is not in the event, and the rule is strict" in task(hub, last)["last_error"]


def test_a_database_that_is_away_costs_no_attempt(hub: Hub, moodle_pg: MoodleSite, delivered: HttpTarget) -> None:
    fill(moodle_pg)
    add_source(hub, moodle_pg.url, start=0)
    moodle_pg.insert([log_row(EVENT)])
    last = read(hub)
    moodle_pg.run("REVOKE SELECT ON mdl_user FROM hubtest_reader")
    assert attempt(hub, last) == "parked"
    row = task(hub, last)
    assert (row["attempts"], row["state"]) == (0, "delayed")
    assert "lookup in source site" in row["last_error"] and PASSWORD not in row["last_error"]
    assert delivered.seen == [] and hub.db.all("SELECT * FROM deliveries") == []
    moodle_pg.run("GRANT SELECT ON mdl_user TO hubtest_reader")
    hub.lookups.close()  # the pause after a failure is over
    hub.db.run("UPDATE tasks SET state = 'pending', next_run_at = now()")
    assert attempt(hub, last) == "delivered"


def test_only_fixed_columns_are_read(hub: Hub, moodle: MoodleSite) -> None:
    """A reader who may read these columns alone is enough, and no template gets at a password hash."""
    fill(moodle)
    columns = ", ".join(USER_COLUMNS)
    if moodle.kind == "postgresql":
        moodle.run("REVOKE SELECT ON mdl_user FROM hubtest_reader")
        moodle.run(f"GRANT SELECT ({columns}) ON mdl_user TO hubtest_reader")
    rows = MoodleRows(MoodleDatabase(add_source(hub, moodle.url), hub.settings), "mdl_")
    try:
        user = rows.user(2)
    finally:
        rows.close()
    assert user is not None and set(user) == {*USER_COLUMNS, "fullname"}
    assert "canary" not in str(user)


def test_an_event_without_a_source_belongs_to_the_only_site(
    hub: Hub, moodle_pg: MoodleSite, delivered: HttpTarget
) -> None:
    """Events that a plugin sends use lookups as well, while it is clear where they come from."""
    fill(moodle_pg)
    add_source(hub, moodle_pg.url, start=0)
    [one] = emit(hub, EVENT, log_row(EVENT))
    assert attempt(hub, one) == "delivered"
    assert loads(delivered.seen[0].body)["name"] == "Zoë Löwe"
    [two] = emit(hub, EVENT, log_row(EVENT) | {"user": {"email": "own@example.org"}})
    assert attempt(hub, two) == "delivered"
    assert loads(delivered.seen[1].body)["mail"] == "own@example.org"


def test_a_mask_hides_what_was_looked_up(hub: Hub, moodle_pg: MoodleSite, delivered: HttpTarget) -> None:
    fill(moodle_pg)
    add_source(hub, moodle_pg.url, start=0)
    hub.registry.services.update("crm", {"mask": ["mail"]})
    moodle_pg.insert([log_row(EVENT)])
    last = read(hub)
    assert attempt(hub, last) == "delivered"
    assert loads(delivered.seen[0].body)["mail"] == "ada@example.org"
    everything = str(hub.db.all("SELECT * FROM deliveries"))
    assert "ada@example.org" not in everything and "zoe%40example.org" in everything


def test_a_preview_looks_up_for_real_events_only(hub: Hub, moodle_pg: MoodleSite, delivered: HttpTarget) -> None:
    """Who may preview could else look up anybody with an invented event."""
    fill(moodle_pg)
    add_source(hub, moodle_pg.url, start=0)
    moodle_pg.insert([log_row(EVENT)])
    read(hub)
    rule = hub.configuration.rule("r1")
    latest = latest_event(hub, EVENT)
    assert latest is not None
    real = preview(hub, rule, latest)
    assert loads(real.body or "")["mail"] == "ada@example.org"
    hub.registry.services.update("crm", {"mask": ["mail"]})
    assert loads(preview(hub, rule, latest).body or "")["mail"] == "***"
    invented: dict[str, Any] = log_row(EVENT, userid=7)
    hub.registry.rules.update("r1", {"endpoint": "/x"})
    made_up = preview(hub, hub.configuration.rule("r1"), Event(EVENT, invented))
    assert loads(made_up.body or "")["mail"] is None


def test_callers_at_the_same_time_share_a_query_and_rows_are_kept(
    hub: Hub, moodle_pg: MoodleSite, database_template: Template
) -> None:
    fill(moodle_pg)
    source = add_source(hub, moodle_pg.url)
    asked: list[str] = []

    class Counting(MoodleDatabase):
        def query(self, sql: str, params: Any = ()) -> list[tuple[Any, ...]]:
            asked.append(sql)
            return super().query(sql, params)

    clock = [0.0]
    rows = MoodleRows(Counting(source, hub.settings), "mdl_", now=lambda: clock[0])
    for _ in range(3):
        assert rows.user(2) is not None
    assert rows.user(99) is None and rows.user(99) is None
    assert len(asked) == 2
    clock[0] = 301.0
    rows.user(2)
    assert len(asked) == 3
    rows.close()
