"""Retention on a real database: the old goes, what is needed stays, nothing is scanned."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from hub.scheduling.housekeeping import HousekeepingTask
from hub.store.clock import Clock
from hub.store.database import Database
from hub.store.housekeeping import BATCH, Housekeeping
from hub.store.run_log import RunLog
from hub.store.schedules import HOUSEKEEPING, Schedules
from hub.store.views import Views

DAY = 86400.0


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    database = Database(database_url, size=4)
    database.open()
    yield database
    database.close()


def keeper(db: Database, retention: float = 28 * DAY) -> HousekeepingTask:
    return HousekeepingTask(
        Housekeeping(db), RunLog(db), Schedules(db, claimed_by="t"), retention=retention, now=Clock(db).read
    )


def count(db: Database, table: str) -> int:
    with db.autocommit() as conn:
        row = conn.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
    assert row is not None
    return int(row[0])


def fill(db: Database, old: int, young: int) -> None:
    """Deliveries and events, `old` ones of 40 days and `young` ones of a day."""
    for n, age in ((old, "40 days"), (young, "1 day")):
        db.run(
            "INSERT INTO deliveries (direction, service, success, outcome, created_at)"
            " SELECT 'outbound', 's', true, 'success', now() - %s::interval FROM generate_series(1, %s)",
            [age, n],
        )
        db.run(
            "INSERT INTO events (uid, name, data, created_at)"
            " SELECT i::text, 'e', '{}', now() - %s::interval FROM generate_series(1, %s) i",
            [age, n],
        )


def test_the_old_goes_and_the_young_stays(db: Database) -> None:
    """Over several batches, whole and broken ones."""
    fill(db, 2 * BATCH + 7, 5)
    gone = keeper(db).run()
    assert gone is not None
    assert (gone["deliveries"], gone["events"]) == (2 * BATCH + 7, 2 * BATCH + 7)
    assert (count(db, "deliveries"), count(db, "events")) == (5, 5)
    assert keeper(db).run() == {}
    run = Views(db).runs.scheduled(name=HOUSEKEEPING)[-1]
    assert run["result"] == "ok" and "deliveries" in (run["summary"] or "")
    assert Schedules(db, claimed_by="t").get(HOUSEKEEPING).last_result == "ok"


def test_an_event_that_a_task_needs_stays_whatever_its_age(db: Database) -> None:
    """A held task of a disabled rule may be older than the log; without its event it could not run."""
    fill(db, 10, 10)
    db.run(
        "INSERT INTO tasks (event_id, rule_id, service_id, state, created_at, expires_at)"
        " SELECT id, 1, 1, 'pending', created_at, now() FROM events WHERE id IN (3, 7, 15)"
    )
    keeper(db).run()
    assert {row["id"] for row in db.all("SELECT id FROM events")} == {3, 7, *range(11, 21)}


def test_a_task_made_of_an_old_event_while_it_is_purged_keeps_it(db: Database, database_url: str) -> None:
    """A resend locks its event; the purge passes it by, or the resend is told that the event is gone."""
    fill(db, 5, 0)
    with psycopg.connect(database_url) as resend:
        resend.execute("SELECT id FROM events WHERE id = 3 FOR SHARE")
        keeper(db).run()
        assert {row["id"] for row in db.all("SELECT id FROM events")} == {3}


def test_young_events_among_old_ones_hide_none(db: Database) -> None:
    """Transactions commit out of order; the purge must not stop at a young row."""
    fill(db, 3 * BATCH, 1)
    db.run("UPDATE events SET created_at = now() WHERE id BETWEEN 500 AND 1700")
    gone = keeper(db).run()
    assert gone is not None and gone["events"] == 3 * BATCH - 1201
    assert count(db, "events") == 1202


def test_what_has_expired_goes(db: Database) -> None:
    """Dedupe keys, sessions, links, claimed minutes, signs of life of processes that are gone."""
    db.run(
        "INSERT INTO event_keys SELECT sha256(i::text::bytea), 'u', now() + (i - 2500.5) * interval '1 hour'"
        " FROM generate_series(1, 2600) i"
    )
    db.run("INSERT INTO ticks SELECT now() - i * interval '1 day', 'x' FROM generate_series(1, 10) i")
    db.run("INSERT INTO heartbeats VALUES ('web', 'a', now() - interval '2 days'), ('web', 'b', now())")
    db.run("INSERT INTO workers VALUES ('dead', 'h', 1, now() - interval '1 day'), ('live', 'h', 2, now())")
    db.run("INSERT INTO users (name, role) VALUES ('a', 'view')")
    db.run("INSERT INTO sessions SELECT '\\x01', id, 'c', now() - interval '1 s' FROM users")
    db.run("INSERT INTO login_links VALUES ('\\x01', now() - interval '1 s'), ('\\x02', now() + interval '1 h')")
    db.run("INSERT INTO event_names VALUES ('old', now() - interval '90 days'), ('new', now())")
    gone = keeper(db).run()
    assert gone == {
        "event_keys": 2500,
        "sessions": 1,
        "login_links": 1,
        "ticks": 4,
        "event_names": 1,
        "heartbeats": 1,
        "workers": 1,
    }
    assert count(db, "event_keys") == 100


def test_a_dead_worker_that_still_holds_a_task_stays_until_it_was_taken(db: Database) -> None:
    """The relay needs its row to recover the task."""
    db.run("INSERT INTO workers VALUES ('dead', 'h', 1, now() - interval '1 day')")
    db.run(
        "INSERT INTO tasks (event_id, rule_id, service_id, state, worker, expires_at)"
        " VALUES (1, 1, 1, 'running', 'dead', now())"
    )
    keeper(db).run()
    assert count(db, "workers") == 1


def test_runs_that_nobody_ended_are_shown_as_lost(db: Database) -> None:
    """A killed process cannot end its own run."""
    runs = RunLog(db)
    old, new = runs.start("x"), runs.start("x")
    db.run("UPDATE task_runs SET started_at = now() - interval '3 hours' WHERE id = %s", [old])
    keeper(db).run()
    assert {run["id"]: run["result"] for run in Views(db).runs.scheduled(name="x")} == {old: "lost", new: None}


def test_two_runs_do_not_overlap(db: Database) -> None:
    """Run now, while the schedule's run is at it."""
    with Housekeeping(db).alone() as alone:
        assert alone
        assert keeper(db).run() is None
    assert Views(db).runs.scheduled(name=HOUSEKEEPING)[0]["result"] == "skipped"


def test_a_run_stops_in_time(db: Database) -> None:
    """A huge backlog is taken off in several runs; each leaves whole batches."""
    fill(db, BATCH, 0)
    assert keeper(db).run(seconds=0) == {}
    assert count(db, "deliveries") == BATCH


def test_no_batch_scans_the_table(db: Database) -> None:
    """With a big log, a purge must not slow the hub down: every step goes by an index."""
    fill(db, 0, 20_000)
    db.run(
        "INSERT INTO tasks (event_id, rule_id, service_id, state, expires_at)"
        " SELECT id, 1, 1, 'pending', now() FROM events"
    )
    with db.autocommit() as conn:
        conn.execute("ANALYZE")
        from hub.store.housekeeping import _BY_ID, _LOCK_EVENTS, _OLD_EVENTS, _PURGE_EVENTS

        batch = {"cutoff": "2020-01-01", "after": 0, "limit": BATCH}
        ids = [list(range(1, BATCH))]
        for sql, params in (
            (_BY_ID["deliveries"], batch),
            (_OLD_EVENTS, batch),
            (_LOCK_EVENTS, ids),
            (_PURGE_EVENTS, ids),
        ):
            plan = conn.execute(("EXPLAIN " + sql).encode(), params).fetchall()
            assert not any("Seq Scan" in row[0] for row in plan), plan
