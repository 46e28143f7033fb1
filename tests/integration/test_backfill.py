"""Backfill: a rule over past events, counted first, each event once; killed, paused, resumed, cancelled."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from hub.app.lifecycle import Hub, build
from hub.cli.app import app
from hub.errors import ConflictError, NotFoundError, PayloadError
from hub.models import Rule
from hub.operations import backfill
from hub.programs.up import work
from hub.settings import Settings
from hub.store.audit import Actor, acting
from hub.store.housekeeping import Housekeeping
from tests.support.api import Api, problem
from tests.support.http_target import HttpTarget
from tests.support.hubs import add_rule, add_service, attempt, count, counts_are_exact, emit, emit_many
from tests.support.waiting import eventually
from tests.support.workers import environment, workers

ANN = Actor("ann", "cli", "host")
SINCE = datetime.now(UTC) - timedelta(days=7)
RATE = 10_000.0


def soon() -> datetime:
    return datetime.now(UTC) + timedelta(minutes=1)


def begin(hub: Hub, rule: Rule, rate: float = RATE, **times: datetime) -> backfill.Backfill:
    return backfill.start(hub, rule, times.get("since", SINCE), times.get("until", soon()), rate=rate)


def run(hub: Hub, backfill_id: int) -> backfill.Backfill:
    """Step until it has ended; time passes for its rate."""
    while (found := hub.backfills.get(backfill_id)).state == "running":
        step(hub)
    return found


def step(hub: Hub) -> bool:
    hub.db.run("UPDATE backfills SET paced_at = now() - interval '1 h'")
    return hub.backfill_runner.round()


@pytest.fixture
def past(hub: Hub, target: HttpTarget) -> Rule:
    """120 events that no rule wanted, 40 of another name, and a rule that came later."""
    add_service(hub, target.url)
    emit_many(hub, 120)
    emit_many(hub, 40, "other")
    return add_rule(hub, conditions={"n": {"lt": 100}})


def test_it_is_counted_first_and_makes_exactly_that(hub: Hub, past: Rule, target: HttpTarget) -> None:
    """Events that have a task of the rule, or had one, are skipped; other rules get nothing."""
    add_rule(hub, "bystander", "other", endpoint="/bystander")
    emit_many(hub, 5, start=-5)  # live: the rule exists by now
    delivered, dead, deleted, *_ = (row["id"] for row in hub.db.all("SELECT id FROM tasks ORDER BY id"))
    assert attempt(hub, delivered) == "delivered"
    hub.admin.cancel([deleted], who="test")
    hub.db.run("UPDATE tasks SET state = 'pending', expires_at = now() - interval '1 s' WHERE id = %s", [dead])
    hub.outbox.expire()
    counted = backfill.count(hub, past, SINCE, soon())
    assert (counted.matched, counted.skipped, counted.tasks) == (105, 5, 100)
    with acting(ANN):
        started = begin(hub, past)
    assert count(hub, "tasks") == 2, "nothing is made before a worker takes it up"
    done = run(hub, started.id)
    assert (done.state, done.matched, done.skipped, done.tasks, done.progress) == ("done", 105, 5, 100, 1.0)
    made = hub.db.all("SELECT t.id, t.rule_id, t.bulk FROM tasks t JOIN task_origins o ON o.task_id = t.id")
    assert len(made) == 100 and {(row["rule_id"], row["bulk"]) for row in made} == {(past.id, True)}
    assert count(hub, "tasks") == 102 and counts_are_exact(hub)
    assert attempt(hub, made[7]["id"]) == "delivered" and target.at("/x")[-1].json() == {"n": 7}
    origin = hub.views.origins.get(made[7]["id"])
    assert origin is not None
    assert (origin["kind"], origin["backfill_id"], origin["actor"]) == ("backfill", done.id, "ann")
    again = run(hub, begin(hub, past).id)
    assert (again.matched, again.skipped, again.tasks) == (105, 105, 0), "a second one repeats nothing"
    assert [entry.actor for entry in hub.audit.list(action="backfill.start")] == ["hub", "ann"]


def test_only_events_of_the_time_are_taken(hub: Hub, past: Rule) -> None:
    hub.db.run("UPDATE events SET created_at = now() - interval '10 days' WHERE id <= 30")
    hub.db.run("UPDATE events SET created_at = now() - interval '5 days' WHERE id > 30 AND id <= 50")
    since, until = SINCE, datetime.now(UTC) - timedelta(days=1)
    assert backfill.count(hub, past, since, until).tasks == 20
    assert run(hub, begin(hub, past, since=since, until=until).id).tasks == 20
    with pytest.raises(PayloadError, match="until: must be after since"):
        begin(hub, past, since=until, until=since)
    with pytest.raises(PayloadError, match="rate"):
        begin(hub, past, rate=0)


def test_its_rate_is_kept(hub: Hub, past: Rule) -> None:
    """However long nothing was made, at most a second's worth follows."""
    begin(hub, past, rate=3)
    step(hub)
    assert count(hub, "tasks") == 3
    hub.db.run("UPDATE backfills SET paced_at = clock_timestamp() + interval '1 h'")
    assert not hub.backfill_runner.round() and count(hub, "tasks") == 3


def test_no_more_tasks_are_made_than_may_wait(hub: Hub, past: Rule, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that is slow, or away, gets its backfill when it can take it."""
    monkeypatch.setattr("hub.store.backfill_steps.WAITING", 30)
    started = begin(hub, past)
    while step(hub):
        pass
    assert count(hub, "tasks") == 30
    stuck = hub.backfills.get(started.id)
    assert stuck.state == "running" and stuck.waits_for == "30 tasks of the rule that wait to be sent"
    hub.db.run("UPDATE tasks SET bulk = false")
    assert step(hub) and count(hub, "tasks") == 60
    assert hub.backfills.get(started.id).waits_for is None


def test_paused_resumed_and_cancelled(hub: Hub, past: Rule) -> None:
    started = begin(hub, past, rate=10)
    with pytest.raises(ConflictError, match="is running or paused"):
        begin(hub, past)
    step(hub)
    assert hub.backfills.pause(started.id).state == "paused"
    assert not step(hub) and count(hub, "tasks") == 10
    with pytest.raises(ConflictError, match="is paused, not running"):
        hub.backfills.pause(started.id)
    assert hub.backfills.resume(started.id).state == "running"
    step(hub)
    assert count(hub, "tasks") == 20
    first = hub.db.all("SELECT id FROM tasks ORDER BY id LIMIT 1")[0]["id"]
    assert attempt(hub, first) == "delivered"
    with acting(ANN):
        ended, dropped = backfill.cancel(hub, started.id)
    assert (ended.state, dropped, count(hub, "tasks")) == ("cancelled", 19, 0)
    assert count(hub, "cancellations") == 19, "every task that ends leaves a row"
    with pytest.raises(ConflictError, match="nothing to cancel"):
        backfill.cancel(hub, started.id)
    with pytest.raises(NotFoundError):
        hub.backfills.resume(999)
    assert run(hub, begin(hub, past).id).tasks == 99, "what was not sent is taken by the next one"
    actions = [entry.action for entry in hub.audit.list(kind="backfill")][::-1]
    assert actions[:4] == ["backfill.start", "backfill.pause", "backfill.resume", "backfill.cancel"]


def test_a_deleted_rule_ends_it(hub: Hub, past: Rule) -> None:
    started = begin(hub, past)
    hub.registry.rules.delete("r1")
    assert not step(hub)
    ended = hub.backfills.get(started.id)
    assert (ended.state, ended.waits_for) == ("cancelled", "the rule or its service was deleted")


def test_an_event_that_commits_late_is_not_missed(hub: Hub, past: Rule, alone: Settings) -> None:
    """Its id lies below the end of the backfill, and nobody sees it while the others are read."""
    assert alone.database_url is not None
    with psycopg.connect(alone.database_url.get_secret_value()) as late:
        late.execute("INSERT INTO events (uid, name, data) VALUES ('late', 'e', '{\"n\": 1}')")
        started = begin(hub, past)
        emit_many(hub, 1, start=50)
        assert not step(hub)
        assert hub.backfills.get(started.id).waits_for == "transactions that began before the backfill"
        late.commit()
    assert run(hub, started.id).tasks == 101


def test_two_processes_at_once_make_each_task_once(hub: Hub, past: Rule, alone: Settings) -> None:
    started = begin(hub, past, rate=50)
    with build(alone, role="worker") as other:
        hubs = [hub, other, hub, other]

        def work_on(one: Hub) -> None:
            run(one, started.id)

        threads = [threading.Thread(target=work_on, args=[one]) for one in hubs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
    done = hub.backfills.get(started.id)
    assert (done.state, done.tasks, count(hub, "tasks")) == ("done", 100, 100)
    events = hub.db.all("SELECT count(DISTINCT event_id) AS n FROM tasks")
    assert events[0]["n"] == 100 and counts_are_exact(hub)


def test_killed_in_the_middle_it_continues_without_a_repeat(settings: Settings, target: HttpTarget) -> None:
    """Worker processes that are killed with SIGKILL while they backfill; others take it up where it stands."""
    with build(settings, role="web") as hub:
        add_service(hub, target.url)
        emit_many(hub, 400)
        rule = add_rule(hub)
        started = begin(hub, rule, rate=200)
        with workers(settings, processes=2) as group:
            eventually(lambda: hub.backfills.get(started.id).tasks >= 60, "it is under way")
            group.kill()
            stands = hub.backfills.get(started.id)
            assert stands.state == "running" and stands.tasks < 400
            group.start()
            eventually(lambda: hub.backfills.get(started.id).state == "done", "others take it up")
            eventually(lambda: count(hub, "tasks") == 0, "all are delivered")
        done = hub.backfills.get(started.id)
        assert (done.matched, done.skipped, done.tasks) == (400, 0, 400)
        keys = {seen.headers["idempotency-key"] for seen in target.at("/x")}
        assert len(keys) == 400, "one task for each event: a request repeated after the kill has its key"
        assert {seen.json()["n"] for seen in target.at("/x")} == set(range(400))


def test_live_events_are_delivered_beside_it(hub: Hub, past: Rule, target: HttpTarget) -> None:
    with work(hub, threads=4):
        started = begin(hub, past, rate=30)
        eventually(lambda: hub.backfills.get(started.id).tasks > 0)
        add_rule(hub, "live", "now", endpoint="/live")
        emit(hub, "now", {"n": "live"})
        eventually(lambda: len(target.at("/live")) == 1)
        eventually(lambda: hub.backfills.get(started.id).state == "done")
        eventually(lambda: count(hub, "tasks") == 0)
    assert len(target.at("/x")) == 100


def test_the_api_backfills(api: Api, target: HttpTarget) -> None:
    hub = api.hub
    add_service(hub, target.url)
    emit_many(hub, 20)
    add_rule(hub)
    manage, view = api.client(), api.client("view")
    since = SINCE.isoformat()
    url = "/api/v1/rules/r1/backfill"
    counted = manage.post(url, json={"since": since, "dry_run": True}).json()
    assert (counted["matched"], counted["skipped"], counted["tasks"], counted["complete"]) == (20, 0, 20, True)
    problem(view.post(url, json={"since": since}), 403)
    problem(manage.post(url, json={}), 422, "since")
    problem(manage.post("/api/v1/rules/none/backfill", json={"since": since}), 404)
    problem(manage.post(url, json={"since": since, "until": "2001-01-01T00:00:00Z"}), 422, "until")
    response = manage.post(url, json={"since": since, "rate": 5})
    assert response.status_code == 202
    started = response.json()
    assert (started["state"], started["rate"], started["expected"], started["rule"]) == ("running", 5, 20, "r1")
    problem(manage.post(url, json={"since": since}), 409)
    one = f"/api/v1/backfills/{started['id']}"
    assert manage.post(f"{one}/pause").json()["state"] == "paused"
    assert manage.post(f"{one}/resume").json()["state"] == "running"
    problem(view.post(f"{one}/cancel"), 403)
    assert manage.post(f"{one}/cancel").json()["state"] == "cancelled"
    problem(manage.post(f"{one}/pause"), 409)
    problem(view.get("/api/v1/backfills/999"), 404)
    assert view.get(one).json()["state"] == "cancelled"
    assert [item["id"] for item in view.get("/api/v1/backfills?rule=r1").json()["items"]] == [started["id"]]


def test_the_command_counts_and_starts(hub: Hub, past: Rule, monkeypatch: pytest.MonkeyPatch, alone: Settings) -> None:
    for name, value in environment(alone).items():
        if name.startswith("HUB_"):
            monkeypatch.setenv(name, value)

    def command(*args: str, code: int = 0) -> Any:
        result = CliRunner().invoke(app, [*args, "--json"])
        assert result.exit_code == code, result.output
        return json.loads(result.stdout) if code == 0 else result

    counted = command("rule", "backfill", "r1", "--since", "1d", "--dry-run")
    assert (counted["matched"], counted["skipped"], counted["tasks"], counted["dry_run"]) == (100, 0, 100, True)
    started = command("rule", "backfill", "r1", "--since", "1d", "--rate", "1000", "--yes")
    assert (started["state"], started["expected"], started["tasks"]) == ("running", 100, 0)
    one = str(started["id"])
    assert command("backfill", "pause", one)["state"] == "paused"
    assert command("backfill", "resume", one)["state"] == "running"
    run(hub, started["id"])
    shown = command("backfill", "show", one)
    assert (shown["state"], shown["tasks"], shown["progress"]) == ("done", 100, 1)
    assert [row["id"] for row in command("backfill", "list", "--rule", "r1")] == [started["id"]]
    command("backfill", "cancel", one, "--yes", code=2)
    command("rule", "backfill", "r1", "--since", "yesterday", code=2)
    assert {entry.actor_kind for entry in hub.audit.list(kind="backfill")} == {"cli"}


def test_housekeeping_keeps_an_origin_as_long_as_its_event(hub: Hub, past: Rule) -> None:
    """It is what keeps the next backfill from sending the event again."""
    run(hub, begin(hub, past).id)
    hub.admin.cancel([row["id"] for row in hub.db.all("SELECT id FROM tasks")], who="test")
    store, cutoff = Housekeeping(hub.db), datetime.now(UTC) + timedelta(days=1)
    gone = store.purge(cutoff, lambda: True, events=datetime.now(UTC) - timedelta(days=1))
    assert "task_origins" not in gone and gone["backfills"] == 1
    assert backfill.count(hub, past, SINCE, soon()).skipped == 100
    store.purge(cutoff, lambda: True)
    store.purge(cutoff, lambda: True)
    assert count(hub, "events") == 0 and hub.db.all("SELECT 1 AS x FROM task_origins") == []
