"""SIGKILL at every step of an event's way: nothing is lost, nothing is attempted six times."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from collections import Counter
from collections.abc import Iterator

import psycopg
import pytest

from hub.app.lifecycle import Hub, build
from hub.programs.up import work
from hub.settings import Settings
from tests.support.http_target import HttpTarget, Seen
from tests.support.hubs import add_rule, add_service, count, counts_are_exact, emit, emit_many, task
from tests.support.waiting import eventually
from tests.support.workers import environment, workers

pytestmark = pytest.mark.fault

# A process that lives as a worker does and dies where it is told to.
PRELUDE = """
import os, signal, sys
from hub.app.lifecycle import build
from hub.models import Event
from hub.programs.up import work
from hub.settings import load_settings

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

hub = build(load_settings(), role="worker")
hub.lease.start()
"""


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Signs of life run out soon."""
    return settings.model_copy(update={"worker_lease": 2.5, "republish_after": 0.5})


@pytest.fixture
def hub(settings: Settings, target: HttpTarget) -> Iterator[Hub]:
    """The test's own look at the ledger, with one service and one rule."""
    with build(settings, role="web") as hub:
        add_service(hub, target.url, timeout=1, cb_failure_threshold=0)
        add_rule(hub)
        yield hub


def run(settings: Settings, body: str, *args: object) -> None:
    """Run a process that kills itself in `body`."""
    script = PRELUDE + textwrap.dedent(body) + "\nsys.exit('it was to die')\n"
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, args)],
        env=environment(settings),
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == -9, done.stderr.decode()


def let_workers_finish(hub: Hub, settings: Settings) -> None:
    """A worker in this process does what is left."""
    with build(settings, role="worker") as worker, work(worker, threads=4):
        eventually(lambda: count(hub, "tasks") == 0, "every task ends")


def at_most_five(target: HttpTarget) -> None:
    """Requests by idempotency key; every service here makes one try an attempt."""
    times = Counter(seen.headers["idempotency-key"] for seen in target.seen)
    assert max(times.values(), default=0) <= 5, times


def test_killed_before_the_commit_the_event_was_never_accepted(
    settings: Settings, hub: Hub, target: HttpTarget
) -> None:
    """Its sender got no answer and sends again: that one is no duplicate."""
    run(
        settings,
        """
        with hub.db.transaction() as conn:
            hub.intake.write([Event("e", {"n": 1}, "key-1")], [0], conn)
            die()
    """,
    )
    assert count(hub, "events") == count(hub, "tasks") == 0
    assert len(emit(hub, key="key-1")) == 1
    let_workers_finish(hub, settings)
    assert len(target.seen) == 1


def test_killed_between_commit_and_enqueue_the_tasks_are_found(
    settings: Settings, hub: Hub, target: HttpTarget
) -> None:
    run(
        settings,
        """
        hub.enqueuer.publish = die
        hub.intake.handle_events([Event("e", {"n": n}) for n in range(40)])
    """,
    )
    assert count(hub, "queued") == 40 and emit(hub, data={"n": 1}) == []
    let_workers_finish(hub, settings)
    assert sorted(seen.json()["n"] for seen in target.seen) == list(range(40))


def test_killed_after_the_claim_the_attempt_is_spent_and_the_task_taken_up(
    settings: Settings, hub: Hub, target: HttpTarget
) -> None:
    (task_id,) = emit(hub)
    run(settings, "hub.gateway.execute_request = die; hub.dispatcher.run(int(sys.argv[1]))", task_id)
    assert task(hub, task_id)["state"] == "running" and task(hub, task_id)["attempts"] == 1
    let_workers_finish(hub, settings)
    assert [d["attempt"] for d in hub.views.deliveries.list(task=task_id)] == [2, 1] and len(target.seen) == 1


def test_killed_between_the_answer_and_the_ledger_the_service_gets_the_same_key_again(
    settings: Settings, hub: Hub, target: HttpTarget
) -> None:
    """At least once: the duplicate carries the key by which the service can tell."""
    (task_id,) = emit(hub)
    run(
        settings,
        """
        hub.ledger.finish_soon = hub.ledger.finish = die
        hub.dispatcher.run(int(sys.argv[1]))
    """,
        task_id,
    )
    assert len(target.seen) == 1 and task(hub, task_id)["state"] == "running"
    let_workers_finish(hub, settings)
    assert len(target.seen) == 2 and len({seen.headers["idempotency-key"] for seen in target.seen}) == 1
    assert count(hub, "delivered") == 1 and counts_are_exact(hub)


def test_killed_before_move_to_dlq_there_is_no_sixth_attempt(settings: Settings, hub: Hub, target: HttpTarget) -> None:
    target.default = 500
    (task_id,) = emit(hub)
    hub.db.run("UPDATE tasks SET attempts = 4")
    run(
        settings,
        """
        hub.ledger.move_to_dlq = die
        hub.attempts.record(hub.dispatcher.run(int(sys.argv[1])))
    """,
        task_id,
    )
    assert task(hub, task_id)["attempts"] == 5 and count(hub, "dead_letters") == 0
    let_workers_finish(hub, settings)
    assert len(target.seen) == 1
    letter = hub.views.dead_letters.list()[0]
    assert (letter["reason"], letter["attempts"]) == ("worker_lost", 5)


def test_killed_within_move_to_dlq_there_is_one_dead_letter(settings: Settings, hub: Hub, target: HttpTarget) -> None:
    """The statement hangs on a lock when the worker dies; the server may still carry it out."""
    target.default = 500
    (task_id,) = emit(hub)
    hub.db.run("UPDATE tasks SET attempts = 4")
    assert settings.database_url
    with psycopg.connect(settings.database_url.get_secret_value()) as lock:
        lock.execute("LOCK TABLE deliveries IN ACCESS EXCLUSIVE MODE")
        run(
            settings,
            """
            import threading, time

            def watch():
                other = hub.db.connect()
                while not other.execute(
                    "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%INTO dead_letters%'"
                    " AND datname = current_database()"
                ).fetchone():
                    time.sleep(0.02)
                die()

            threading.Thread(target=watch).start()
            hub.attempts.record(hub.dispatcher.run(int(sys.argv[1])))
        """,
            task_id,
        )
        lock.rollback()
    let_workers_finish(hub, settings)
    assert count(hub, "dead_letters") == 1 and len(target.seen) == 1 and counts_are_exact(hub)


def test_a_task_that_kills_every_worker_that_takes_it_ends_after_five(
    settings: Settings, hub: Hub, target: HttpTarget
) -> None:
    """Dramatiq alone would deliver its message again for ever."""
    (task_id,) = emit(hub)
    for attempt in range(1, 6):
        run(settings, "hub.gateway.execute_request = die; hub.dispatcher.run(int(sys.argv[1]))", task_id)
        assert task(hub, task_id)["attempts"] == attempt
        hub.db.run("DELETE FROM workers")
        assert hub.outbox.recover() == [("crm", attempt == 5)]
    assert target.seen == [] and hub.views.dead_letters.list()[0]["reason"] == "worker_lost"


def test_workers_killed_again_and_again_under_load_lose_nothing(
    settings: Settings, hub: Hub, target: HttpTarget
) -> None:
    """Whole groups of processes, in the middle of whatever they do, while events keep coming."""
    seen: Counter[str] = Counter()
    lock = threading.Lock()

    def moody(request: Seen) -> int:
        with lock:
            seen[request.headers["idempotency-key"]] += 1
            return 500 if sum(seen.values()) % 5 == 0 else 204

    target.default = moody
    ids: list[int] = []
    with workers(settings, processes=2) as group:
        for round_ in range(3):
            ids += emit_many(hub, 150, start=round_ * 1000)
            done = round_ * 100 + 50
            eventually(lambda done=done: len(target.seen) >= done, "some of it")  # type: ignore[misc]
            if round_ < 2:
                group.kill()
                group.start()
        eventually(lambda: count(hub, "tasks") == 0, "every task ends")
        group.stop()
    at_most_five(target)
    rows = hub.db.all(
        "SELECT count(DISTINCT task_id) AS n FROM (SELECT task_id FROM deliveries WHERE success"
        " UNION SELECT task_id FROM dead_letters) ended"
    )
    assert rows[0]["n"] == len(ids) == 450
    assert count(hub, "running") == count(hub, "queued") == 0 and counts_are_exact(hub)
