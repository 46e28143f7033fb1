"""Moodle's log store as a source, on real MariaDB and PostgreSQL: every row once into the ledger, whatever happens."""

from __future__ import annotations

import random
import threading
from typing import Any
from unittest import mock

import pytest

from hub.app.lifecycle import Hub
from hub.codec import loads
from hub.inbound.moodle_poll import MoodlePoller
from hub.sources.moodle_event import EVENT_KEYS
from hub.store.source_positions import reset, status
from tests.support.hubs import add_rule, add_service
from tests.support.moodle_readers import all_ids, drain, poller, read_ids, source_of
from tests.support.moodle_site import MoodleSite, log_row
from tests.support.waiting import eventually


@pytest.mark.parametrize("form", ["json", "php"])
def test_rows_become_the_events_that_moodle_triggered(hub: Hub, moodle: MoodleSite, form: Any) -> None:
    """The 17 keys of `get_data()` with their types, `other` decoded, and three keys of the log."""
    site_rows = [log_row(form=form) for _ in range(9)]
    moodle.insert(site_rows)
    drain(poller(hub, source_of(hub, moodle)))
    found = [loads(row["data"]) for row in hub.db.all("SELECT data FROM events ORDER BY id")]
    assert len(found) == 9
    for event, row in zip(found, site_rows, strict=True):
        assert set(event) == {*EVENT_KEYS, "log_origin", "log_ip", "log_realuserid"}
        assert {key: event[key] for key in EVENT_KEYS if key != "other"} == {
            key: row[key] for key in EVENT_KEYS if key != "other"
        }
        assert (event["log_origin"], event["log_ip"]) == ("web", "192.0.2.7")
    graded = next(event for event in found if event["eventname"].endswith("user_graded"))
    assert graded["other"] == {"itemid": 3, "overridden": False, "finalgrade": 87.5}
    assert {str(event["other"]) for event in found if event["eventname"].endswith("loggedin")} == {
        "{'username': 'zoë'}"
    }


def test_every_row_is_read_once_while_writers_commit_out_of_order(hub: Hub, moodle: MoodleSite) -> None:
    """Writers take ids, then commit in any order or roll back; the reader is killed between any two statements."""
    for seed in range(4):
        _commit_out_of_order(hub, moodle, random.Random(seed), seed)


def _commit_out_of_order(hub: Hub, moodle: MoodleSite, rnd: random.Random, seed: int) -> None:
    moodle.run("DELETE FROM mdl_logstore_standard_log")
    hub.db.run("DELETE FROM events")
    start = max([*all_ids(moodle), 0])
    source = source_of(hub, moodle, name=f"site{seed}", start=start, batch=rnd.choice([2, 7, 50]))
    reader = poller(hub, source)
    open_writers = []
    for step in range(25):
        if rnd.random() < 0.7:
            writer = moodle.transaction()
            moodle.insert([log_row() for _ in range(rnd.randint(1, 6))], writer)
            open_writers.append(writer)
        if open_writers and rnd.random() < 0.6:
            writer = open_writers.pop(rnd.randrange(len(open_writers)))
            writer.rollback() if rnd.random() < 0.2 else writer.commit()
            writer.close()
        if rnd.random() < 0.5:
            if rnd.random() < 0.3:
                with pytest.raises(_KilledError):
                    _die_in_the_transaction(hub, reader)
                reader = poller(hub, source, f"process{step}")
                hub.db.run("UPDATE source_positions SET lease_until = now()")
            reader.look()
    for writer in open_writers:
        writer.commit()
        writer.close()
    drain(reader)
    assert sorted(read_ids(hub)) == all_ids(moodle)


class _KilledError(Exception):
    """Stands for SIGKILL: nothing of the transaction is left."""


def _die_in_the_transaction(hub: Hub, reader: MoodlePoller) -> None:
    """Read, write events and position, and die before the commit."""
    write = hub.intake.write

    def killed(*args: Any) -> Any:
        write(*args)
        raise _KilledError

    with mock.patch.object(hub.intake, "write", killed):
        reader.look()
    raise _KilledError  # there was nothing to write


def test_two_pollers_without_a_lease_write_each_row_once(hub: Hub, moodle: MoodleSite) -> None:
    """The lease only spares work: where it fails, the version of the position admits one of them."""
    source = source_of(hub, moodle, batch=20)
    stop = threading.Event()
    errors: list[BaseException] = []

    def read(owner: str) -> None:
        reader = poller(hub, source, owner)
        try:
            while not stop.is_set():
                hub.db.run("UPDATE source_positions SET lease_until = NULL")
                reader.look()
        except BaseException as e:
            errors.append(e)

    threads = [threading.Thread(target=read, args=(f"p{n}",)) for n in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        moodle.insert([log_row() for _ in range(30)])
    try:
        eventually(lambda: len(read_ids(hub)) >= 600 or errors, "every row in the ledger")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert errors == []
    assert sorted(read_ids(hub)) == all_ids(moodle)


def test_a_second_process_waits_for_the_lease(hub: Hub, moodle_pg: MoodleSite) -> None:
    source = source_of(hub, moodle_pg)
    first, second = poller(hub, source, "a"), poller(hub, source, "b")
    assert first.look() == "more"  # where to begin
    assert second.look() == "elsewhere"
    first.close()
    moodle_pg.insert([log_row()])
    assert second.look() == "idle"
    assert first.look() == "elsewhere"
    assert len(read_ids(hub)) == 1


def test_a_gap_is_given_up_after_its_time_and_not_before(hub: Hub, moodle: MoodleSite) -> None:
    source = source_of(hub, moodle, gap_age=3600)
    moodle.insert([log_row() for _ in range(3)])
    late = moodle.transaction()
    [missing] = moodle.insert([log_row()], late)
    moodle.insert([log_row()])
    reader = poller(hub, source)
    drain(reader)
    assert missing not in read_ids(hub)
    assert hub.db.all("SELECT low, high FROM source_gaps") == [{"low": missing, "high": missing}]
    hub.db.run("UPDATE source_gaps SET seen = seen - 3599")
    reader = poller(hub, source)
    drain(reader)
    late.commit()
    late.close()
    hub.db.run("UPDATE source_positions SET version = version + 1")  # the poller forgets what it remembers
    drain(reader)
    assert missing in read_ids(hub)
    assert hub.db.all("SELECT * FROM source_gaps") == []


def test_old_gaps_of_a_backlog_are_not_remembered(hub: Hub, moodle_pg: MoodleSite) -> None:
    """A cluster leaves a gap after every row; a reader that is behind must not collect all of them."""
    moodle_pg.run("ALTER SEQUENCE mdl_logstore_standard_log_id_seq INCREMENT BY 3")
    source = source_of(hub, moodle_pg, batch=5, gap_age=600)
    moodle_pg.insert([log_row() for _ in range(10)])
    reader = poller(hub, source)
    reader.look()
    reader.look()
    assert 0 < len(hub.db.all("SELECT * FROM source_gaps")) <= 5
    hub.db.run("UPDATE source_positions SET marks = jsonb_build_array(jsonb_build_array(1, newest_id))")
    before = hub.db.all("SELECT * FROM source_gaps ORDER BY low")
    drain(reader)
    assert [gap["low"] for gap in hub.db.all("SELECT * FROM source_gaps ORDER BY low")] == [g["low"] for g in before]
    assert sorted(read_ids(hub)) == all_ids(moodle_pg)


@pytest.mark.parametrize("event", ["restored", "truncated", "deleted"])
def test_a_table_whose_ids_jump_back_is_read_on(hub: Hub, moodle_pg: MoodleSite, event: str) -> None:
    """What is new is read, what was read is not read again."""
    moodle = moodle_pg
    source = source_of(hub, moodle)
    old = moodle.insert([log_row(timecreated=1000 + n) for n in range(10)])
    reader = poller(hub, source)
    drain(reader)
    if event == "restored":  # from a backup that lacks the last four; four others take their ids
        moodle.run("DELETE FROM mdl_logstore_standard_log WHERE id > %s", [old[5]])
        new = moodle.insert([log_row(id=id_, timecreated=1020 + id_) for id_ in old[6:]])
    elif event == "truncated":
        moodle.run("TRUNCATE TABLE mdl_logstore_standard_log")
        new = moodle.insert([log_row(id=id_, timecreated=1020 + id_) for id_ in (1, 2)])
    else:  # a person's rows are deleted on request
        moodle.run("DELETE FROM mdl_logstore_standard_log WHERE id > %s", [old[7]])
        new = []
    before = len(read_ids(hub))
    drain(reader)
    assert sorted(read_ids(hub)[before:]) == sorted(new)
    [row] = status(hub.db)
    assert "reading goes on at id" in row["last_error"]
    new += moodle.insert([log_row(id=max([*all_ids(moodle), 20]) + 1, timecreated=1100)])
    drain(reader)
    assert sorted(read_ids(hub)[before:]) == sorted(new)


def test_reading_begins_where_the_definition_says(hub: Hub, moodle: MoodleSite) -> None:
    moodle.insert([log_row(id=id_, timecreated=id_ * 1000) for id_ in range(1, 6)])
    starts: list[str | int] = ["now", 4, "1970-01-01T00:50:00Z", 0]
    readers = [poller(hub, source_of(hub, moodle, name=f"s{start}".replace(":", ""), start=start)) for start in starts]
    found = []
    for reader in readers:
        drain(reader)
    moodle.insert([log_row(id=6, timecreated=6000)])
    for reader in readers:
        drain(reader)
    for source in hub.registry.sources.sources():
        uids = hub.db.all("SELECT uid FROM events WHERE uid LIKE %s ORDER BY id", [f"source{source.id}:%"])
        found.append([int(row["uid"].split(":")[1]) for row in uids])
    assert sorted(found, key=len) == [[6], [4, 5, 6], [3, 4, 5, 6], [1, 2, 3, 4, 5, 6]]


def test_a_row_in_flight_at_the_start_is_read(hub: Hub, moodle: MoodleSite) -> None:
    """`now` means what is committed from now on, although its id is lower than the highest one."""
    writer = moodle.transaction()
    [missing] = moodle.insert([log_row()], writer)
    moodle.insert([log_row()])
    reader = poller(hub, source_of(hub, moodle, start="now"))
    drain(reader)
    writer.commit()
    writer.close()
    drain(reader)
    assert read_ids(hub) == [missing]


def test_a_reset_begins_again_and_repeats_nothing(hub: Hub, moodle_pg: MoodleSite) -> None:
    source = source_of(hub, moodle_pg)
    ids = moodle_pg.insert([log_row() for _ in range(5)])
    reader = poller(hub, source)
    drain(reader)
    with hub.db.transaction() as conn:
        reset(conn, source.id, "0")
    drain(reader)
    assert read_ids(hub) == ids


def test_a_row_whose_other_cannot_be_read_is_an_event_all_the_same(hub: Hub, moodle: MoodleSite) -> None:
    big, long = "x" * 1_100_000, '"' + "y" * 200_000 + '"'
    for other in ('O:8:"stdClass":0:{}', "not json", big, long):
        moodle.insert([log_row("\\core\\event\\user_created", other=other)])
    drain(poller(hub, source_of(hub, moodle)))
    found = [loads(row["data"]) for row in hub.db.all("SELECT data FROM events ORDER BY id")]
    assert [event["other"] for event in found[:3]] == [None] * 3
    assert all("log_other_error" in event for event in found[:3])
    assert found[3]["other"] == "y" * 200_000 and "log_other_error" not in found[3]
    [row] = status(hub.db)
    assert (row["undecoded"], row["refused"], row["events"]) == (3, 0, 4)


def test_only_wanted_rows_are_written(hub: Hub, moodle_pg: MoodleSite) -> None:
    """Most rows of a Moodle site are page views that no rule wants: they leave a sample, no row per event."""
    add_service(hub, "http://127.0.0.1:9")
    add_rule(hub, event="\\core\\event\\user_*", conditions={"userid": 2})
    source = source_of(hub, moodle_pg, events=["\\core\\event\\*"])
    moodle_pg.insert(
        [log_row("\\core\\event\\user_created"), log_row("\\core\\event\\user_created", userid=3)]
        + [log_row("\\core\\event\\course_viewed") for _ in range(5)]
        + [log_row("\\mod_quiz\\event\\attempt_submitted")]
    )
    drain(poller(hub, source))
    assert [row["matched"] for row in hub.db.all("SELECT matched FROM events ORDER BY id")] == [1, 0]
    names = {row["name"] for row in hub.views.events.names()}
    assert names == {"\\core\\event\\user_created", "\\core\\event\\course_viewed"}
    assert hub.db.one("SELECT count(*) AS n FROM event_keys") == {"n": 2}
    [row] = status(hub.db)
    assert (row["read_rows"], row["events"]) == (8, 2)


def test_reading_pauses_at_a_backlog(hub: Hub, moodle_pg: MoodleSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub.inbound.moodle_poll._BACKLOG_CHECK", 0.0)
    reader = poller(hub, source_of(hub, moodle_pg, backlog=3, batch=3))
    moodle_pg.insert([log_row() for _ in range(5)])
    assert [reader.look() for _ in range(4)] == ["more", "more", "waiting", "waiting"]
    assert len(read_ids(hub)) == 3
    assert status(hub.db)[0]["state"] == "waiting"
    hub.db.run("DELETE FROM tasks")
    drain(reader)
    assert len(read_ids(hub)) == 5


def test_lag_is_the_time_since_everything_was_read(hub: Hub, moodle_pg: MoodleSite) -> None:
    reader = poller(hub, source_of(hub, moodle_pg, batch=2))
    moodle_pg.insert([log_row() for _ in range(5)])
    hub.db.run("UPDATE sources SET created_at = now() - interval '1 hour'")
    reader.look()
    reader.look()
    [row] = status(hub.db)
    assert (row["lag_rows"], row["state"]) == (3, "reading")
    assert row["lag_seconds"] >= 3600
    drain(reader)
    [row] = status(hub.db)
    assert (row["lag_rows"], row["state"]) == (0, "up_to_date")
    assert row["lag_seconds"] < 3600
