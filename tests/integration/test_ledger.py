"""The ledger on a real PostgreSQL: whole transitions, fenced, counted, and repeatable after a lost answer."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import psycopg
import pytest

from hub.app.lifecycle import Hub
from hub.errors import UnavailableError
from hub.models import (
    Claim,
    DeadReason,
    Delivery,
    Direction,
)
from hub.store import ledger as ledger_sql
from hub.store import outbox as outbox_sql
from hub.store.ledger import Ledger
from hub.tasks.lease import Lease
from tests.support.hubs import add_rule, add_service, count, counts_are_exact, due_now, emit, emit_many, task
from tests.support.waiting import eventually


@pytest.fixture
def tasks(hub: Hub) -> list[int]:
    """Ten tasks of one rule."""
    add_service(hub, "http://127.0.0.1:9", timeout=1)
    add_rule(hub)
    return emit_many(hub, 10)


def outcome(claim: Claim, error: str | None = None) -> Delivery:
    return Delivery(
        direction=Direction.OUTBOUND, service_id=claim.service_id, service="crm", success=error is None,
        task_id=claim.id, rule_id=claim.rule_id, event_id=claim.event_id, event=claim.event_name,
        attempt=claim.attempt, tries=1, error=error, outcome="http_5xx" if error else "success",
        request_body='{"n":1}', response_body="no" if error else None, status=500 if error else 204,
    )  # fmt: skip


def taken(hub: Hub, task_id: int) -> Claim:
    claim = hub.ledger.claim(task_id)
    assert claim is not None
    return claim


def test_the_attempt_is_counted_at_the_claim_before_the_work(hub: Hub, tasks: list[int]) -> None:
    """A worker that dies in its work has spent the attempt: it may have reached the service."""
    claim = taken(hub, tasks[0])
    assert claim.attempt == 1 and task(hub, tasks[0])["attempts"] == 1
    row = task(hub, tasks[0])
    assert row["state"] == "running" and row["worker"] == hub.instance and row["handed_at"] is None
    assert str(row["key"]) == claim.key


def test_a_task_is_in_one_pair_of_hands(hub: Hub, tasks: list[int]) -> None:
    """A second message for a task, in whatever process, gets nothing."""
    other = Ledger(hub.db, worker="other", body_limit=100)
    with ThreadPoolExecutor(8) as pool:
        claims = list(pool.map(lambda n: (hub.ledger if n % 2 else other).claim(tasks[n % 10]), range(80)))
    assert sorted(c.id for c in claims if c) == sorted(tasks)
    assert [task(hub, t)["attempts"] for t in tasks] == [1] * 10 and counts_are_exact(hub)


def test_what_is_not_due_or_gone_is_not_claimed(hub: Hub, tasks: list[int]) -> None:
    hub.ledger.fail(taken(hub, tasks[0]), outcome(taken(hub, tasks[1]), "no"), delay=60)
    assert hub.ledger.claim(tasks[0]) is None and task(hub, tasks[0])["attempts"] == 1
    assert hub.ledger.claim(999_999) is None


def test_success_ends_the_task_and_logs_it_in_one_step(hub: Hub, tasks: list[int]) -> None:
    claims = [taken(hub, t) for t in tasks]
    with ThreadPoolExecutor(5) as pool:
        assert all(pool.map(lambda c: hub.ledger.finish(c, outcome(c)), claims))
    assert count(hub, "tasks") == 0 and count(hub, "deliveries") == 10 and hub.ledger.running() == 0
    assert counts_are_exact(hub)


def test_failure_makes_the_task_due_later_with_its_error(hub: Hub, tasks: list[int]) -> None:
    claim = taken(hub, tasks[0])
    assert hub.ledger.fail(claim, outcome(claim, "HTTP 500"), delay=60)
    row = task(hub, tasks[0])
    assert row["state"] == "delayed" and row["due_in"] == 60 and row["last_error"] == "HTTP 500"
    assert row["worker"] is None and count(hub, "deliveries") == 1


@pytest.mark.parametrize(("delay", "state"), [(0.0, "pending"), (30.0, "delayed")])
def test_what_is_given_back_has_cost_no_attempt(hub: Hub, tasks: list[int], delay: float, state: str) -> None:
    claim = taken(hub, tasks[0])
    hub.ledger.release(claim, delay=delay, why="the circuit is open")
    row = task(hub, tasks[0])
    assert (row["state"], row["attempts"], row["last_error"]) == (state, 0, "the circuit is open")
    assert count(hub, "deliveries") == 0 and hub.ledger.running() == 0


def test_the_last_failure_becomes_a_dead_letter_that_says_why(hub: Hub, tasks: list[int]) -> None:
    claim = taken(hub, tasks[0])
    assert hub.ledger.move_to_dlq(claim, outcome(claim, "HTTP 500"), DeadReason.ATTEMPTS)
    letter = hub.views.dead_letters.list()[0]
    assert (letter["task_id"], letter["reason"], letter["error"]) == (tasks[0], "attempts", "HTTP 500")
    assert letter["payload"] == '{"n":1}' and letter["attempts"] == 1
    assert count(hub, "tasks") == 9 and count(hub, "deliveries") == 1 and counts_are_exact(hub)


def test_a_dead_letter_that_cannot_be_written_whole_is_not_written_at_all(hub: Hub, tasks: list[int]) -> None:
    claim = taken(hub, tasks[0])
    hub.db.run("ALTER TABLE deliveries ADD CHECK (error IS NULL)")
    with pytest.raises(psycopg.errors.CheckViolation):
        hub.ledger.move_to_dlq(claim, outcome(claim, "HTTP 500"), DeadReason.ATTEMPTS)
    assert count(hub, "dead_letters") == 0 and task(hub, tasks[0])["state"] == "running"


def test_who_lost_a_task_can_end_it_no_more(hub: Hub, tasks: list[int]) -> None:
    """The token fences: a worker that was taken for dead and wakes up changes nothing."""
    old = [taken(hub, t) for t in tasks[:4]]
    hub.db.run("UPDATE tasks SET lease_until = now() - interval '1 s' WHERE state = 'running'")
    assert len(hub.outbox.recover()) == 4
    other = Ledger(hub.db, worker="other", body_limit=100)
    new = [other.claim(t) for t in tasks[:4]]
    assert [c and c.attempt for c in new] == [2] * 4
    assert not hub.ledger.finish(old[0], outcome(old[0]))
    assert not hub.ledger.fail(old[1], outcome(old[1], "no"), delay=60)
    assert not hub.ledger.move_to_dlq(old[2], outcome(old[2], "no"), DeadReason.ATTEMPTS)
    hub.ledger.release(old[3])
    assert [task(hub, t)["state"] for t in tasks[:4]] == ["running"] * 4 and count(hub, "dead_letters") == 0
    assert [task(hub, t)["attempts"] for t in tasks[:4]] == [2] * 4
    assert hub.views.deliveries.list(task=tasks[0], failed=False)[0]["success"], "it did reach the service"
    assert new[0] and other.finish(new[0], outcome(new[0]))


def test_the_tasks_of_a_living_worker_are_left_alone(hub: Hub, tasks: list[int]) -> None:
    taken(hub, tasks[0])
    assert hub.outbox.recover() == []


def test_a_worker_whose_lease_is_over_may_still_be_in_its_last_send(hub: Hub, tasks: list[int]) -> None:
    """It begins no more, but the one under way may take the service's timeout."""
    hub.registry.services.update("crm", {"timeout": 60})
    other = Ledger(hub.db, worker="other", body_limit=100)
    other.renew_lease(10, host="h", pid=1)
    other.claim(tasks[0])
    hub.db.run("UPDATE workers SET lease_until = now() - interval '30 s' WHERE id = 'other'")
    assert hub.outbox.recover() == []
    hub.db.run("UPDATE workers SET lease_until = now() - interval '61 s' WHERE id = 'other'")
    assert hub.outbox.recover() == [("crm", False)]


def test_a_task_that_kills_its_worker_five_times_is_dead(hub: Hub, tasks: list[int]) -> None:
    """It is taken up again four times, and every time leaves a row that says so."""
    for attempt in range(1, 6):
        lost = Ledger(hub.db, worker=f"lost{attempt}", body_limit=100)
        claim = lost.claim(tasks[0])
        assert claim is not None and claim.attempt == attempt
        assert hub.outbox.recover() == [("crm", attempt == 5)]
        assert hub.outbox.recover() == []
    letter = hub.views.dead_letters.list()[0]
    assert (letter["reason"], letter["attempts"]) == ("worker_lost", 5) and "worker was lost" in letter["error"]
    assert [d["attempt"] for d in hub.views.deliveries.list(task=tasks[0], failed=True)] == [5, 4, 3, 2, 1]
    assert hub.ledger.claim(tasks[0]) is None and counts_are_exact(hub)


def test_a_task_that_is_too_old_is_dead_with_its_last_error(hub: Hub, tasks: list[int]) -> None:
    claim = taken(hub, tasks[0])
    hub.ledger.fail(claim, outcome(claim, "HTTP 500"), delay=3600)
    hub.db.run("UPDATE tasks SET expires_at = now() - interval '1 s' WHERE id = ANY(%s)", [tasks[:2]])
    assert hub.ledger.claim(tasks[1]) is None  # it was queued: back to the releaser, which buries it
    assert hub.outbox.expire() == ["crm", "crm"]
    letters = {row["task_id"]: row for row in hub.views.dead_letters.list()}
    assert letters.keys() == set(tasks[:2]) and {row["reason"] for row in letters.values()} == {"expired"}
    assert "HTTP 500" in letters[tasks[0]]["error"] and letters[tasks[1]]["attempts"] == 0
    assert count(hub, "tasks") == 8 and counts_are_exact(hub)


def test_the_totals_are_exact_whatever_happens(hub: Hub, tasks: list[int]) -> None:
    """Nothing counts a million tasks; every statement adds its difference in its own transaction."""
    rng = random.Random(7)
    add_service(hub, "http://127.0.0.1:9", "erp")
    add_rule(hub, "r2", "e", "erp")
    held: list[Claim] = []

    def claim() -> None:
        rows = hub.db.all("SELECT id FROM tasks WHERE state IN ('pending', 'queued')")
        for row in rng.sample(rows, min(len(rows), 4)):
            if got := hub.ledger.claim(row["id"]):
                held.append(got)

    def end() -> None:
        for got in rng.sample(held, len(held) // 2):
            held.remove(got)
            endings: list[Callable[[], object]] = [
                partial(hub.ledger.finish, got, outcome(got)),
                partial(hub.ledger.release, got),
                partial(hub.ledger.release, got, delay=1),
                partial(hub.ledger.fail, got, outcome(got, "no"), delay=1),
                partial(hub.ledger.move_to_dlq, got, outcome(got, "no"), DeadReason.ATTEMPTS),
            ]
            rng.choice(endings)()

    def lose() -> None:
        hub.db.run("UPDATE tasks SET lease_until = now() WHERE state = 'running' AND id %% 3 = 0")
        hub.outbox.recover()

    def somebody() -> None:
        ids = [row["id"] for row in hub.db.all("SELECT id FROM tasks")]
        choices: list[Callable[[], object]] = [
            lambda: hub.admin.retry(rng.sample(ids, 3), restart=True),
            lambda: hub.admin.cancel(ids[:2], who="me"),
            lambda: hub.dead_letters.replay(limit=2),
            lambda: hub.registry.rules.enable("r1", rng.random() < 0.7),
        ]
        rng.choice(choices)()

    acts: list[Callable[[], object]] = [
        lambda: emit_many(hub, rng.randint(1, 8), start=rng.randint(0, 10**9)),
        claim,
        claim,
        end,
        lose,
        somebody,
        lambda: due_now(hub),
        hub.outbox.promote,
        hub.outbox.fold,
        hub.outbox.expire,
        lambda: hub.outbox.take({row.id: 3 for row in hub.configuration.rules()}),
        lambda: hub.outbox.lost_messages(3, grace=0),
        lambda: hub.ledger.release_queued(
            [row["id"] for row in hub.db.all("SELECT id FROM tasks ORDER BY id LIMIT 3")]
        ),
    ]
    emit_many(hub, 10, start=100)
    for _ in range(150):
        rng.choice(acts)()
        assert counts_are_exact(hub)
    endings = count(hub, "delivered") + count(hub, "dead_letters") + count(hub, "tasks")
    assert endings > 30


class Glitch:
    """The connection breaks right after the statement was committed: its answer is lost, once."""

    def __init__(self, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = 0
        real = hub.db.autocommit

        @contextmanager
        def autocommit() -> Iterator[Any]:
            with real() as conn:
                yield conn
            if self.left:
                self.left -= 1
                raise UnavailableError("the answer got lost")

        monkeypatch.setattr(hub.db, "autocommit", autocommit)


@pytest.fixture
def glitch(hub: Hub, tasks: list[int], monkeypatch: pytest.MonkeyPatch) -> Glitch:
    return Glitch(hub, monkeypatch)


def test_a_claim_whose_answer_got_lost_is_ours_and_counted_once(hub: Hub, tasks: list[int], glitch: Glitch) -> None:
    glitch.left = 2
    claim = taken(hub, tasks[0])
    assert claim.attempt == 1 and task(hub, tasks[0])["token"] == claim.token
    assert hub.ledger.finish(claim, outcome(claim))


def test_a_lost_answer_does_not_give_a_running_task_to_a_second_thread(
    hub: Hub, tasks: list[int], glitch: Glitch
) -> None:
    """The repeated statement takes what this process has claimed, but not what a thread of it works on already."""
    claim = taken(hub, tasks[0])
    glitch.left = 1
    assert hub.ledger.claim(tasks[0]) is None
    assert hub.ledger.finish(claim, outcome(claim))


@pytest.mark.parametrize("act", ["finish", "fail", "dead", "release"])
def test_a_result_whose_answer_got_lost_counts_once(hub: Hub, tasks: list[int], glitch: Glitch, act: str) -> None:
    claim = taken(hub, tasks[0])
    glitch.left = 1
    if act == "finish":
        hub.ledger.finish(claim, outcome(claim))
    elif act == "fail":
        hub.ledger.fail(claim, outcome(claim, "no"), delay=5)
    elif act == "dead":
        hub.ledger.move_to_dlq(claim, outcome(claim, "no"), DeadReason.ATTEMPTS)
    else:
        hub.ledger.release(claim)
    assert count(hub, "deliveries") == (0 if act == "release" else 1)
    assert count(hub, "dead_letters") == (1 if act == "dead" else 0) and counts_are_exact(hub)
    if act in ("fail", "release"):
        assert task(hub, tasks[0])["attempts"] == (1 if act == "fail" else 0)


def test_results_wait_for_a_database_that_is_away_until_the_process_stops(
    hub: Hub, tasks: list[int], glitch: Glitch
) -> None:
    claim = taken(hub, tasks[0])
    glitch.left = 10**9
    failed: list[Exception] = []

    def settle() -> None:
        try:
            hub.ledger.release(claim)
        except UnavailableError as e:
            failed.append(e)

    thread = threading.Thread(target=settle)
    thread.start()
    hub.ledger.stop()
    thread.join(120)
    assert len(failed) == 1


def test_a_process_that_stops_while_the_database_is_away_takes_nothing_new(
    hub: Hub, tasks: list[int], glitch: Glitch
) -> None:
    """It would be killed in the end, with results in its memory that could still have been written."""
    claim = taken(hub, tasks[0])
    glitch.left = 10**9
    hub.ledger.drain()
    with pytest.raises(UnavailableError):
        hub.ledger.claim(tasks[1])
    thread = threading.Thread(target=hub.ledger.release, args=(claim,))
    thread.start()
    glitch.left = 1
    thread.join(120)
    assert not thread.is_alive() and task(hub, tasks[0])["state"] == "pending"


def test_no_look_at_the_ledger_reads_all_of_it(hub: Hub, tasks: list[int]) -> None:
    """With a million tasks, a statement that scans them is a statement that stops the hub."""
    hub.db.run(
        "INSERT INTO rules (name, event, service_id)"
        " SELECT 'x' || g, 'x', s.id FROM services s, generate_series(1, 20) g"
    )
    hub.db.run(
        "INSERT INTO tasks (event_id, rule_id, service_id, state, next_run_at, expires_at, handed_at)"
        " SELECT 1, r.id, r.service_id, CASE WHEN g %% 100 < 90 THEN 'pending' WHEN g %% 100 < 95 THEN 'delayed'"
        " WHEN g %% 100 < 99 THEN 'queued' ELSE 'running' END, now() + make_interval(secs => g), now() + '1 day', now()"
        " FROM rules r, generate_series(1, 1000) g"
    )
    rules = [row["id"] for row in hub.db.all("SELECT id FROM rules LIMIT 3")]
    statements: dict[str, tuple[str, Any]] = {
        "claim": (ledger_sql._CLAIM, {"ids": tasks, "worker": "w", "doubt": []}),
        "promote": (outbox_sql._PROMOTE, [100]),
        "take": (outbox_sql._TAKE, {"rules": rules, "limits": [10, 10, 10]}),
        "strays": (outbox_sql._LOST_MESSAGES, {"grace": 5, "limit": 10}),
        "expired": (outbox_sql._EXPIRED, {"limit": 100}),
        "lost": (outbox_sql._LOST, {"limit": 100, "max_attempts": 5, "why": "x"}),
        "release_queued": (ledger_sql._RELEASE_QUEUED, [tasks]),
        "demand": (outbox_sql._DEMAND, []),
        "pressure": (outbox_sql._PRESSURE, []),
    }
    url = str(hub.settings.database_url.get_secret_value() if hub.settings.database_url else "")
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("VACUUM ANALYZE tasks")
        cursor = psycopg.ClientCursor(conn)
        for name, (statement, params) in statements.items():
            plan = "\n".join(r[0] for r in cursor.execute(b"EXPLAIN " + statement.encode(), params or None).fetchall())
            assert "Seq Scan on tasks" not in plan, f"{name}:\n{plan}"


def test_one_delivery_that_cannot_be_written_does_not_spoil_its_batch(hub: Hub, tasks: list[int]) -> None:
    claims = [taken(hub, t) for t in tasks]
    hub.db.run("ALTER TABLE deliveries ADD CHECK (task_id <> %s)" % tasks[3])  # noqa: UP031
    done: list[int] = []
    for claim in claims:
        hub.ledger.finish_soon(claim, outcome(claim), lambda ok, c=claim: done.append(c.id))  # type: ignore[misc]
    assert hub.ledger.flush(10)
    assert sorted(done) == sorted(set(tasks) - {tasks[3]}) and count(hub, "deliveries") == 9
    assert task(hub, tasks[3])["state"] == "running"


def test_an_event_is_still_there_for_its_task(hub: Hub) -> None:
    """A task without its event could never be claimed, and so would never end."""
    add_service(hub, "http://127.0.0.1:9")
    add_rule(hub)
    (task_id,) = emit(hub)
    assert taken(hub, task_id).event_data == '{"n":1}'


def test_a_process_whose_lease_was_not_renewed_sends_no_more_until_it_is(
    hub: Hub, tasks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the reason: the thread that renews goes on trying."""
    lease = Lease(hub.ledger, seconds=1.5)
    lease.start()
    lease.check()
    broken = [UnavailableError("away"), RuntimeError("a bug")]

    def renew(*_: object, **__: object) -> None:
        raise broken[0]

    for _ in range(len(broken)):
        with monkeypatch.context() as patch:
            patch.setattr(hub.ledger, "renew_lease", renew)
            eventually(lambda: not alive(lease), "it knows that it is over")
        eventually(lambda: alive(lease), "it is renewed")
        broken.reverse()
    lease.stop()
    assert not alive(lease) and hub.db.all("SELECT 1 FROM workers") == []


def alive(lease: Lease) -> bool:
    try:
        lease.check()
    except UnavailableError:
        return False
    return True


def test_a_standby_that_takes_no_writes_counts_as_away(hub: Hub) -> None:
    """After a failover the old primary may be read-only for a while."""
    with pytest.raises(UnavailableError), hub.db.transaction() as conn:
        conn.execute("SET TRANSACTION READ ONLY")
        conn.execute("DELETE FROM tasks")
