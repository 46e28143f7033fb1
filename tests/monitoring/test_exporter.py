"""State gauges are right whoever is dead, and a source that is away takes nothing with it."""

from __future__ import annotations

import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pika
import pytest

from hub.monitoring.collectors.base import family
from hub.monitoring.collectors.ledger import LedgerSource
from hub.monitoring.collectors.queues import InProcessSource, RabbitSource
from hub.monitoring.exposition import UP, Scraper, make_counter_scraper
from hub.monitoring.prometheus_hooks import PrometheusHooks
from hub.programs.exporter import Exporter
from hub.settings import Settings
from hub.store.database import Database
from hub.store.state import State
from tests.monitoring.conftest import Samples, names, of, parse
from tests.support.waiting import eventually

TASKS = """
INSERT INTO tasks (event_id, rule_id, service_id, state, next_run_at, expires_at)
SELECT 1, r.id, r.service_id, %s, now() - make_interval(secs => %s), now() + interval '1 day'
FROM rules r, generate_series(1, %s) WHERE r.name = %s
"""


def ledger(db: Database) -> Samples:
    """`/metrics` of the ledger alone."""
    return parse(Scraper([LedgerSource(State(db))]).render())


def tasks(shown: Samples, service: str) -> dict[str, float | None]:
    """`hub_tasks` of one service by state."""
    states = ("pending", "running", "delayed", "held")
    return {state: of(shown, "hub_tasks", service=service, state=state) for state in states}


def test_tasks_are_counted_as_people_see_them(db: Database) -> None:
    """Queued is pending; what nobody will run is held, whatever its state says; due but not yet promoted is delayed."""
    for state, age, count, rule in (
        ("pending", 100, 2, "to-crm"),
        ("queued", 400, 3, "to-crm"),
        ("running", 0, 4, "to-crm"),
        ("delayed", 50, 5, "to-crm"),
        ("pending", 900, 6, "off-crm"),
        ("queued", 900, 1, "off-crm"),
        ("running", 0, 1, "off-crm"),
        ("delayed", 0, 7, "to-old"),
    ):
        db.run(TASKS, [state, age, count, rule])
    shown = ledger(db)
    assert tasks(shown, "crm") == {"pending": 5, "running": 5, "delayed": 5, "held": 7}
    assert tasks(shown, "lms") == {"pending": 0, "running": 0, "delayed": 0, "held": 0}
    assert tasks(shown, "old") == {"pending": 0, "running": 0, "delayed": 0, "held": 7}
    oldest = of(shown, "hub_oldest_due_task_age_seconds", service="crm")
    assert oldest is not None and 400 <= oldest < 460
    assert of(shown, "hub_oldest_due_task_age_seconds", service="lms") is None


def test_a_deleted_service_keeps_its_tasks_in_sight(db: Database) -> None:
    """Orphans wait for a person: they are held, and do not vanish with the service's other series."""
    db.run(TASKS, ["pending", 10, 3, "to-crm"])
    db.run("UPDATE services SET deleted_at = now() WHERE name = 'crm'")
    shown = ledger(db)
    assert of(shown, "hub_tasks", service="crm", state="held") == 3
    assert of(shown, "hub_breaker_state", service="crm", state="closed") is None
    assert of(shown, "hub_oldest_due_task_age_seconds", service="crm") is None


def test_breakers_are_one_hot(db: Database) -> None:
    """A dashboard takes `max by`; a circuit without a row has never failed, so it is closed."""
    db.run("INSERT INTO breakers (service_id, state) SELECT id, 'half_open' FROM services WHERE name = 'crm'")
    shown = ledger(db)
    for service, now_in in (("crm", "half_open"), ("lms", "closed")):
        for state in ("closed", "open", "half_open"):
            assert of(shown, "hub_breaker_state", service=service, state=state) == (state == now_in)


def test_dead_letters_consumers_and_heartbeats(db: Database) -> None:
    """Times are exported, not ages; what never happened is absent, not 0."""
    db.run(
        "INSERT INTO dead_letters (task_id, event_id, event_uid, event, event_data, rule_id, service_id, attempts,"
        " reason, accepted_at, created_at) SELECT i, 1, 'u', 'e', '{}', 1, s.id, 5, 'attempts', now(),"
        " now() - make_interval(hours => i) FROM services s, generate_series(1, 3) i WHERE s.name = 'crm'"
    )
    shown = ledger(db)
    assert of(shown, "hub_dead_letters", service="crm") == 3
    assert of(shown, "hub_dead_letters", service="lms") == 0
    age = of(shown, "hub_oldest_dead_letter_age_seconds", service="crm")
    assert age is not None and 3 * 3600 <= age < 3 * 3600 + 60
    assert of(shown, "hub_oldest_dead_letter_age_seconds", service="lms") is None
    assert not names(shown) & {"hub_heartbeat_timestamp_seconds", "hub_consumer_last_success_timestamp_seconds"}
    db.run("INSERT INTO heartbeats SELECT 'worker', i::text, to_timestamp(1000 + i) FROM generate_series(1, 3) i")
    db.run(
        "INSERT INTO consumer_state (service_id, last_success_at) SELECT id, to_timestamp(2000) FROM services"
        " WHERE name IN ('crm', 'lms')"
    )
    shown = ledger(db)
    assert of(shown, "hub_heartbeat_timestamp_seconds", component="worker") == 1003
    assert of(shown, "hub_consumer_last_success_timestamp_seconds", service="lms") == 2000
    assert of(shown, "hub_consumer_last_success_timestamp_seconds", service="crm") is None, "it has no response queue"


def test_queues_are_looked_at_where_they_are(broker_url: str, queue_prefix: str) -> None:
    """A queue that is not there is left out, and does not hide those after it."""
    one, two = f"{queue_prefix}.one", f"{queue_prefix}.two"
    connection = pika.BlockingConnection(pika.URLParameters(broker_url))
    channel = connection.channel()
    for queue in (two, f"{two}.XQ"):
        channel.queue_declare(queue)
    channel.confirm_delivery()
    for _ in range(3):
        channel.basic_publish("", two, b"x")
    source = RabbitSource(broker_url, [one, two])
    shown = parse(Scraper([source]).render())
    assert {dict(labels)["queue"] for name, labels in shown if name == "hub_queue_depth"} == {two, f"{two}.XQ"}
    assert of(shown, "hub_queue_depth", queue=two) == 3
    assert of(shown, "hub_queue_consumers", queue=two) == 0
    channel.basic_consume(f"{two}.XQ", lambda *_: None)
    assert of(parse(Scraper([source]).render()), "hub_queue_consumers", queue=f"{two}.XQ") == 1
    for queue in (two, f"{two}.XQ"):
        channel.queue_delete(queue)
    connection.close()
    source.close()


def test_the_in_process_broker_has_depths_too() -> None:
    """`hub up` shows the same panels."""
    shown = parse(Scraper([InProcessSource({"hub.dispatch": 4}.get, ["hub.dispatch"])]).render())
    assert of(shown, "hub_queue_depth", queue="hub.dispatch") == 4
    assert of(shown, "hub_queue_depth", queue="hub.dispatch.DQ") is None


def sources(shown: Samples) -> dict[str, float]:
    """Which sources are up."""
    return {dict(labels)["collector"]: value for (name, labels), value in shown.items() if name == UP.name}


class Stuck:
    """A source that hangs until it is let go."""

    name = "stuck"

    def __init__(self) -> None:
        self.go = threading.Event()
        self.calls = 0

    def collect(self) -> list[object]:
        self.calls += 1
        self.go.wait()
        return []

    def close(self) -> None: ...


class Fine:
    name = "fine"

    def collect(self) -> list[object]:
        return [family(UP)]

    def close(self) -> None: ...


def test_a_source_that_hangs_costs_its_own_series_only() -> None:
    """A server that answers nothing at all must not cost the whole scrape, nor pile up threads."""
    stuck = Stuck()
    scraper = Scraper([stuck, Fine()], deadline=0.1)  # type: ignore[list-item]
    for _ in range(3):
        assert sources(parse(scraper.render())) == {"stuck": 0.0, "fine": 1.0}
    assert stuck.calls == 1
    stuck.go.set()
    eventually(lambda: sources(parse(scraper.render()))["stuck"] == 1.0)


@pytest.fixture
def exporter() -> Iterator[Exporter]:
    """An exporter with a token."""
    server = Exporter(Scraper([]), "127.0.0.1:0", "s3cret")
    server.start()
    yield server
    server.stop()


def ask(address: str, path: str, token: str | None = None) -> tuple[int, str]:
    """Status and body."""
    request = urllib.request.Request(f"http://{address}{path}", headers={"Authorization": token} if token else {})
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as e:
        with e:
            return e.code, e.read().decode()


def test_metrics_ask_for_the_token(exporter: Exporter) -> None:
    """Names of services are nobody's business; a health check needs no secret."""
    assert ask(exporter.address, "/metrics")[0] == 401
    assert ask(exporter.address, "/metrics", "Bearer wrong")[0] == 401
    status, body = ask(exporter.address, "/metrics", "Bearer s3cret")
    assert status == 200 and "hub_build_info" in body
    assert ask(exporter.address, "/healthz") == (200, "ok\n")
    assert ask(exporter.address, "/")[0] == 404


def test_openmetrics_is_served_to_those_who_ask_for_it(exporter: Exporter) -> None:
    headers = {"Authorization": "Bearer s3cret", "Accept": "application/openmetrics-text;version=1.0.0,*/*;q=0.1"}
    request = urllib.request.Request(f"http://{exporter.address}/metrics", headers=headers)
    with urllib.request.urlopen(request, timeout=120) as answer:
        assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
        assert answer.read().endswith(b"# EOF\n")


def test_a_sidecar_shows_the_counters_of_its_machine_and_nothing_else(tmp_path: Path) -> None:
    """25 sidecars that all repeat the state made 490,000 series and 25 reads of the ledger a scrape."""
    hooks = PrometheusHooks(tmp_path)
    hooks.retry_scheduled("crm")
    hooks.close()
    settings = Settings(PROMETHEUS_MULTIPROC_DIR=str(tmp_path), exporter_sources="counters")
    scraper = make_counter_scraper(settings)
    shown = parse(scraper.render())
    scraper.close()
    assert sources(shown) == {"processes": 1.0}
    assert of(shown, "hub_retries_scheduled_total", service="crm") == 1
    assert not {"hub_tasks", "hub_breaker_state", "hub_queue_depth", "hub_heartbeat_timestamp_seconds"} & names(shown)


@pytest.mark.fault
def test_the_process_starts_without_its_servers(hub_env: dict[str, str], tmp_path: Path) -> None:
    """The eyes must be open when everything else is down, and name no password."""
    env = hub_env | {
        "HUB_DATABASE_URL": "postgresql://u:dbpass@127.0.0.1:1/x",
        "HUB_BROKER_URL": "amqp://u:mqpass@127.0.0.1:1/",
        "HUB_EXPORTER_LISTEN": "127.0.0.1:0",
        "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "metrics"),
        "HUB_LOG_FORMAT": "json",
    }
    code = "from hub.programs.exporter import serve; from hub.settings import load_settings; serve(load_settings())"
    with subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        line = process.stdout.readline()
        address = line.partition("http://")[2].partition("/metrics")[0]
        status, body = ask(address, "/metrics")
        assert status == 200
        assert sources(parse(body)) == {"ledger": 0.0, "rabbitmq": 0.0, "processes": 1.0}
        process.terminate()
        rest = process.stdout.read()
        assert process.wait() == 0
    assert "dbpass" not in line + rest + body and "mqpass" not in line + rest + body


def test_a_delay_queue_is_seen_if_somebody_made_one(broker_url: str, queue_prefix: str) -> None:
    """The hub makes none; asking for it at every scrape would fill RabbitMQ's log with errors."""
    queue, now = f"{queue_prefix}.one", [0.0]
    source = RabbitSource(broker_url, [queue], clock=lambda: now[0])

    def depths() -> set[str]:
        shown = parse(Scraper([source]).render())
        return {dict(labels)["queue"] for name, labels in shown if name == "hub_queue_depth"}

    assert depths() == set()
    connection = pika.BlockingConnection(pika.URLParameters(broker_url))
    channel = connection.channel()
    for name in (queue, f"{queue}.DQ"):
        channel.queue_declare(name)
    assert depths() == {queue}, "not asked again so soon"
    now[0] = 301.0
    assert depths() == {queue, f"{queue}.DQ"}
    for name in (queue, f"{queue}.DQ"):
        channel.queue_delete(name)
    connection.close()
    source.close()
