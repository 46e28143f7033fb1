"""The whole way of an event, through real processes and real servers, in both modes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from hub.app.lifecycle import Hub, build
from hub.models import Event
from hub.programs.up import work
from hub.settings import Settings
from tests.support.http_target import HttpTarget, Reply, Seen
from tests.support.hubs import USER_LOGGED_IN, add_rule, add_service, count, counts_are_exact, emit, emit_many
from tests.support.waiting import eventually
from tests.support.workers import environment, workers


def third_time(target: HttpTarget) -> None:
    """`/third` answers the third request of a task, `/never` none."""

    def answer(seen: Seen) -> int:
        key = seen.headers["idempotency-key"]
        return 204 if sum(s.headers["idempotency-key"] == key for s in target.at(seen.path)) >= 3 else 503

    target.on("/third", answer)
    target.on("/never", Reply(500, {"sorry": "no"}))


def everything(hub: Hub, target: HttpTarget) -> None:
    """Delivered, delivered at the third attempt, dead after five, replayed: what the hub is for."""
    third_time(target)
    add_service(hub, target.url, cb_failure_threshold=0)
    add_rule(
        hub,
        "moodle",
        "\\core\\event\\user_*",
        endpoint="/users/{{userid}}",
        method="PUT",
        payload={"user": "{{other.username}}", "at": "{{timecreated}}", "none": "{{relateduserid}}"},
    )
    for name in ("ok", "third", "never"):
        add_rule(hub, name, name, endpoint=f"/{name}")
    hub.intake.handle_event(Event("\\core\\event\\user_loggedin", USER_LOGGED_IN))
    emit_many(hub, 200, "ok")
    emit_many(hub, 5, "third")
    never = emit_many(hub, 3, "never")
    eventually(lambda: count(hub, "tasks") == 0, "all tasks end")

    assert count(hub, "delivered") == 206 and count(hub, "dead_letters") == 3
    (user,) = target.at("/users/5")
    assert user.method == "PUT" and user.json() == {"user": "student1", "at": 1708258939, "none": None}
    assert sorted(s.json()["n"] for s in target.at("/ok")) == list(range(200)), "each once"
    for path, times in (("/third", 3), ("/never", 5)):
        keys = [s.headers["idempotency-key"] for s in target.at(path)]
        assert {keys.count(key) for key in keys} == {times}
    for letter in hub.views.dead_letters.list():
        assert letter["task_id"] in never and letter["reason"] == "attempts" and letter["attempts"] == 5
        assert "500" in letter["error"]

    target.on("/never", 204)
    assert len(hub.dead_letters.replay(service="crm").tasks) == 3
    eventually(lambda: count(hub, "tasks") == 0, "the replay ends")
    assert count(hub, "dead_letters") == 0 and sorted(s.json()["n"] for s in target.at("/never")[-3:]) == [0, 1, 2]
    assert counts_are_exact(hub)


def test_two_dramatiq_processes_on_rabbitmq_and_postgresql(settings: Settings, target: HttpTarget) -> None:
    settings = settings.model_copy(update={"worker_lease": 30.0})  # a busy machine must not cost duplicates
    with build(settings, role="web") as hub, workers(settings, processes=2) as group:
        everything(hub, target)
        assert group.stop() == 0
        rows = hub.db.all("SELECT * FROM workers")
        assert rows == [], "the leases were given up"
        assert "Traceback" not in group.output()


def test_one_process_on_its_own_postgresql(tmp_path: Path, target: HttpTarget) -> None:
    settings = Settings(home=tmp_path / "hub", retry_delays="0.1,0.1,0.1,0.1", worker_lease="30s", threads=4)
    with build(settings, role="up") as hub:
        with work(hub, threads=4):
            everything(hub, target)
            first = emit(hub, "ok", {"n": 1000})
            eventually(lambda: count(hub, "tasks") == 0)
        assert hub.ledger.running() == 0
        held = emit(hub, "ok", {"n": 1001})
    with build(settings, role="up") as hub, work(hub, threads=4):
        eventually(lambda: count(hub, "tasks") == 0, what="what the last process left is done by the next")
        assert first and held and target.at("/ok")[-1].json() == {"n": 1001}


def test_periodiq_ticks_and_a_worker_does_what_is_due(settings: Settings) -> None:
    """The scheduler sends one message; the worker claims the minute and starts the runs."""
    with build(settings, role="web") as hub, workers(settings) as group:
        hub.schedule.request_run("housekeeping_task")
        scheduler = subprocess.Popen(
            [sys.executable, "-c", "import periodiq; periodiq.entrypoint()", "hub.scheduler:broker"],
            env=environment(settings),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            eventually(lambda: hub.views.runs.scheduled(name="housekeeping_task"), "the run")
            eventually(lambda: hub.views.runs.scheduled(name="housekeeping_task")[0]["result"], "its end")
        finally:
            scheduler.terminate()
            scheduler.wait(120)
        assert hub.views.runs.scheduled(name="housekeeping_task")[0]["result"] == "ok" and group.stop() == 0
