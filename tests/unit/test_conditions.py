"""Rule conditions: every operator, and errors that name their place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.domain.rules import check_conditions, matches
from hub.errors import PayloadError
from hub.models import JSON, Event
from tests.unit.samples import LOGIN, rule, values


def holds(conditions: JSON, data: JSON = LOGIN) -> bool:
    check_conditions(conditions)
    return matches(rule(conditions=conditions), Event("e", data))


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        (None, True),
        ({}, True),
        ({"crud": "r"}, True),
        ({"crud": "R"}, False),
        ({"objectid": "5"}, True),
        ({"userid": 5}, True),
        ({"userid": 5.0}, True),
        ({"userid": {"eq": 6}}, False),
        ({"userid": {"ne": 5}}, False),
        ({"userid": {"ne": "six"}}, True),
        ({"relateduserid": None}, True),
        ({"no.such": None}, True),
        ({"no.such": {"ne": 1}}, True),
        ({"no.such": {"exists": False}}, True),
        ({"relateduserid": {"exists": True}}, True),
        ({"relateduserid": {"ne": None}}, False),
        ({"other.sso": False}, True),
        ({"other.sso": 0}, False),
        ({"courseid": False}, False),
        ({"other.roles.1.id": 4}, True),
        ({"other.roles.2.id": {"exists": False}}, True),
        ({"other.roles": [{"id": "3"}, {"id": 4}]}, True),
        ({"other.roles": {"eq": [{"id": 3}]}}, False),
        ({"other": {"eq": {"username": "student1"}}}, False),
        ({"objectid": {"in": ["4", "5"]}}, True),
        ({"objectid": {"in": []}}, False),
        ({"objectid": {"nin": [4, 5]}}, False),
        ({"no.such": {"nin": [4]}}, True),
        ({"eventname": {"prefix": "\\core\\"}}, True),
        ({"eventname": {"suffix": "_loggedin", "contains": "event"}}, True),
        ({"eventname": {"suffix": "_loggedin", "contains": "nothing"}}, False),
        ({"timecreated": {"prefix": "1708"}}, True),
        ({"relateduserid": {"prefix": ""}}, True),
        ({"other.roles": {"contains": {"id": "4"}}}, True),
        ({"other.roles": {"contains": 4}}, False),
        ({"timecreated": {"gte": 1708258939, "lt": "1708258940"}}, True),
        ({"userid": {"gt": 5}}, False),
        ({"userid": {"gt": "10"}}, False),
        ({"userid": {"lte": 5}}, True),
        ({"relateduserid": {"lt": 1}}, False),
        ({"crud": {"gt": "a"}}, True),
        ({"crud": {"gt": 1}}, False),
        ({"crud": "r", "target": "course"}, False),
        ({"and": [{"crud": "r"}, {"target": "user"}]}, True),
        ({"or": [{"crud": "c"}, {"target": "user"}]}, True),
        ({"or": [{"crud": "c"}, {"target": "course"}]}, False),
        ({"not": {"crud": "r"}}, False),
        ({"crud": "r", "not": {"or": [{"userid": 1}, {"userid": 2}]}}, True),
    ],
)
def test_conditions_hold_as_documented(conditions: JSON, expected: bool) -> None:
    assert holds(conditions) is expected


def test_fields_of_a_json_string_are_seen() -> None:
    """Some senders give `other` as JSON text, as Moodle's log table keeps it."""
    assert holds({"other.username": "x"}, {"other": '{"username":"x"}'})


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        ([], "conditions: must be an object"),
        ({"a": {"like": 1}}, "a.like: no such operator; known: eq, ne"),
        ({"a": {}}, "a: holds no operator"),
        ({"": 1}, "not a dotted path"),
        ({"a..b": 1}, "a..b: 'a..b' is not a dotted path"),
        ({"or": [{"x": 1}, {"y": {"in": 5}}]}, r"or\[1\].y.in: must be a list"),
        ({"and": []}, "and: must be a list of conditions, not empty"),
        ({"and": {"x": 1}}, "and: must be a list"),
        ({"not": [{"x": 1}]}, "not: must be an object"),
        ({"a": {"exists": 1}}, "a.exists: must be true or false"),
        ({"a": {"prefix": 1}}, "a.prefix: must be a text"),
        ({"a": {"gt": None}}, "a.gt: must be a number or a text"),
        ({"a": {"lt": True}}, "a.lt: must be a number or a text"),
        ({"a": "x\0"}, "a: must not hold NUL"),
        ({"a": {"in": ["\ud800"]}}, "a: must not hold NUL or half a surrogate"),
        ({"a": float("nan")}, "a: cannot be written as JSON"),
    ],
)
def test_wrong_conditions_are_refused_with_their_path(conditions: JSON, message: str) -> None:
    with pytest.raises(PayloadError, match=message):
        check_conditions(conditions)


def test_endless_nesting_is_refused() -> None:
    deep: JSON = {"a": 1}
    for _ in range(2000):
        deep = {"not": deep}
    with pytest.raises(PayloadError, match="nested more than"):
        check_conditions(deep)


@given(values, values)
def test_ne_and_not_are_the_opposite_of_eq(value: JSON, wanted: JSON) -> None:
    data = {"f": value}
    equal = matches(rule(conditions={"f": {"eq": wanted}}), Event("e", data))
    assert matches(rule(conditions={"f": {"ne": wanted}}), Event("e", data)) is not equal
    assert matches(rule(conditions={"not": {"f": {"eq": wanted}}}), Event("e", data)) is not equal
    assert matches(rule(conditions={"f": {"in": [wanted]}}), Event("e", data)) is equal


@given(values)
def test_every_value_equals_itself(value: JSON) -> None:
    assert matches(rule(conditions={"f": {"eq": value}}), Event("e", {"f": value}))


@given(st.integers(), st.integers())
def test_numeric_strings_compare_as_their_numbers(a: int, b: int) -> None:
    for left, right in ((a, b), (str(a), b), (a, str(b)), (str(a), str(b))):
        found = {op for op in ("gt", "gte", "lt", "lte") if holds({"f": {op: right}}, {"f": left})}
        assert found == {op for op, is_so in (("gt", a > b), ("gte", a >= b), ("lt", a < b), ("lte", a <= b)) if is_so}


@given(st.dictionaries(st.sampled_from(["and", "or", "not", "a", "b.c"]), values, max_size=3), values)
def test_conditions_that_pass_the_check_never_fail(conditions: JSON, data: JSON) -> None:
    """What was saved must not stop events later."""
    try:
        check_conditions(conditions)
    except PayloadError:
        return
    assert matches(rule(conditions=conditions), Event("e", {"a": data, "b": data})) in (True, False)
