"""Cron expressions: what is refused and how, and when things run as clocks change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.errors import ConfigError
from hub.scheduling.schedule import next_runs, parse_cron

BERLIN, NEW_YORK, LORD_HOWE = "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("expression", "field"),
    [
        ("61 * * * *", "minute"),
        ("*/0 * * * *", "minute"),
        ("x * * * *", "minute"),
        ("5-1 * * * *", "minute"),
        ("1,,2 * * * *", "minute"),
        ("-1 * * * *", "minute"),
        ("9" * 5000 + " * * * *", "minute"),
        ("٣ * * * *", "minute"),
        ("* 24 * * *", "hour"),
        ("* 1.5 * * *", "hour"),
        ("* * 0 * *", "day of month"),
        ("* * 32 * *", "day of month"),
        ("* * R * *", "day of month"),
        ("0 0 31 2 *", "day of month"),
        ("0 0 31 4,6,9,11 *", "day of month"),
        ("* * * 13 *", "month"),
        ("* * * foo *", "month"),
        ("* * * R *", "month"),
        ("* * * * 8", "day of week"),
        ("* * * * mon#6", "day of week"),
        ("* * * * 5#2", "day of week"),
        ("* * * * 5L", "day of week"),
        ("* * L * *", "day of month"),
        ("* * LW * *", "day of month"),
        ("", "cron"),
        ("* * * *", "cron"),
        ("* * * * * *", "cron"),
        ("0 * * * * * *", "cron"),
        ("@hourly", "cron"),
    ],
)
def test_a_bad_expression_is_refused_with_the_field_named(expression: str, field: str) -> None:
    """A person must see which of five cryptic fields to mend."""
    with pytest.raises(ConfigError) as caught:
        parse_cron(expression)
    assert caught.value.field == field
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "expression",
    [
        "* * * * *",
        "*/5 * * * *",
        "0 0 1 1 *",
        "0-10/2,30 8-18 * * 1-5",
        "0 0 * * 0",
        "0 0 * * 7",
        "0 0 * jan-mar sun",
        "0 0 29 2 *",
        "59 23 31 12 *",
        "5/15 * * * *",
    ],
)
def test_moodles_fields_are_accepted_as_they_are(expression: str) -> None:
    """Expressions are brought over from Moodle's scheduled tasks page."""
    assert parse_cron(expression) == expression
    assert next_runs(expression, "UTC", utc("2026-01-01"), 1)


def test_sunday_fires_as_0_and_7_and_by_name() -> None:
    """The library that ticks us takes 0 for never; ours must not."""
    for day in ("0", "7", "sun"):
        assert next_runs(f"0 6 * * {day}", "UTC", utc("2026-11-24"), 1) == [utc("2026-11-29T06:00")]


def test_moodles_random_fields_become_one_fixed_value_per_deployment() -> None:
    """`R` spreads hubs over the hour; applying a file twice must change nothing."""
    first = parse_cron("R R * * R", seed="a")
    assert first == parse_cron("R R * * R", seed="a") == parse_cron(first, seed="b")
    assert "R" not in first
    assert len({parse_cron("R * * * *", seed=str(i)) for i in range(50)}) > 10


def test_spaces_and_case_do_not_matter() -> None:
    """People paste with tabs."""
    assert parse_cron("  0\t0 *  * SUN ") == "0 0 * * SUN"


def test_when_clocks_go_forward_a_time_that_does_not_exist_runs_once_after_the_gap() -> None:
    """Berlin, 29 March 2026: 02:00-03:00 does not exist. A nightly job must still run that night, once."""
    runs = next_runs("30 2 * * *", BERLIN, utc("2026-03-28T12:00"), 3)
    assert runs == [utc("2026-03-29T01:00"), utc("2026-03-30T00:30"), utc("2026-03-31T00:30")]


def test_two_times_in_the_gap_become_one_run() -> None:
    """Otherwise the next run would lie in the past and the task run twice."""
    runs = next_runs("0,30 2 * * *", BERLIN, utc("2026-03-28T12:00"), 3)
    assert runs == [utc("2026-03-29T01:00"), utc("2026-03-30T00:00"), utc("2026-03-30T00:30")]


def test_when_clocks_go_back_a_fixed_time_that_comes_twice_runs_once() -> None:
    """New York, 1 November 2026: 01:30 comes twice. A nightly job runs at the first."""
    runs = next_runs("30 1 * * *", NEW_YORK, utc("2026-10-31T12:00"), 2)
    assert runs == [utc("2026-11-01T05:30"), utc("2026-11-02T06:30")]


def test_asked_within_the_second_pass_the_next_run_is_tomorrow() -> None:
    """The plan made after the repeated hour must not go back into the first."""
    assert next_runs("30 1 * * *", NEW_YORK, utc("2026-11-01T06:10"), 1) == [utc("2026-11-02T06:30")]


def test_wildcards_run_in_real_time_through_both_changes() -> None:
    """A task of every ten minutes neither pauses for an hour nor doubles."""
    for start in ("2026-03-29T00:00", "2026-10-25T00:00"):
        runs = next_runs("*/10 * * * *", BERLIN, utc(start), 18)
        assert runs == [utc(start) + timedelta(minutes=10 * i) for i in range(1, 19)]


def test_a_zone_whose_clock_moves_by_half_an_hour() -> None:
    """Lord Howe, 4 October 2026: 02:00 becomes 02:30."""
    runs = next_runs("15 2 * * *", LORD_HOWE, utc("2026-10-03T12:00"), 2)
    assert runs == [utc("2026-10-03T15:30"), utc("2026-10-04T15:15")]


@given(
    st.sampled_from(["*/7 * * * *", "0,30 1-3 * * *", "15 2 * * *", "0 */2 * * *", "59 23 * * 0", "5 1 1,15 * mon"]),
    st.sampled_from([BERLIN, NEW_YORK, LORD_HOWE, "UTC", "Asia/Kathmandu", "Africa/Casablanca"]),
    st.datetimes(datetime(2025, 1, 1), datetime(2028, 1, 1)),
)
def test_runs_lie_after_the_given_time_and_in_order(expression: str, zone: str, after: datetime) -> None:
    """A next run in the past would be launched again at every tick."""
    after = after.replace(tzinfo=UTC)
    runs = next_runs(expression, zone, after, 6)
    assert len(runs) == 6
    assert all(a < b for a, b in zip([after, *runs], runs, strict=False))
    assert all(at.second == at.microsecond == 0 for at in runs)


@pytest.mark.parametrize(
    ("expression", "days"),
    [
        ("0 0 */10 * 1", [1, 2, 9, 11, 16, 21, 23, 30, 31]),  # either: days 1, 11, 21, 31, and Mondays
        ("0 0 1 * */3", [1, 4, 7, 8, 11, 14, 15, 18]),  # day 1, and Sundays, Wednesdays, Saturdays
        ("0 0 1,15 * 1", [1, 2, 9, 15, 16, 23, 30]),
        ("0 0 * * 1", [2, 9, 16, 23, 30]),
        ("0 0 */10 * *", [1, 11, 21, 31]),
        ("0 0 1-31 * 1", list(range(1, 32))),
        ("0 0 *,5 * 1", list(range(1, 32))),
        ("0 0 13 * fri", [6, 13, 20, 27]),
        ("0 0 * * 0", [1, 8, 15, 22, 29]),
        ("0 0 * * 7", [1, 8, 15, 22, 29]),
        ("0 0 * * */7", [1, 8, 15, 22, 29]),
    ],
)
def test_day_of_month_and_day_of_week_are_alternatives_unless_one_is_a_star(expression: str, days: list[int]) -> None:
    """As in Moodle and robfig/cron. March 2026 begins on a Sunday."""
    found = next_runs(parse_cron(expression), "UTC", utc("2026-02-28T23:59"), len(days))
    assert [at.day for at in found] == days and {at.month for at in found} == {3}
