"""Which events a rule meets, and what request it makes: the names and the methods."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.domain.rules import matches
from hub.errors import PayloadError
from hub.models import Event
from tests.unit.samples import LOGIN, render, rule

CREATED = "\\core\\event\\user_created"


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        (CREATED, CREATED, True),
        (CREATED, CREATED[1:], True),
        (CREATED[1:], CREATED, True),
        (CREATED, "\\core\\event\\user_createdx", False),
        (CREATED, "\\core\\event\\User_created", False),
        ("*", "anything.at all", True),
        ("\\*", CREATED, True),
        ("\\core\\event\\user_*", CREATED, True),
        ("core\\event\\user_*", CREATED, True),
        ("\\core\\event\\user_*", "\\core\\event\\course_viewed", False),
        ("*_created", CREATED, True),
        ("\\core\\*\\user_*ed", CREATED, True),
        ("*event*user*", CREATED, True),
        ("*user*event*", CREATED, False),
        ("ab*ba", "aba", False),
        ("ab*ba", "abba", True),
        ("a**b", "ab", True),
        ("order.[a]?", "order.[a]?", True),
        ("order.?", "order.1", False),
        ("order.*", "order.a\nb", True),
    ],
)
def test_event_names_match_exactly_or_by_star(pattern: str, name: str, fits: bool) -> None:
    """Only `*` is special, and the leading backslash of Moodle's names may be missing on either side."""
    assert matches(rule(event=pattern), Event(name, {})) is fits


@given(st.lists(st.text("ab\\", max_size=4), min_size=1, max_size=5), st.text("ab\\", max_size=3))
def test_a_name_made_from_its_pattern_matches(pieces: list[str], filler: str) -> None:
    assert matches(rule(event="\\" + "*".join(pieces)), Event("\\" + filler.join(pieces), {}))


def test_many_stars_cost_no_exponential_time() -> None:
    """As a regular expression this would not end, and one rule would stall every event of the hub."""
    assert not matches(rule(event="*a" * 120 + "*b"), Event("a" * 255, {}))


def test_a_disabled_rule_still_matches() -> None:
    """Its tasks are held, not lost (in MIH a disabled rule loses the event)."""
    assert matches(rule(enabled=False, service_enabled=False), Event(CREATED, {}))


def test_conditions_are_asked_only_when_the_name_fits() -> None:
    wanted = rule(event="a", conditions={"courseid": 10})
    assert matches(wanted, Event("a", {"courseid": "10"}))
    assert not matches(wanted, Event("a", {"courseid": 11}))
    assert not matches(wanted, Event("b", {"courseid": 10}))


def test_malformed_stored_conditions_are_loud() -> None:
    """A rule that silently matched nothing would lose every event."""
    with pytest.raises(PayloadError, match="'like' is not an operator"):
        matches(rule(conditions={"courseid": {"like": 1}}), Event("a", {"courseid": 1}))


@pytest.mark.parametrize("data", [None, 5, "text", [1], {"other": None}])
def test_conditions_on_any_kind_of_data_do_not_fail(data: object) -> None:
    assert not matches(rule(conditions={"other.username": "x"}), Event("a", data))


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_a_method_with_a_body_sends_the_event_by_default(method: str) -> None:
    body, endpoint = render(method=method, endpoint="/users")
    assert body is not None
    assert json.loads(body) == LOGIN
    assert endpoint == "/users"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_get_and_head_send_no_body(method: str) -> None:
    assert render(method=method, payload='{"id": {{userid}}}', endpoint="/u/{{userid}}") == (None, "/u/5")
