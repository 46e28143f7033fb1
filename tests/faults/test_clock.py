"""A process whose wall clock is wrong does as the others do: what counts is PostgreSQL's clock, and the steady one."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook

from hub.app.lifecycle import Hub, build
from hub.monitoring.value_files import read
from hub.programs.up import work
from hub.scheduling.schedule import CONSUME, HOUSEKEEPING
from hub.settings import Settings
from tests.support import clocks
from tests.support.http_target import HttpTarget, Reply
from tests.support.hubs import add_rule, add_service, count, emit, task
from tests.support.waiting import eventually
from tests.support.workers import environment

pytestmark = pytest.mark.fault
SECRET = "whsec_" + base64.b64encode(b"signing-secret-of-a-clock-test-01").decode()
HOURS = [pytest.param(2, id="fast"), pytest.param(-2, id="slow")]
PRELUDE = """
import json, sys, time
from hub.app.lifecycle import build
from hub.settings import load_settings

def tell(**what):
    print(json.dumps(what), flush=True)
"""


@pytest.fixture
def hub(settings: Settings) -> Iterator[Hub]:
    """The test's own look, with a clock that is right."""
    clocks.needed()
    with build(settings, role="web") as hub:
        yield hub


Elsewhere = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def elsewhere(settings: Settings, tmp_path: Path) -> Elsewhere:
    """Runs code in a process whose clock is so many hours off; what it told."""

    def run(hours: float, body: str, *args: object) -> list[dict[str, Any]]:
        clock = clocks.WallClock(tmp_path / "clock")
        clock.move(hours * 3600)
        done = subprocess.run(
            [sys.executable, "-c", PRELUDE + textwrap.dedent(body), *map(str, args)],
            env=environment(settings) | clock.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]

    return run


def ticked(hub: Hub) -> list[datetime]:
    return [row["minute"] for row in hub.db.all("SELECT minute FROM ticks ORDER BY minute")]


def this_minute(hub: Hub) -> datetime:
    return hub.clock.read().replace(second=0, microsecond=0)


def test_the_clock_is_really_another_one_and_waits_are_as_long_as_ever(elsewhere: Elsewhere, hub: Hub) -> None:
    """Else the tests below, and the checker's `move_clock`, would show nothing."""
    [told] = elsewhere(
        2,
        """
        import threading
        begun, ended = time.monotonic(), []
        threading.Event().wait(0.2)
        time.sleep(0.2)
        with build(load_settings()) as hub:
            tell(wall=time.time(), waited=time.monotonic() - begun, hub=hub.clock.now().timestamp())
        """,
    )
    now = hub.clock.read().timestamp()
    assert told["wall"] == pytest.approx(now + 7200, abs=30)
    assert told["hub"] == pytest.approx(now, abs=30)
    assert 0.4 <= told["waited"] < 30


def test_a_clock_that_jumps_while_the_process_runs_moves_nothing(hub: Hub, settings: Settings, tmp_path: Path) -> None:
    """As an NTP step or a resumed machine does it."""
    clock = clocks.WallClock(tmp_path / "clock")
    body = """
    with build(load_settings()) as hub:
        for _ in sys.stdin:
            tell(wall=time.time(), hub=hub.clock.now().timestamp())
    """
    with subprocess.Popen(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(body)],
        env=environment(settings) | clock.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        for seconds in (0, 5000, -7000, 0):
            clock.move(seconds)
            process.stdin.write("now\n")
            told = json.loads(process.stdout.readline())
            now = hub.clock.read().timestamp()
            assert (told["wall"], told["hub"]) == pytest.approx((now + seconds, now), abs=10)
        process.stdin.close()
        assert process.wait(120) == 0


@pytest.mark.parametrize("hours", HOURS)
def test_a_tick_claims_the_minute_that_it_is(hub: Hub, elsewhere: Elsewhere, hours: int) -> None:
    """A claimed minute to come would never run; one that is past, and claimed, would run nothing for two hours."""
    before = this_minute(hub)
    elsewhere(hours, "with build(load_settings()) as hub: hub.tick()")
    assert len(found := ticked(hub)) == 1 and before <= found[0] <= this_minute(hub)
    planned = hub.schedule.show(CONSUME).next_run_at
    assert planned is not None and found[0] < planned <= found[0] + timedelta(minutes=1)


@pytest.mark.parametrize("hours", HOURS)
def test_a_tick_of_a_scheduler_whose_clock_is_off_is_not_skipped(
    hub: Hub, elsewhere: Elsewhere, settings: Settings, hours: int
) -> None:
    """periodiq's middleware throws away what another machine's clock calls old: nothing scheduled would run."""
    with build(settings, role="worker") as worker, work(worker, threads=2):
        elsewhere(
            hours,
            """
            import pendulum
            with build(load_settings(), role="scheduler") as hub:
                hub.actors.tick.send_with_options(scheduled_at=str(pendulum.now()))
            """,
        )
        eventually(lambda: ticked(hub), "the tick")


@pytest.mark.parametrize("hours", HOURS)
def test_a_changed_schedule_is_planned_by_the_true_time(hub: Hub, elsewhere: Elsewhere, hours: int) -> None:
    """A plan in the past would run at once what is not due."""
    due = (this_minute(hub) + timedelta(hours=1)).hour
    elsewhere(hours, f"with build(load_settings()) as hub: hub.schedule.set({HOUSEKEEPING!r}, '30 {due} * * *')")
    planned = hub.schedule.show(HOUSEKEEPING).next_run_at
    assert planned is not None and timedelta() < planned - hub.clock.read() < timedelta(hours=2)


def test_housekeeping_deletes_nothing_young_when_a_clock_is_a_month_fast(hub: Hub, elsewhere: Elsewhere) -> None:
    """The log of a month would be gone, and nothing brings it back."""
    add_service(hub, "http://127.0.0.1:9")
    add_rule(hub)
    emit(hub)
    hub.db.run(
        "INSERT INTO deliveries (direction, service, success, outcome) VALUES ('outbound', 's', true, 'success')"
    )
    elsewhere(24 * 40, "with build(load_settings()) as hub: hub.housekeeping.run()")
    assert (count(hub, "deliveries"), count(hub, "events"), count(hub, "tasks")) == (1, 1, 1)


@pytest.mark.parametrize("hours", HOURS)
def test_a_request_is_signed_for_the_true_time(hub: Hub, elsewhere: Elsewhere, target: HttpTarget, hours: int) -> None:
    """A receiver refuses what is older or newer than five minutes: five attempts later the event is dead."""
    add_service(hub, target.url, signing_secret=SECRET)
    add_rule(hub)
    [task_id] = emit(hub)
    elsewhere(hours, "with build(load_settings()) as hub: hub.dispatcher.run(int(sys.argv[1]))", task_id)
    [seen] = target.seen
    Webhook(SECRET).verify(seen.body, seen.headers)


@pytest.mark.parametrize(("hours", "dated"), [(2, True), (-2, False)])
def test_a_date_in_retry_after_is_not_taken_for_two_hours(
    hub: Hub, elsewhere: Elsewhere, target: HttpTarget, hours: int, dated: bool
) -> None:
    """Too long it would wait for the cap, an hour; too short it would knock when it was asked not to."""
    now = datetime.now(UTC)
    headers = {"Retry-After": format_datetime(now + timedelta(seconds=90), usegmt=True)}
    headers |= {"Date": format_datetime(now, usegmt=True)} if dated else {}
    target.default = Reply(429, headers=headers)
    add_service(hub, target.url)
    add_rule(hub)
    [task_id] = emit(hub)
    elsewhere(
        hours,
        """
        with build(load_settings()) as hub:
            hub.attempts.record(hub.dispatcher.run(int(sys.argv[1])))
        """,
        task_id,
    )
    assert 30 < task(hub, task_id)["due_in"] <= 91


@pytest.mark.parametrize("hours", HOURS)
def test_a_signed_call_is_judged_by_the_true_time(hub: Hub, elsewhere: Elsewhere, hours: int) -> None:
    """A good call must not be refused for two hours, nor one that is two hours old be taken."""
    add_service(hub, "http://127.0.0.1:9", inbound={"signing_secret": SECRET})
    body, now, calls = "{}", datetime.now(UTC), []
    for at in (now, now + timedelta(hours=hours)):
        calls.append(
            {
                "webhook-id": "m1",
                "webhook-timestamp": str(int(at.timestamp())),
                "webhook-signature": Webhook(SECRET).sign("m1", at, body),
                "content-type": "application/json",
            }
        )
    told = elsewhere(
        hours,
        """
        from tests.support import clients
        from hub.web.server import WebServer
        with build(load_settings(), role="web") as hub, WebServer(hub) as web:
            for headers in json.loads(sys.argv[1]):
                answer = clients.post(web.url + "/webhook/crm", content="{}", headers=headers)
                tell(status=answer.status_code)
        """,
        json.dumps(calls),
    )
    assert told == [{"status": 202}, {"status": 401}]


@pytest.mark.parametrize("hours", HOURS)
def test_waiting_times_are_measured_by_one_clock(
    hub: Hub, elsewhere: Elsewhere, settings: Settings, target: HttpTarget, hours: int
) -> None:
    """No machine's clock may set off, or silence, an alert on slow deliveries; and `{{now}}` is the true time."""
    settings.metrics_folder.mkdir(parents=True)
    add_service(hub, target.url)
    add_rule(hub, payload='{"at": "{{now}}"}')
    [task_id] = emit(hub)
    elsewhere(hours, "with build(load_settings()) as hub: hub.dispatcher.run(int(sys.argv[1]))", task_id)
    said = datetime.fromisoformat(target.seen[0].json()["at"])
    assert abs(said - hub.clock.read()) < timedelta(seconds=60)
    sums = {
        name: value
        for samples in read(settings.metrics_folder).values()
        for (name, _), value in samples.items()
        if name.endswith("_sum") and ("wait" in name or "task" in name)
    }
    assert len(sums) >= 2 and all(0 < value < 60 for value in sums.values()), sums
