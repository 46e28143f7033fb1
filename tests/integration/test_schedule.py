"""The tick on a real database: claimed once, made up for once, changed from any process."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from hub.errors import ConfigError, NotFoundError
from hub.scheduling.schedule import (
    CONSUME,
    HOUSEKEEPING,
    Due,
    Schedule,
    run_due,
)
from hub.store.database import Database
from hub.store.run_log import RunLog
from hub.store.schedules import Schedules
from hub.store.views import Views

NOON = datetime(2026, 11, 24, 12, 0, 3, tzinfo=UTC)


class Clock:
    """A clock that moves when told."""

    def __init__(self) -> None:
        self.at = NOON

    def __call__(self) -> datetime:
        return self.at

    def forward(self, minutes: float) -> None:
        self.at += timedelta(minutes=minutes)


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    database = Database(database_url, size=8)
    database.open()
    yield database
    database.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def schedule(db: Database, clock: Clock) -> Schedule:
    return Schedule(Schedules(db, claimed_by="one"), "UTC", now=clock)


def names(due: list[Due]) -> list[str]:
    return [run.name for run in due]


def test_a_fresh_deployment_runs_every_minute_from_its_first_tick(schedule: Schedule, clock: Clock) -> None:
    """Nobody should have to wait or to set anything up."""
    for _ in range(3):
        assert names(schedule.tick()) == [CONSUME]
        clock.forward(1)
    clock.at = NOON.replace(minute=17)
    assert names(schedule.tick()) == [CONSUME, HOUSEKEEPING]


def test_two_schedulers_never_launch_a_task_twice(db: Database, clock: Clock) -> None:
    """Several schedulers run for safety; every minute belongs to one of them."""
    schedulers = [Schedule(Schedules(db, claimed_by=str(i)), "UTC", now=clock) for i in range(6)]
    with ThreadPoolExecutor(6) as pool:
        for _ in range(10):
            launched = [run for due in pool.map(lambda s: s.tick(), schedulers) for run in due]
            assert names(launched).count(CONSUME) == 1
            clock.forward(1)


def test_a_second_tick_within_the_minute_does_nothing(schedule: Schedule, clock: Clock) -> None:
    """periodiq ticks at once when it starts: a restart must not run everything again."""
    assert schedule.tick()
    clock.forward(0.5)
    assert schedule.tick() == []


def test_missed_minutes_are_made_up_for_by_one_run(schedule: Schedule, clock: Clock) -> None:
    """After an hour without a scheduler one run drains everything; sixty would only queue."""
    schedule.tick()
    clock.forward(61)
    due = schedule.tick()
    assert [(run.name, run.missed) for run in due] == [(CONSUME, 60), (HOUSEKEEPING, 0)]
    clock.forward(1)
    assert [(run.name, run.missed) for run in schedule.tick()] == [(CONSUME, 0)]


def test_a_launch_that_fails_is_made_up_for_at_the_next_tick(schedule: Schedule, clock: Clock) -> None:
    """The broker may be away at the only minute of the day that counts."""

    def broken(due: Due) -> None:
        raise RuntimeError("no broker")

    schedule.set(CONSUME, "0 12 * * *")
    clock.at = NOON + timedelta(days=1)
    with pytest.raises(RuntimeError):
        schedule.tick(launch=broken)
    launched: list[Due] = []
    assert schedule.tick(launch=launched.append) == launched != []
    clock.forward(1)
    assert schedule.tick() == []


def test_another_scheduler_takes_the_minute_that_one_failed_in(db: Database, schedule: Schedule, clock: Clock) -> None:
    """A scheduler that has lost its broker must not hold the minute against a healthy one."""
    other = Schedule(Schedules(db, claimed_by="two"), "UTC", now=clock)
    with pytest.raises(ZeroDivisionError):
        schedule.tick(launch=lambda due: print(1 // 0))
    assert names(other.tick()) == [CONSUME]


def test_a_change_counts_from_the_next_minute_in_every_process(db: Database, schedule: Schedule, clock: Clock) -> None:
    """Edited in the console, obeyed by the scheduler on another machine."""
    other = Schedule(Schedules(db, claimed_by="two"), "UTC", now=clock)
    assert names(schedule.tick()) == [CONSUME]
    other.set(CONSUME, "*/5 * * * *")
    assert other.show(CONSUME).next_run_at == NOON.replace(minute=5, second=0)
    ran = []
    for _ in range(10):
        clock.forward(1)
        ran += [clock.at.minute for _ in schedule.tick()]
    assert ran == [5, 10]
    other.reset(CONSUME)
    clock.forward(1)
    assert names(schedule.tick()) == [CONSUME]


def test_a_bad_expression_changes_nothing(schedule: Schedule) -> None:
    """Refused with the field named, and the old one stays."""
    with pytest.raises(ConfigError, match="hour"):
        schedule.set(CONSUME, "0 25 * * *")
    assert schedule.show(CONSUME).cron == "* * * * *"
    with pytest.raises(NotFoundError, match="consume_responses_task"):
        schedule.set("nonsense", "* * * * *")


def test_a_disabled_task_does_not_run_unless_asked_to(schedule: Schedule, clock: Clock) -> None:
    """Run now works as in Moodle; enabling again does not make up for the pause."""
    schedule.enable(CONSUME, False)
    assert schedule.tick() == []
    assert schedule.show(CONSUME).next_run_at is None
    schedule.request_run(CONSUME)
    clock.forward(1)
    assert schedule.tick() == [Due(CONSUME, requested=True)]
    clock.forward(120)
    assert CONSUME not in names(schedule.tick())
    schedule.enable(CONSUME)
    clock.forward(1)
    assert [(run.name, run.missed) for run in schedule.tick()] == [(CONSUME, 0)]


def test_run_now_runs_once_and_keeps_the_plan(schedule: Schedule, clock: Clock) -> None:
    """A request is for one run, not for another schedule."""
    schedule.set(CONSUME, "30 3 * * *")
    planned = schedule.show(CONSUME).next_run_at
    schedule.request_run(CONSUME)
    schedule.request_run(CONSUME)
    clock.forward(1)
    assert schedule.tick() == [Due(CONSUME, requested=True)]
    clock.forward(1)
    assert schedule.tick() == []
    assert schedule.show(CONSUME).next_run_at == planned


def test_the_time_zone_setting_is_obeyed_also_when_it_changes(db: Database, clock: Clock) -> None:
    """The stored plan was made in the old zone; it must not fire once more at the old hour."""
    utc = Schedule(Schedules(db, claimed_by="a"), "UTC", now=clock)
    utc.set(CONSUME, "0 14 * * *")
    utc.enable(HOUSEKEEPING, False)
    tokyo = Schedule(Schedules(db, claimed_by="b"), "Asia/Tokyo", now=clock)
    assert tokyo.tick() == []
    clock.at = NOON.replace(hour=14)
    assert tokyo.tick() == []
    clock.at = NOON.replace(day=25, hour=5, minute=0)
    assert names(tokyo.tick()) == [CONSUME]


def test_a_clock_that_was_ahead_does_not_stop_the_schedule(schedule: Schedule, clock: Clock) -> None:
    """A plan of next year, made by a wrong clock, is made again by the right one."""
    clock.forward(60 * 24 * 365)
    schedule.tick()
    clock.at = NOON
    schedule.tick()
    clock.forward(1)
    assert CONSUME in names(schedule.tick())


def test_the_moodle_random_minute_is_fixed_when_saved(db: Database, schedule: Schedule) -> None:
    """Saved twice, the same minute; what is shown is what will run."""
    first = schedule.set(CONSUME, "R * * * *").cron
    assert first.split()[0].isdigit()
    assert schedule.set(CONSUME, "R * * * *").cron == first
    assert schedule.preview("R * * * *", name=CONSUME)[0].minute == int(first.split()[0])


def test_the_result_of_a_launch_is_its_worst_run(db: Database, schedule: Schedule) -> None:
    """With a run per service, a success that comes later must not hide an error."""
    store = Schedules(db, claimed_by="one")
    schedule.tick()
    assert schedule.show(CONSUME).last_result == "running"
    for result, shown in [("skipped", "skipped"), ("ok", "ok"), ("error", "error"), ("ok", "error")]:
        store.finished(CONSUME, result)
        assert schedule.show(CONSUME).last_result == shown
    assert (schedule.show(CONSUME).last_duration_ms or 0) > 0
    assert schedule.show(CONSUME).last_run_at is not None


def test_what_is_due_is_started_and_a_launch_without_runs_is_over_at_once(schedule: Schedule, clock: Clock) -> None:
    """With no response queue there is nobody to report an end; the task must not look as if it ran for ever."""
    started: list[str] = []

    def launch() -> int:
        started.append(CONSUME)
        return 0

    assert names(run_due(schedule, {CONSUME: launch})) == [CONSUME] == started
    assert schedule.show(CONSUME).last_result == "ok"
    clock.forward(1)
    run_due(schedule, {CONSUME: lambda: 3})
    assert schedule.show(CONSUME).last_result == "running"
    clock.forward(1)
    assert names(run_due(schedule, {})) == [CONSUME], "a task of a newer version is passed over"


def test_the_run_log_pages_filters_and_knows_lost_runs(db: Database) -> None:
    """A run whose process was killed must not look as if it still ran."""
    runs = RunLog(db)
    ids = []
    for i in range(6):
        ids.append(runs.start(CONSUME, "erp" if i % 2 else "crm"))
        runs.finish(ids[-1], "error" if i == 3 else "ok", summary=f"{i} messages", error="x\x00y" if i == 3 else None)
    lost = runs.start(CONSUME, "erp")
    other = runs.start(CONSUME, "crm")
    alive = runs.start(CONSUME, "erp", alone=True)
    listed = Views(db).runs.scheduled
    page = listed(name=CONSUME, limit=3)
    assert [run["id"] for run in page] == [alive, other, lost]
    assert [run["result"] for run in page] == [None, None, "lost"]
    assert [run["id"] for run in listed(before=page[-1]["id"], limit=2)] == [ids[5], ids[4]]
    assert [run["id"] for run in listed(failed=True, service="erp")] == [lost, ids[3]]
    assert [run["id"] for run in listed(name=HOUSEKEEPING)] == []
    run = listed(failed=True, before=lost)[0]
    assert run["host"] and run["pid"] and run["error"] == "x\ufffdy" and run["summary"] == "3 messages"
    assert run["ended_at"] >= run["started_at"]
