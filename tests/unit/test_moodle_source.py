"""The core of the source `moodle_log`: rows become events, and every row is read exactly once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.errors import PayloadError
from hub.sources.log_position import Gap, LogPosition
from hub.sources.moodle_event import COLUMNS, EVENT_KEYS, to_event

MAX_AGE = 10.0
ROW = dict.fromkeys(COLUMNS) | {
    "id": 7,
    "eventname": "\\core\\event\\course_completed",
    "userid": 2,
    "relateduserid": 5,
    "timecreated": 1708258999,
    "origin": "web",
    "ip": "192.0.2.1",
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("N;", None),
        ("null", None),
        (None, None),
        ('a:1:{s:13:"relateduserid";i:5;}', {"relateduserid": 5}),
        ('{"relateduserid":5}', {"relateduserid": 5}),
        ("[]", []),
        ("a:0:{}", []),
    ],
)
def test_a_row_becomes_the_event_that_get_data_gives(text: str | None, value: object) -> None:
    event = to_event(ROW | {"other": text}, 3)
    assert isinstance(event.data, dict)
    assert set(EVENT_KEYS) <= set(event.data) and len(EVENT_KEYS) == 17
    assert event.data["other"] == value
    assert set(event.data) - set(EVENT_KEYS) == {"log_origin", "log_ip", "log_realuserid"}
    assert event.data["log_ip"] == "192.0.2.1"
    assert event.name == "\\core\\event\\course_completed"


def test_the_event_id_differs_by_source_row_and_time() -> None:
    rows = [(ROW, 3), (ROW, 4), (ROW | {"id": 8}, 3), (ROW | {"timecreated": 9}, 3)]
    assert len({to_event(row, source).key for row, source in rows}) == 4
    assert to_event(ROW, 3) == to_event(dict(ROW), 3)


@pytest.mark.parametrize("text", ['O:8:"stdClass":0:{}', "not json", '"' + "x" * 1_048_576 + '"'])
def test_other_that_is_no_data_is_refused(text: str) -> None:
    with pytest.raises(PayloadError):
        to_event(ROW | {"other": text}, 3)


@given(st.data())
def test_every_committed_row_is_read_exactly_once(data: st.DataObject) -> None:
    """Writers take ids, then commit out of order or roll back; the reader is killed at any moment."""
    position, read = LogPosition(), list[int]()
    visible: set[int] = set()
    pending: dict[int, float] = {}
    next_id, now = 1, 0.0
    for _ in range(data.draw(st.integers(1, 40))):
        now += data.draw(st.floats(0, 3))
        for id_, since in sorted(pending.items()):
            if now - since >= MAX_AGE - 3 or data.draw(st.booleans()):  # before a gap over it expires
                del pending[id_]
                if data.draw(st.booleans()):
                    visible.add(id_)
        for _ in range(data.draw(st.integers(0, 4))):
            pending[next_id] = now
            next_id += data.draw(st.sampled_from([1, 1, 1, 3]))
        position, read = _step(position, read, visible, now, data.draw(st.integers(1, 4)), data.draw(st.booleans()))
    visible |= set(pending)
    while position.last < max(visible, default=0) or any(g.low <= v <= g.high for g in position.gaps for v in visible):
        position, read = _step(position, read, visible, now, 3, False)
    assert sorted(read) == sorted(visible)


def _step(
    before: LogPosition, read: list[int], visible: set[int], now: float, limit: int, killed: bool
) -> tuple[LogPosition, list[int]]:
    """One transaction: rows in gaps, then rows above the position; a killed reader leaves nothing behind."""
    filled = sorted(v for v in visible if any(g.low <= v <= g.high for g in before.gaps))[:limit]
    position = before.look_again(filled, now, MAX_AGE, filled[-1] if len(filled) == limit else None)
    above = sorted(v for v in visible if v > position.last)[:limit]
    position = position.advance(above, now)
    return (before, read) if killed else (position, [*read, *filled, *above])


def test_a_gap_expires_only_by_a_look_that_began_after_its_time() -> None:
    position = LogPosition().advance([3], 100.0)
    assert position.look_again([], 109.9, MAX_AGE).gaps == (Gap(1, 2, 100.0),)
    assert position.look_again([2], 105.0, MAX_AGE).gaps == (Gap(1, 1, 100.0),)
    assert position.look_again([], 110.0, MAX_AGE, upto=1).gaps == (Gap(2, 2, 100.0),)
    assert position.look_again([], 110.0, MAX_AGE).gaps == ()
