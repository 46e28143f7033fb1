"""The scenario with a Moodle database: a row of its log arrives at a service, with the learner's name.

The private PostgreSQL holds the few tables that are read. A user of its own may read them and nothing else.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from hub.config.definitions import RuleSpec, parse_spec
from hub.config.sources import SourceSpec
from hub.demo.environment import Environment, NotObserved
from hub.demo.scenarios import Scenario
from hub.models import Accepted
from hub.store.database import Database, Row
from hub.store.source_positions import status

_EVENT = "\\core\\event\\user_enrolment_created"
_TABLES = (
    "CREATE TABLE mdl_logstore_standard_log (id bigserial PRIMARY KEY, eventname varchar(255), component varchar(100),"
    " action varchar(100), target varchar(100), objecttable varchar(50), objectid bigint, crud varchar(1),"
    " edulevel smallint, contextid bigint, contextlevel bigint, contextinstanceid bigint, userid bigint,"
    " courseid bigint, relateduserid bigint, anonymous smallint, other text, timecreated bigint, origin varchar(10),"
    " ip varchar(45), realuserid bigint)",
    "CREATE TABLE mdl_user (id bigserial PRIMARY KEY, username varchar(100), idnumber varchar(255),"
    " firstname varchar(100), lastname varchar(100), email varchar(100), institution varchar(255),"
    " department varchar(255), city varchar(120), country varchar(2), lang varchar(30), auth varchar(20),"
    " suspended smallint, deleted smallint)",
    "CREATE TABLE mdl_course (id bigserial PRIMARY KEY, category bigint, fullname varchar(254), shortname varchar(255),"
    " idnumber varchar(100), startdate bigint, enddate bigint, visible smallint)",
    "CREATE TABLE mdl_course_categories (id bigserial PRIMARY KEY, name varchar(255), idnumber varchar(100))",
    "INSERT INTO mdl_user (id, username, firstname, lastname, email)"
    " VALUES (7, 'zoe', 'Zoë', 'Löwe', 'zoe@example.org')",
    "INSERT INTO mdl_course_categories (id, name) VALUES (3, 'Science')",
    "INSERT INTO mdl_course (id, category, fullname, shortname) VALUES (4, 3, 'Waves', 'PHY-1')",
    "CREATE ROLE moodle_reader LOGIN",
    "GRANT SELECT ON ALL TABLES IN SCHEMA public TO moodle_reader",
)
_ROW = (
    "INSERT INTO mdl_logstore_standard_log (eventname, component, action, target, objecttable, objectid, crud,"
    " edulevel, contextid, contextlevel, contextinstanceid, userid, courseid, relateduserid, anonymous, other,"
    " timecreated, origin)"
    " VALUES (%s, 'core', 'created', 'user_enrolment', 'user_enrolments', 12, 'c', 0, 21, 50, 4, 2, 4, 7, 0,"
    " 'a:1:{s:5:\"enrol\";s:6:\"manual\";}', 1790000000, 'web')"
)
_PAYLOAD = {
    "who": "{{relateduser.fullname}}",
    "mail": "{{relateduser.email}}",
    "course": "{{course.fullname}} ({{course.category.name}})",
    "by": "{{other.enrol}}",
}


def from_moodle(env: Environment, scenario: Scenario) -> None:
    """Moodle writes one row; nobody calls the hub."""
    hub = env.hub
    assert hub.postgres is not None
    socket = urlsplit(hub.postgres.url).query
    hub.db.run("CREATE DATABASE moodle")
    site = Database(f"postgresql://hub@/moodle?{socket}", size=1)
    site.open()
    try:
        for statement in _TABLES:
            site.run(statement)
        url = f"postgresql://moodle_reader@/moodle?{socket}"
        hub.registry.sources.add(parse_spec(SourceSpec, {"name": "campus", "url": url, "poll_interval": 0.2}))
        rule = {"name": "enrolments-to-crm", "event": _EVENT, "service": "crm", "endpoint": "/enrolments"}
        hub.registry.rules.add(parse_spec(RuleSpec, rule | {"payload": _PAYLOAD, "strict": True}))
        env.screen.say("a database with Moodle's tables is read as the source campus, by a user who may only read")
        hub.start_sources()
        env.until(lambda: status(hub.db)[0]["state"] == "up_to_date", "waiting for the first look at the log")
        site.run(_ROW, [_EVENT])
        env.screen.happened("→", f"Moodle writes a row into its log: {_EVENT}", style="cyan")
        row = env.until(lambda: _delivery(env), "waiting for the delivery")
    finally:
        site.close()
    env.accepted.append(Accepted(row["event"], duplicate=False, tasks=(row["task_id"],)))
    scenario.attempts = row["attempt"]
    got = [r for r in env.target.at("crm") if r.path == "/crm/enrolments"]
    wanted = {"who": "Zoë Löwe", "mail": "zoe@example.org", "course": "Waves (Science)", "by": "manual"}
    scenario.check("the service got it once, with the name behind the id", [r.body for r in got], [wanted])
    [seen] = status(hub.db)
    scenario.check("the source has read one row, and lags behind by none", (seen["events"], seen["lag_rows"]), (1, 0))
    if seen["errors"]:
        raise NotObserved(f"a look without failure: {seen['last_error']}")


def _delivery(env: Environment) -> Row | None:
    """The delivery of the row, once its task has ended."""
    found = next((row for row in env.deliveries() if row["event"] == _EVENT and row["success"]), None)
    return found and env.delivered(found["task_id"])
