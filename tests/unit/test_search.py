"""The search language, search keys, and why a rule matches: pure functions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.domain.rule_reasons import explain
from hub.domain.rules import matches
from hub.domain.search_keys import SearchKeys, key_of, stored
from hub.domain.search_query import Query, parse_query
from hub.errors import PayloadError
from hub.models import Event, Rule

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", Query()),
        ("relateduserid:42", Query(values=(("relateduserid", "42"),))),
        ('other.email:"a@b.c"  courseid:7', Query(values=(("other.email", "a@b.c"), ("courseid", "7")))),
        ('title:"say \\"hi\\""', Query(values=(("title", 'say "hi"'),))),
        ("url:https://x/y:8", Query(values=(("url", "https://x/y:8"),))),
        ("data.status:open status:dead", Query(values=(("status", "open"),), status="dead")),
        ("status:503 service:crm", Query(http_status=503, service="crm")),
        ("\\core\\event\\user_created", Query(event="\\core\\event\\user_created")),
        ("user_* since:7d", Query(event="user_*", since=NOW - 7 * DAY)),
        ("until:2026-02-01T10:00+02:00", Query(until=datetime(2026, 2, 1, 8, tzinfo=UTC))),
        ('error:"timed out"', Query(error="timed out")),
        ("order-7", Query(id="order-7")),
        ("task:7", Query(id="task:7")),
        ('id:"task 7"', Query(id="task 7")),
    ],
)
def test_a_search_is_read(text: str, wanted: Query) -> None:
    assert parse_query(text, NOW) == wanted


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("userid:", "a term is a word"),
        ('userid:""', "userid: give a value"),
        ('"half', "a term is a word"),
        ("status:gone", "status: 'gone' is neither an HTTP status nor one of pending"),
        ("since:yesterday", "since: 'yesterday' is no time"),
        ("since:1d until:2d", "since: must lie before until"),
        ("a b", "id: given twice"),
        ("a..b:1", "not a dotted path"),
        (" ".join(f"a{n}:1" for n in range(11)), "at most 10 values"),
        ("x" * 2001, "2000 characters"),
        ("a\0b", "NUL"),
    ],
)
def test_a_search_that_cannot_be_read_says_why(text: str, why: str) -> None:
    with pytest.raises(PayloadError, match=why):
        parse_query(text, NOW)


@given(st.text(max_size=200))
def test_any_text_is_a_search_or_is_refused(text: str) -> None:
    try:
        parse_query(text, NOW)
    except PayloadError:
        pass


def test_ids_have_one_key_as_numbers_and_as_texts() -> None:
    """Moodle's ids may be either."""
    keys = SearchKeys(("userid", "other.username", "missing", "nothing", "list"))
    data = {"userid": 5, "other": '{"username": "ann"}', "nothing": None, "list": [1]}
    assert keys.of(data) == [key_of("userid", "5"), key_of("other.username", "ann")]
    assert keys.of(data) == keys.of(data | {"userid": "5"})
    a = SearchKeys(("a",))
    assert (
        a.of({"a": "x" * 256}) == [] == a.of([1])
        and len(a.of({"a": True})) == 1
        and a.of({"a": -5}) == [key_of("a", "-5")]
    )
    assert a.of({"a": "\ud800é"}) == [key_of("a", "\ud800é")]
    assert stored(key_of("userid", "5"), 3) >> 32 == 3 and 0 <= key_of("userid", "5") < 2**32


DATA = {"courseid": 12, "crud": "r", "other": {"username": "test1"}, "n": None}


@pytest.mark.parametrize(
    ("conditions", "why"),
    [
        (None, "the name fits"),
        ({"courseid": "12"}, "the name fits and all conditions hold"),
        ({"courseid": 10}, "courseid is 12, and must be 10"),
        ({"crud": {"in": ["c", "u"]}}, 'crud is "r", and must be one of ["c","u"]'),
        ({"courseid": {"gt": 5, "lt": 10}}, "courseid is 12, and must be less than 10"),
        ({"gone": {"exists": True}}, "gone is missing, and must be there"),
        ({"n": {"exists": False}}, "n is null, and must not be there"),
        ({"not": {"other.username": {"prefix": "test"}}}, 'this must not hold: {"other.username":{"prefix":"test"}}'),
        (
            {"or": [{"courseid": 1}, {"crud": "c"}]},
            'none of these holds: courseid is 12, and must be 1 / crud is "r", and must be "c"',
        ),
        ({"and": [{"courseid": 12}, {"crud": "c"}]}, 'crud is "r", and must be "c"'),
        ({"courseid": 1, "crud": "c"}, 'courseid is 12, and must be 1; crud is "r", and must be "c"'),
        ({"courseid": {"like": 1}}, "its conditions cannot be read: 'like' is not an operator"),
    ],
)
def test_a_reason_names_the_condition_that_failed(conditions: Any, why: str) -> None:
    rule = Rule(1, "r", "e", 1, "s", conditions=conditions)
    reason = explain(rule, Event("e", DATA))
    assert reason.text.startswith(why) and reason.matched == why.startswith("the name fits")


def test_a_reason_shows_no_masked_value() -> None:
    rule = Rule(1, "r", "e", 1, "s", conditions={"other.username": "admin"})
    reason = explain(rule, Event("e", DATA), shown={"other": {"username": "***"}})
    assert reason.text == 'other.username is "***", and must be "admin"'


_VALUES = st.sampled_from([0, 1, "1", None, "a", True])
_CONDITIONS = st.recursive(
    st.dictionaries(st.sampled_from("ab"), _VALUES | st.dictionaries(st.sampled_from(["eq", "ne", "gt"]), _VALUES)),
    lambda inner: (
        st.dictionaries(st.sampled_from(["and", "or"]), st.lists(inner, min_size=1, max_size=3), max_size=1)
        | st.dictionaries(st.just("not"), inner, max_size=1)
    ),
    max_leaves=6,
)


@given(_CONDITIONS, st.dictionaries(st.sampled_from("ab"), _VALUES))
def test_a_reason_agrees_with_intake_and_is_never_empty(conditions: Any, data: Any) -> None:
    rule = Rule(1, "r", "e", 1, "s", conditions=conditions)
    reason = explain(rule, Event("e", data))
    assert reason.matched == matches(rule, Event("e", data)) and reason.text
