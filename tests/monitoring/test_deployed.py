"""The whole catalogue, counted by real `hub worker` processes and read from a real `hub exporter`."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from hub.app.lifecycle import build
from hub.monitoring.collectors.ledger import LEDGER_METRICS
from hub.monitoring.collectors.queues import QUEUE_METRICS
from hub.monitoring.exposition import (
    BUILD,
    TOOK,
    UP,
    make_scraper,
)
from hub.monitoring.metrics import CATALOGUE, OUTCOMES
from hub.settings import Settings
from tests.monitoring.conftest import KEY, Samples, names, of, parse
from tests.monitoring.story import Deployment, deployment
from tests.monitoring.test_exporter import sources
from tests.support.databases import PostgresServer
from tests.support.http_target import HttpTarget, Seen
from tests.support.hubs import add_rule, add_service, count, emit_many
from tests.support.prometheus import run
from tests.support.rabbit import RabbitNode
from tests.support.waiting import eventually
from tests.support.workers import workers


def total(shown: Samples, name: str, **labels: str) -> float:
    """All samples of a name that have these labels, added up."""
    return sum(v for (n, have), v in shown.items() if n == name and labels.items() <= dict(have).items())


@pytest.fixture
def shown(lived: tuple[Deployment, str]) -> Samples:
    """What the exporter said."""
    return parse(lived[1])


def test_the_whole_catalogue_is_there(shown: Samples) -> None:
    """Nothing that dashboards and alerts are written against is missing once it has happened."""
    for metric in (*CATALOGUE, *LEDGER_METRICS, *QUEUE_METRICS, UP, TOOK, BUILD):
        suffix = {"counter": "_total", "histogram": "_count"}.get(metric.kind, "")
        found = [dict(labels) for name, labels in shown if name == metric.name + suffix]
        assert found, metric.name
        assert all(set(labels) == set(metric.labels) for labels in found), metric.name


def test_promtool_accepts_it(lived: tuple[Deployment, str]) -> None:
    """Names, types, helps, units."""
    done = run("promtool", "check", "metrics", text=lived[1])
    assert done.returncode == 0, done.stdout


def test_events_are_counted(shown: Samples) -> None:
    """Without a rule are the two stored responses, and two operator events: an open circuit and dead letters."""
    for result, events in (("accepted", 56), ("duplicate", 1), ("unmatched", 1 + 2 + 2)):
        assert of(shown, "hub_events_accepted_total", result=result) == events, result


@pytest.mark.parametrize(
    ("service", "outcome", "attempts"),
    [("crm", "success", 21), ("billing", "http_4xx", 15), ("billing", "success", 1), ("lms", "success", 2)],
)
def test_attempts_are_counted_once_each(shown: Samples, service: str, outcome: str, attempts: int) -> None:
    """With one network try an attempt, both say the same."""
    for name in ("hub_dispatch_attempts_total", "hub_network_tries_total"):
        assert of(shown, name, service=service, outcome=outcome) == attempts, name
    if outcome != "success":
        assert of(shown, "hub_dispatch_failures_total", service=service, reason=outcome) == attempts


@pytest.mark.parametrize("service", ["crm", "billing", "erp", "lms"])
def test_what_never_happened_is_zero(shown: Samples, service: str) -> None:
    """So that `increase()` sees the first failure."""
    assert of(shown, "hub_dispatch_attempts_total", service=service, outcome="fault") == 0
    assert {dict(labels)["outcome"] for name, labels in shown if name == "hub_dispatch_attempts_total"} == set(OUTCOMES)
    assert of(shown, "hub_dead_letters_total", service=service, reason="expired") == 0
    assert of(shown, "hub_tasks", service=service, state="held") == 0
    consumes = of(shown, "hub_consumer_runs_total", service=service, outcome="error")
    assert consumes == (0 if service == "lms" else None), "only who has a response queue"


def test_tasks_that_ended_are_counted(shown: Samples) -> None:
    for service, outcome, ended in (
        ("crm", "delivered", 21),
        ("billing", "delivered", 1),
        ("lms", "delivered", 2),
        ("billing", "dead", 3),
        ("erp", "delivered", 0),
        ("erp", "cancelled", 1),
        ("erp", "dead", 0),
    ):
        assert of(shown, "hub_tasks_finished_total", service=service, outcome=outcome) == ended, (service, outcome)
    assert of(shown, "hub_dead_letters_total", service="billing", reason="attempts") == 3
    assert of(shown, "hub_dead_letter_replays_total", service="billing") == 1
    assert of(shown, "hub_dead_letters", service="billing") == 2 and of(shown, "hub_dead_letters", service="crm") == 0
    assert 0 < (of(shown, "hub_oldest_dead_letter_age_seconds", service="billing") or 0) < 300
    assert of(shown, "hub_retries_scheduled_total", service="billing") == 12


def test_times_are_measured(shown: Samples) -> None:
    """Each claim waits, each attempt takes, each delivery has a whole way."""
    assert of(shown, "hub_dispatch_attempt_duration_seconds_count", service="crm") == 21
    assert of(shown, "hub_task_queue_wait_seconds_count", service="crm") == 21
    assert of(shown, "hub_task_end_to_end_seconds_count", service="crm") == 21
    assert of(shown, "hub_task_end_to_end_seconds_count", service="billing") == 1
    assert 0 < (of(shown, "hub_dispatch_attempt_duration_seconds_sum", service="crm") or 0) < 60


def test_a_circuit_opened_and_the_rest_was_parked(shown: Samples, lived: tuple[Deployment, str]) -> None:
    """An attempt more than the threshold may have been under way; nobody else's circuit moved."""
    attempts = of(shown, "hub_dispatch_attempts_total", service="erp", outcome="connect_error")
    assert attempts == lived[0].away and attempts >= 2
    assert of(shown, "hub_breaker_transitions_total", service="erp", from_state="closed", to_state="open") == 1
    assert total(shown, "hub_breaker_transitions_total") == 1
    assert of(shown, "hub_breaker_state", service="erp", state="open") == 1
    assert of(shown, "hub_breaker_state", service="erp", state="closed") == 0
    assert of(shown, "hub_breaker_state", service="crm", state="closed") == 1
    assert (of(shown, "hub_breaker_parked_total", service="erp") or 0) >= 1
    assert total(shown, "hub_tasks", service="erp") == 29 and total(shown, "hub_tasks") == 29


def test_the_response_queue_was_drained(shown: Samples) -> None:
    assert of(shown, "hub_consumer_runs_total", service="lms", outcome="ok") == 1
    assert of(shown, "hub_consumer_messages_total", service="lms", outcome="stored") == 2
    assert of(shown, "hub_consumer_messages_total", service="lms", outcome="malformed") == 1
    assert of(shown, "hub_consumer_run_duration_seconds_count", service="lms") == 1
    assert time.time() - (of(shown, "hub_consumer_last_success_timestamp_seconds", service="lms") or 0) < 300
    assert total(shown, "hub_consumer_last_success_timestamp_seconds", service="crm") == 0


def test_every_component_shows_life(shown: Samples) -> None:
    """The scheduler's is a tick that the broker has taken."""
    beats = {dict(labels)["component"]: v for (n, labels), v in shown.items() if n == "hub_heartbeat_timestamp_seconds"}
    assert set(beats) == {"worker", "web", "scheduler", "releaser"}
    assert all(time.time() - at < 300 for at in beats.values())
    assert sources(shown) == {"ledger": 1, "processes": 1, "rabbitmq": 1}


def test_pools_are_added_up_by_kind_of_process(shown: Samples, lived: tuple[Deployment, str]) -> None:
    """Two worker processes, one web; the scheduler has ended, and so has its pool."""
    pool = lived[0].site.settings.db_pool
    most = {dict(labels)["process"]: v for (n, labels), v in shown.items() if n == "hub_db_pool_max_connections"}
    assert most == {"worker": 2 * pool, "web": pool}
    for process, maximum in most.items():
        assert 0 <= (of(shown, "hub_db_pool_connections", process=process) or 0) <= maximum


def test_every_queue_is_looked_at(shown: Samples, lived: tuple[Deployment, str]) -> None:
    """Each with its dead letters; a queue for delayed messages does not exist, so it is not shown as empty."""
    prefix = lived[0].site.settings.queue_prefix
    depth = {dict(labels)["queue"]: v for (n, labels), v in shown.items() if n == "hub_queue_depth"}
    assert depth == {f"{prefix}.{kind}{end}": 0 for kind in ("dispatch", "consume", "tick") for end in ("", ".XQ")}
    assert of(shown, "hub_queue_consumers", queue=f"{prefix}.dispatch") == 2


def state_of(shown: Samples) -> dict[str, float | None]:
    """What the kill test looks at."""
    return {
        "attempts": of(shown, "hub_dispatch_attempts_total", service="crm", outcome="success"),
        "pending": of(shown, "hub_tasks", service="crm", state="pending"),
        "consumers": of(shown, "hub_queue_consumers", queue="hub.dispatch"),
        "pool": of(shown, "hub_db_pool_max_connections", process="worker"),
    }


@pytest.mark.fault
def test_workers_broker_and_database_die_in_turn(
    postgres: PostgresServer, rabbitmq: RabbitNode, tmp_path: Path
) -> None:
    """What is unknown is absent, what is known is right, at every step; then all comes back by itself."""
    settings = Settings(
        database_url=postgres.url,
        broker_url=rabbitmq.url,
        secret_keys=KEY,
        worker_lease="3s",
        republish_after="1s",
        home=tmp_path,
        db_pool=4,
    )
    all_up = {"ledger": 1.0, "processes": 1.0, "rabbitmq": 1.0}
    with deployment(settings, tmp_path, "worker", "exporter", processes=1) as it:
        add_service(it.hub, it.target.url)
        add_rule(it.hub)
        emit_many(it.hub, 10)
        known: dict[str, float | None] = {"attempts": 10, "pending": 0, "consumers": 1, "pool": 4}
        eventually(lambda: state_of(it.shown()) == known, what="ten deliveries")

        it.site.kill("worker")
        emit_many(it.hub, 7, start=10)
        known |= {"pending": 7, "consumers": 0, "pool": None}
        eventually(lambda: state_of(it.shown()) == known, what="RabbitMQ's notice that they are gone")
        assert sources(it.shown()) == all_up
        assert (of(it.shown(), "hub_oldest_due_task_age_seconds", service="crm") or 0) > 0

        rabbitmq.kill()
        known |= {"consumers": None}
        shown = it.shown()
        assert state_of(shown) == known and sources(shown) == all_up | {"rabbitmq": 0.0}
        assert "hub_queue_depth" not in names(shown)

        postgres.stop()
        known |= {"pending": None}
        shown = it.shown()
        assert state_of(shown) == known and sources(shown) == all_up | {"rabbitmq": 0.0, "ledger": 0.0}
        assert not names(shown) & {metric.name for metric in LEDGER_METRICS}

        rabbitmq.start()
        known |= {"consumers": 0}
        eventually(lambda: state_of(it.shown()) == known, "the broker's return, whatever the ledger does")
        postgres.start()
        it.site.start("worker", "--processes", "1", "--threads", "4")
        known = {"attempts": 17, "pending": 0, "consumers": 1, "pool": 4}
        eventually(lambda: state_of(it.shown()) == known, what="the seven that waited")
        assert sources(it.shown()) == all_up
        assert len(it.target.seen) == 17, "no attempt was under way when they were killed"


@pytest.mark.fault
def test_counters_agree_with_ledger_and_service_after_kills(settings: Settings, tmp_path: Path) -> None:
    """To within the attempts under way at each kill; gauges agree exactly."""
    settings = settings.model_copy(update={"worker_lease": 1.5, "metrics_dir": tmp_path / "metrics"})
    with HttpTarget() as target, build(settings, role="web") as hub:
        add_service(hub, target.url, cb_failure_threshold=0)
        add_rule(hub)
        failed: set[int] = set()

        def answer(seen: Seen) -> int:
            number = seen.json()["n"]
            if number % 3 or number in failed:
                return 204
            failed.add(number)
            return 500

        target.default = answer
        under_way = 0
        for least in (100, 400):
            emit_many(hub, 300, start=3 * least)
            with workers(settings, threads=8) as group:
                eventually(lambda least=least: len(target.seen) > least, "the middle of it")  # type: ignore[misc]
                group.kill()
            under_way += count(hub, "running")  # begun by the dead, and settled by nobody
        with workers(settings, threads=8):
            eventually(lambda: count(hub, "tasks") == 0, "the end of every task")
        assert count(hub, "delivered") == 600 and count(hub, "dead_letters") == 0
        scraper = make_scraper(settings, hub.db, hub.queues.values())
        shown = parse(scraper.render())
        scraper.close()
    attempts, finished = total(shown, "hub_dispatch_attempts_total"), total(shown, "hub_tasks_finished_total")
    assert len(target.seen) - under_way <= attempts <= len(target.seen)
    assert abs(finished - 600) <= under_way
    assert total(shown, "hub_tasks") == 0 and total(shown, "hub_dead_letters") == 0
