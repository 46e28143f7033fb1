"""Moodle events as `get_data()` gives them, and strategies for hostile JSON."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import strategies as st

from hub.domain import rules
from hub.models import JSON, Rule

NOW = datetime(2026, 11, 24, 9, 30, 15, 250_000, tzinfo=UTC)

LOGIN: dict[str, JSON] = {
    "eventname": "\\core\\event\\user_loggedin",
    "component": "core",
    "action": "loggedin",
    "target": "user",
    "objecttable": "user",
    "objectid": 5,
    "crud": "r",
    "edulevel": 0,
    "contextid": 1,
    "contextlevel": 10,
    "contextinstanceid": 0,
    "userid": "5",
    "courseid": 0,
    "relateduserid": None,
    "anonymous": 0,
    "other": {"username": "student1", "roles": [{"id": 3}, {"id": 4}], "sso": False},
    "timecreated": 1708258939,
}

texts = st.text(st.characters(codec="utf-8"), max_size=20)
numbers = st.integers() | st.integers(10**30, 10**300) | st.floats(allow_nan=False, allow_infinity=False)
scalars = (
    st.none() | st.booleans() | numbers | texts | st.sampled_from(['a"b\\c', "\0", "{{userid}}", "}}", "\r\nX: 1"])
)
values = st.recursive(scalars, lambda v: st.lists(v, max_size=4) | st.dictionaries(texts, v, max_size=4), max_leaves=12)


def rule(**fields: JSON) -> Rule:
    return Rule(**{"id": 1, "name": "r", "event": "*", "service_id": 1, "service": "s", **fields})


def render(data: JSON = LOGIN, **fields: JSON) -> tuple[str | None, str]:
    return rules.render(
        rule(**fields), event_name="\\core\\event\\user_loggedin", event_data=data, event_id="e-1", task_id=7, now=NOW
    )
