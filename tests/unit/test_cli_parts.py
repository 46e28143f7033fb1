"""Words of the command line become values; values become cells."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import typer

from hub.cli.common import parse_time
from hub.cli.fields import collect, keep_others
from hub.cli.output import cell, fit, plain


@pytest.mark.parametrize(("text", "age"), [("30s", 30), ("1.5h", 5400), ("3d", 259200), (" 2w ", 1209600)])
def test_an_age_is_a_time_before_now(text: str, age: float) -> None:
    at = parse_time(text)
    assert at and abs((datetime.now(UTC) - at).total_seconds() - age) < 60


def test_an_iso_time_keeps_its_zone() -> None:
    assert parse_time("2026-01-31T12:00+02:00") == datetime(2026, 1, 31, 10, tzinfo=UTC)
    assert parse_time("2026-01-31T12:00Z") == datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert parse_time(None) is None


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "-3d", "9" * 400 + "d", "99999999w", "3 years"])
def test_a_time_that_is_none_is_a_usage_error(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        parse_time(text)


def test_cells_are_one_line_short_and_harmless() -> None:
    """An error text comes from a service: it must not steer the reader's terminal."""
    assert cell("a\nb\t c") == "a b c"
    assert cell("\x1b[31mred") == "\\x1b[31mred"
    assert len(cell("x" * 500)) == 60
    assert cell("a\nb", width=None) == "a\nb"
    assert (cell(None), cell(True), cell(1.26)) == ("-", "yes", "1.3")


def test_times_are_iso_8601_utc() -> None:
    from datetime import timezone

    at = datetime(2026, 1, 31, 12, tzinfo=timezone(timedelta(hours=2)))
    assert plain({"at": [at]}) == {"at": ["2026-01-31T10:00:00.000Z"]}


def test_set_takes_json_where_it_is_json_and_text_where_a_text_belongs() -> None:
    given = collect(["rate_limit=5", 'mask=["a.b"]', "auth.client_id=12", "headers.X-A=true", "signing_secret=9"])
    assert given == {
        "rate_limit": 5,
        "mask": ["a.b"],
        "auth": {"client_id": "12"},
        "headers": {"X-A": "true"},
        "signing_secret": "9",
    }
    for bad in ("x", "=1"):
        with pytest.raises(typer.BadParameter):
            collect([bad])


def test_a_whole_set_of_headers_replaces_one_header_joins() -> None:
    current = {"headers": {"A": "1"}}
    one = {"headers": {"B": "2"}}
    keep_others(["headers.B=2"], one, current)
    assert one == {"headers": {"A": "1", "B": "2"}}
    whole = {"headers": {"B": "2"}}
    keep_others(['headers={"B": "2"}'], whole, current)
    assert whole == {"headers": {"B": "2"}}


LOG = {
    "id": 5,
    "created_at": 19,
    "direction": 9,
    "service": 8,
    "event": 24,
    "endpoint": 9,
    "attempt": 7,
    "tries": 5,
    "status": 6,
    "latency_ms": 10,
    "success": 7,
    "error": 60,
}


@pytest.mark.parametrize("room", [40, 80, 100, 132, 200])
def test_a_narrow_terminal_gets_fewer_columns_and_no_cut_ones(room: int) -> None:
    widths = fit(LOG, room)
    assert sum(widths.values()) + len(widths) - 1 <= room
    assert all(width == LOG[name] for name, width in widths.items() if name != "error")
    assert list(widths) == [name for name in LOG if name in widths], "the order stays"


def test_a_wide_terminal_gets_everything_and_80_columns_the_error() -> None:
    assert fit(LOG, 200) == LOG
    assert {"id", "service", "event", "status", "error"} <= set(fit(LOG, 80))
    assert fit({"id": 500}, 80) == {"id": 80}
