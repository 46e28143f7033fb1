"""A Moodle database for tests, on MariaDB or PostgreSQL: tables by the facts of Moodle's schema, and writers.

The writers behave like Moodle's buffered log store: a request takes ids when it ends, several at a time, and other
requests commit before or after it.
"""

from __future__ import annotations

import itertools
import json
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from typing import Any, Literal, Protocol
from urllib.parse import quote

import psycopg
from psycopg import conninfo

from hub.sources.moodle_event import EVENT_KEYS, LOG_KEYS
from tests.support.databases import Template
from tests.support.mariadb import MariaDbServer

Kind = Literal["mariadb", "postgresql"]
LOG_COLUMNS = (*EVENT_KEYS, *LOG_KEYS)
PASSWORD = "reader-s3cret/&"

_LOG = """
CREATE TABLE mdl_logstore_standard_log (
    id {id}, eventname varchar(255) NOT NULL, component varchar(100) NOT NULL, action varchar(100) NOT NULL,
    target varchar(100) NOT NULL, objecttable varchar(50), objectid bigint, crud varchar(1) NOT NULL,
    edulevel smallint NOT NULL, contextid bigint NOT NULL, contextlevel bigint NOT NULL,
    contextinstanceid bigint NOT NULL, userid bigint NOT NULL, courseid bigint, relateduserid bigint,
    anonymous smallint NOT NULL DEFAULT 0, other {text}, timecreated bigint NOT NULL, origin varchar(10),
    ip varchar(45), realuserid bigint
)
"""
_INDEXES = (
    "CREATE INDEX mdl_log_tim ON mdl_logstore_standard_log (timecreated)",
    "CREATE INDEX mdl_log_cou ON mdl_logstore_standard_log (courseid, anonymous, timecreated)",
    "CREATE INDEX mdl_log_use ON mdl_logstore_standard_log"
    " (userid, contextlevel, contextinstanceid, crud, edulevel, timecreated)",
)
_OTHER_TABLES = (
    "CREATE TABLE mdl_user (id {id}, username varchar(100) NOT NULL, password varchar(255) NOT NULL,"
    " idnumber varchar(255) NOT NULL DEFAULT '', firstname varchar(100) NOT NULL, lastname varchar(100) NOT NULL,"
    " email varchar(100) NOT NULL, institution varchar(255) NOT NULL DEFAULT '', department varchar(255) NOT NULL"
    " DEFAULT '', city varchar(120) NOT NULL DEFAULT '', country varchar(2) NOT NULL DEFAULT '',"
    " lang varchar(30) NOT NULL DEFAULT 'en', auth varchar(20) NOT NULL DEFAULT 'manual',"
    " suspended smallint NOT NULL DEFAULT 0, deleted smallint NOT NULL DEFAULT 0, secret varchar(15))",
    "CREATE TABLE mdl_user_info_field (id {id}, shortname varchar(255) NOT NULL)",
    "CREATE TABLE mdl_user_info_data (id {id}, userid bigint NOT NULL, fieldid bigint NOT NULL, data {text})",
    "CREATE TABLE mdl_course (id {id}, category bigint NOT NULL, fullname varchar(254) NOT NULL,"
    " shortname varchar(255) NOT NULL, idnumber varchar(100) NOT NULL DEFAULT '', startdate bigint NOT NULL DEFAULT 0,"
    " enddate bigint NOT NULL DEFAULT 0, visible smallint NOT NULL DEFAULT 1)",
    "CREATE TABLE mdl_course_categories (id {id}, name varchar(255) NOT NULL, idnumber varchar(100))",
    "CREATE TABLE mdl_role (id {id}, shortname varchar(100) NOT NULL)",
    "CREATE TABLE mdl_role_assignments (id {id}, roleid bigint NOT NULL, contextid bigint NOT NULL,"
    " userid bigint NOT NULL)",
    "CREATE TABLE mdl_context (id {id}, contextlevel bigint NOT NULL, instanceid bigint NOT NULL, path varchar(255))",
    "CREATE TABLE mdl_cohort (id {id}, name varchar(254) NOT NULL, idnumber varchar(100))",
    "CREATE TABLE mdl_cohort_members (id {id}, cohortid bigint NOT NULL, userid bigint NOT NULL)",
)


class Connection(Protocol):
    """What both drivers' connections can do."""

    def cursor(self) -> Any: ...

    def commit(self) -> None: ...

    def rollback(self) -> None: ...

    def close(self) -> None: ...


class MoodleSite:
    """One Moodle database. `url` is what the hub gets: a user who may only read.

    Args:
        connect: opens a connection of the administrator outside of autocommit.
        close: removes the database.
    """

    def __init__(self, kind: Kind, url: str, connect: Callable[[], Connection], close: Callable[[], None]) -> None:
        self.kind = kind
        self.url = url
        self._connect = connect
        self._close = close
        self._admin = connect()

    def close(self) -> None:
        """Remove the database."""
        self._admin.close()
        self._close()

    def reconnect(self) -> None:
        """Open the administrator's connection again, after the server was restarted."""
        self._admin.close()
        self._admin = self._connect()

    def run(self, sql: str, params: Sequence[Any] = (), conn: Connection | None = None) -> list[tuple[Any, ...]]:
        """Execute one statement; committed, unless within the transaction of `conn`."""
        with (conn or self._admin).cursor() as cur:
            cur.execute(sql, params or None)
            rows = list(cur.fetchall()) if cur.description else []
        if conn is None:
            self._admin.commit()
        return rows

    def transaction(self) -> Connection:
        """A connection whose statements are committed together; close it."""
        return self._connect()

    def insert(self, rows: Iterable[dict[str, Any]], conn: Connection | None = None) -> list[int]:
        """Insert log rows as a request does at its end; their ids."""
        ids = []
        for row in rows:
            columns = ", ".join(row)
            marks = ", ".join(["%s"] * len(row))
            sql = f"INSERT INTO mdl_logstore_standard_log ({columns}) VALUES ({marks}) RETURNING id"
            ids.append(self.run(sql, list(row.values()), conn or self._admin)[0][0])
        if conn is None:
            self._admin.commit()
        return ids


def make_site(kind: Kind, mariadb: MariaDbServer | None, template: Template) -> MoodleSite:
    """A database with Moodle's tables and a user who may read them."""
    site = _mariadb_site(mariadb) if mariadb is not None and kind == "mariadb" else _postgresql_site(template)
    is_maria = kind == "mariadb"
    words = {
        "id": "bigint AUTO_INCREMENT PRIMARY KEY" if is_maria else "bigserial PRIMARY KEY",
        "text": "longtext" if is_maria else "text",
    }
    for statement in (_LOG, *_INDEXES, *_OTHER_TABLES):
        site.run(statement.format(**words))
    if not is_maria:
        site.run("GRANT SELECT ON ALL TABLES IN SCHEMA public TO hubtest_reader")
    return site


def _mariadb_site(server: MariaDbServer) -> MoodleSite:
    name = f"moodle_{uuid.uuid4().hex[:8]}"
    admin = server.connect()
    for statement in (
        f"CREATE DATABASE {name} CHARACTER SET utf8mb4",
        f"CREATE USER IF NOT EXISTS hubtest_reader@'%%' IDENTIFIED BY '{PASSWORD}'",
        f"GRANT SELECT ON {name}.* TO hubtest_reader@'%%'",
    ):
        with admin.cursor() as cur:
            cur.execute(statement.replace("%%", "%"))
    admin.close()

    def connect() -> Connection:
        conn = server.connect(name)
        conn.autocommit(False)
        return conn

    def close() -> None:
        with closing(server.connect()) as last, last.cursor() as cur:
            cur.execute(f"DROP DATABASE {name}")

    url = f"mysql://hubtest_reader:{quote(PASSWORD, safe='')}@127.0.0.1:{server.port}/{name}"
    return MoodleSite("mariadb", url, connect, close)


def _postgresql_site(template: Template) -> MoodleSite:
    name, url = template.empty()
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(
            "DO $$ BEGIN CREATE ROLE hubtest_reader LOGIN PASSWORD 'reader-s3cret/&';"
            " EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$"
        )
    where = conninfo.conninfo_to_dict(url)
    host = str(where.get("host") or "127.0.0.1")
    user = f"hubtest_reader:{quote(PASSWORD, safe='')}"
    if host.startswith("/"):
        own = f"postgresql://{user}@/{name}?host={quote(host, safe='')}"
    else:
        own = f"postgresql://{user}@{host}:{where.get('port') or 5432}/{name}"
    return MoodleSite("postgresql", own, lambda: psycopg.connect(url), lambda: template.drop(name))


def php(value: Any) -> str:
    """What PHP's `serialize()` writes for plain data."""
    if value is None:
        return "N;"
    if isinstance(value, bool):
        return f"b:{int(value)};"
    if isinstance(value, int):
        return f"i:{value};"
    if isinstance(value, float):
        return f"d:{value!r};"
    if isinstance(value, str):
        return f's:{len(value.encode())}:"{value}";'
    pairs = list(enumerate(value)) if isinstance(value, list) else list(value.items())
    return f"a:{len(pairs)}:{{{''.join(php(key) + php(item) for key, item in pairs)}}}"


_EVENTS: tuple[tuple[str, dict[str, Any], Any], ...] = (
    ("\\core\\event\\user_created", {"target": "user", "crud": "c", "objecttable": "user", "relateduserid": 7}, None),
    ("\\core\\event\\user_loggedin", {"target": "user", "crud": "r", "objecttable": "user"}, {"username": "zoë"}),
    (
        "\\core\\event\\user_enrolment_created",
        {"target": "user_enrolment", "crud": "c", "objecttable": "user_enrolments", "relateduserid": 7},
        {"enrol": "manual"},
    ),
    (
        "\\core\\event\\course_completed",
        {"target": "course", "crud": "u", "objecttable": "course_completions", "relateduserid": 7},
        {"relateduserid": 7},
    ),
    (
        "\\core\\event\\user_graded",
        {"target": "user", "crud": "u", "objecttable": "grade_grades", "relateduserid": 7},
        {"itemid": 3, "overridden": False, "finalgrade": 87.5},
    ),
    (
        "\\mod_quiz\\event\\attempt_submitted",
        {"target": "attempt", "crud": "u", "objecttable": "quiz_attempts", "relateduserid": 7},
        {"submitterid": "7", "quizid": 12, "studentisonline": True},
    ),
    (
        "\\core\\event\\role_assigned",
        {"target": "role", "crud": "c", "objecttable": "role", "relateduserid": 7},
        {"id": 41, "component": "", "itemid": 0},
    ),
    ("\\core\\event\\course_viewed", {"target": "course", "crud": "r"}, None),
    (
        "\\core\\event\\config_log_created",
        {"target": "config_log", "crud": "c"},
        {"name": "x", "list": [1, [2.5, None]]},
    ),
)
_numbers = itertools.count(1)


def log_row(name: str | None = None, *, form: Literal["json", "php"] = "json", **fields: Any) -> dict[str, Any]:
    """One row of the log with the shape that core's event of that name has; `fields` replace values."""
    number = next(_numbers)
    eventname, shape, other = next((e for e in _EVENTS if e[0] == name), _EVENTS[number % len(_EVENTS)])
    row: dict[str, Any] = dict.fromkeys(LOG_COLUMNS) | {
        "eventname": name or eventname,
        "component": eventname.split("\\")[1],
        "action": eventname.rpartition("_")[2],
        "objectid": number,
        "edulevel": 0,
        "contextid": 21,
        "contextlevel": 50,
        "contextinstanceid": 4,
        "userid": 2,
        "courseid": 4,
        "anonymous": 0,
        "other": json.dumps(other) if form == "json" else php(other),
        "timecreated": 1_790_000_000 + number // 50,
        "origin": "web",
        "ip": "192.0.2.7",
    }
    return row | shape | fields
