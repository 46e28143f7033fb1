"""Counters: what business code reports is what `/metrics` shows, whoever died meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client import Metric as Family
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from hub.hooks import Hooks
from hub.monitoring.collectors.base import family
from hub.monitoring.collectors.counters import ProcessSource
from hub.monitoring.collectors.ledger import LedgerSource
from hub.monitoring.exposition import (
    BUILD,
    CONTENT_TYPE_LATEST,
    OPENMETRICS,
    Scraper,
    exposition,
)
from hub.monitoring.metrics import CATALOGUE
from hub.monitoring.prometheus_hooks import PrometheusHooks
from hub.monitoring.value_files import empty, read
from hub.programs.up import up
from hub.settings import Settings
from hub.store.database import Database
from hub.store.state import State
from tests.monitoring.conftest import KEY, Samples, names, of, parse
from tests.support.prometheus import run


def everything(hooks: Hooks) -> None:
    """Call each hook once."""
    for result in ("accepted", "duplicate", "unmatched"):
        hooks.event_accepted(result, 2)
    hooks.attempt_finished("crm", "success", 0.02)
    hooks.attempt_finished("crm", "http_5xx", 70.0)
    hooks.try_finished("crm", "timeout")
    hooks.queue_wait("crm", 0.3)
    hooks.retry_scheduled("crm")
    hooks.task_finished("crm", "delivered", 12.0)
    hooks.task_finished("crm", "cancelled", count=3)
    hooks.dead_letter("crm", "attempts")
    hooks.dead_letter_replayed("crm", 4)
    hooks.breaker_changed("crm", "closed", "open")
    hooks.parked("crm")
    hooks.locked_out("crm")
    hooks.consumer_run("lms", "ok", 1.5)
    hooks.consumer_messages("lms", "stored", 7)
    hooks.message_rejected("dispatch", "not_json")
    hooks.pool("worker", 3, 8)
    hooks.worker_threads(5, 64)


def scrape(folder: Path, services: list[str] | None = None, consumers: list[str] | None = None) -> Samples:
    """`/metrics` of the processes alone."""
    source = ProcessSource(folder, lambda: (services or [], consumers or []))
    return parse(Scraper([source]).render())


def test_each_hook_has_its_metric(tmp_path: Path) -> None:
    """Dashboards and alerts are written against these names and labels."""
    hooks = PrometheusHooks(tmp_path)
    everything(hooks)
    shown = scrape(tmp_path)
    assert of(shown, "hub_events_accepted_total", result="duplicate") == 2
    assert of(shown, "hub_dispatch_attempts_total", service="crm", outcome="success") == 1
    assert of(shown, "hub_dispatch_failures_total", service="crm", reason="http_5xx") == 1
    assert of(shown, "hub_dispatch_failures_total", service="crm", reason="success") is None
    assert of(shown, "hub_network_tries_total", service="crm", outcome="timeout") == 1
    assert of(shown, "hub_dispatch_attempt_duration_seconds_bucket", service="crm", le="0.025") == 1
    assert of(shown, "hub_dispatch_attempt_duration_seconds_bucket", service="crm", le="60.0") == 1
    assert of(shown, "hub_dispatch_attempt_duration_seconds_bucket", service="crm", le="+Inf") == 2
    assert of(shown, "hub_dispatch_attempt_duration_seconds_count", service="crm") == 2
    assert of(shown, "hub_dispatch_attempt_duration_seconds_sum", service="crm") == pytest.approx(70.02)
    assert of(shown, "hub_task_queue_wait_seconds_count", service="crm") == 1
    assert of(shown, "hub_task_end_to_end_seconds_sum", service="crm") == 12
    assert of(shown, "hub_retries_scheduled_total", service="crm") == 1
    assert of(shown, "hub_tasks_finished_total", service="crm", outcome="cancelled") == 3
    assert of(shown, "hub_dead_letters_total", service="crm", reason="attempts") == 1
    assert of(shown, "hub_dead_letter_replays_total", service="crm") == 4
    assert of(shown, "hub_breaker_transitions_total", service="crm", from_state="closed", to_state="open") == 1
    assert of(shown, "hub_breaker_parked_total", service="crm") == 1
    assert of(shown, "hub_secrets_unreadable_total", service="crm") == 1
    assert of(shown, "hub_consumer_runs_total", service="lms", outcome="ok") == 1
    assert of(shown, "hub_consumer_messages_total", service="lms", outcome="stored") == 7
    assert of(shown, "hub_consumer_run_duration_seconds_count", service="lms") == 1
    assert of(shown, "hub_broker_messages_rejected_total", queue="dispatch", reason="not_json") == 1
    assert of(shown, "hub_db_pool_connections", process="worker") == 3
    assert of(shown, "hub_db_pool_max_connections", process="worker") == 8
    assert (of(shown, "hub_worker_threads_busy"), of(shown, "hub_worker_threads")) == (5, 64)
    hooks.close()


def test_every_hook_is_counted() -> None:
    """A hook that somebody adds must not be forgotten here."""
    own = {name for name in vars(Hooks) if not name.startswith("_")}
    assert own <= set(vars(PrometheusHooks))


def test_known_services_start_at_zero(tmp_path: Path) -> None:
    """`increase()` sees a first failure only when the series was there before it."""
    shown = scrape(tmp_path, ["crm", "lms"], ["lms"])
    assert of(shown, "hub_dispatch_failures_total", service="crm", reason="timeout") == 0
    assert of(shown, "hub_dead_letters_total", service="crm", reason="expired") == 0
    assert of(shown, "hub_events_accepted_total", result="accepted") == 0
    assert of(shown, "hub_broker_messages_rejected_total", queue="tick", reason="too_large") == 0
    assert of(shown, "hub_consumer_runs_total", service="lms", outcome="error") == 0
    assert of(shown, "hub_consumer_runs_total", service="crm", outcome="error") is None, "it has no response queue"
    assert "hub_db_pool_connections" not in names(shown), "nobody knows that"


def test_promtool_has_nothing_to_say(tmp_path: Path, db: Database) -> None:
    """Prometheus' own linter knows the conventions for names, units and help texts."""
    hooks = PrometheusHooks(tmp_path)
    everything(hooks)
    ledger = LedgerSource(State(db))
    text = Scraper([ledger, ProcessSource(tmp_path, ledger.known)]).render().decode()
    shown = parse(text)
    assert {m.name for m in CATALOGUE if m.kind == "gauge"} <= names(shown)
    checked = run("promtool", "check", "metrics", text=text)
    assert (checked.returncode, checked.stdout) == (0, "")
    hooks.close()


def test_both_formats_have_the_same_series_and_are_clean(tmp_path: Path, db: Database) -> None:
    """Prometheus asks for OpenMetrics when it may: dashboards and alerts must find the same names in it."""
    hooks = PrometheusHooks(tmp_path)
    everything(hooks)
    ledger = LedgerSource(State(db))
    scraper = Scraper([ledger, ProcessSource(tmp_path, ledger.known)])
    kind, text = scraper.response("application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5")
    assert kind == OPENMETRICS and text.endswith(b"# EOF\n")
    open_families = list(openmetrics.text_string_to_metric_families(text.decode()))
    assert {f.type for f in open_families} >= {"counter", "gauge", "histogram"}
    kind, plain = scraper.response("text/plain, */*")
    assert kind == CONTENT_TYPE_LATEST

    def series(families: Iterable[Family]) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
        return {(s.name, tuple(sorted(s.labels.items()))) for f in families for s in f.samples}

    assert series(open_families) == series(text_string_to_metric_families(plain.decode()))
    assert {"hub_dead_letters", "hub_dead_letters_total"} <= {name for name, _ in series(open_families)}
    hooks.close()


_CHILD = """
import sys, time
from pathlib import Path
from hub.monitoring.prometheus_hooks import PrometheusHooks
hooks = PrometheusHooks(Path(sys.argv[1]))
for _ in range(int(sys.argv[2])):
    hooks.retry_scheduled("crm")
hooks.pool("worker", 2, 8)
print("counted", flush=True)
time.sleep(600)
"""


def child(folder: Path, count: int) -> subprocess.Popen[str]:
    """A process that counted so often, and still lives."""
    process = subprocess.Popen([sys.executable, "-c", _CHILD, folder, str(count)], stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "counted\n"
    return process


def kill(process: subprocess.Popen[str]) -> None:
    """SIGKILL: no handler runs."""
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.mark.fault
def test_counts_outlive_killed_processes_and_gauges_do_not(tmp_path: Path) -> None:
    """A counter that falls looks like a restart to Prometheus; a gauge of the dead looks like life."""
    first, second = child(tmp_path, 3), child(tmp_path, 4)
    shown = scrape(tmp_path)
    assert of(shown, "hub_retries_scheduled_total", service="crm") == 7
    assert of(shown, "hub_db_pool_connections", process="worker") == 4
    kill(first)
    shown = scrape(tmp_path)
    assert of(shown, "hub_retries_scheduled_total", service="crm") == 7
    assert of(shown, "hub_db_pool_connections", process="worker") == 2
    kill(second)
    shown = scrape(tmp_path)
    assert of(shown, "hub_retries_scheduled_total", service="crm") == 7
    assert "hub_db_pool_connections" not in names(shown)


@pytest.mark.fault
def test_a_successor_goes_on_in_the_files_of_the_dead(tmp_path: Path) -> None:
    """A worker that dies every minute for a week must not leave ten thousand files to read."""
    for _ in range(4):
        kill(child(tmp_path, 5))
    assert of(scrape(tmp_path), "hub_retries_scheduled_total", service="crm") == 20
    assert len(list(tmp_path.glob("counter_*.db"))) == 1


def test_a_fork_counts_in_files_of_its_own(tmp_path: Path) -> None:
    """Two processes in one mapped file would overwrite each other's counts."""
    hooks = PrometheusHooks(tmp_path)
    hooks.retry_scheduled("crm")
    pid = os.fork()
    if pid == 0:
        for _ in range(100):
            hooks.retry_scheduled("crm")
        os._exit(0)
    for _ in range(100):
        hooks.retry_scheduled("crm")
    os.waitpid(pid, 0)
    assert of(scrape(tmp_path), "hub_retries_scheduled_total", service="crm") == 201
    assert len(list(tmp_path.glob("counter_*.db"))) == 2
    hooks.close()


def test_threads_lose_no_count(tmp_path: Path) -> None:
    """Workers are threads."""
    hooks = PrometheusHooks(tmp_path)
    together = threading.Barrier(8)

    def work(_: int) -> None:
        together.wait()
        for _ in range(500):
            hooks.attempt_finished("crm", "timeout", 0.1)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    shown = scrape(tmp_path)
    assert of(shown, "hub_dispatch_failures_total", service="crm", reason="timeout") == 4000
    assert of(shown, "hub_dispatch_attempt_duration_seconds_count", service="crm") == 4000
    hooks.close()


def test_a_deployment_empties_the_folder_and_a_process_does_not(tmp_path: Path) -> None:
    """Counts of living processes are not another's to throw away."""
    hooks = PrometheusHooks(tmp_path)
    hooks.retry_scheduled("crm")
    assert not empty(tmp_path)
    assert of(scrape(tmp_path), "hub_retries_scheduled_total", service="crm") == 1
    hooks.close()
    assert empty(tmp_path)
    assert read(tmp_path) == {}


def test_a_torn_file_is_left_behind(tmp_path: Path) -> None:
    """After a power failure the hub must start; what it had counted until then is gone."""
    (tmp_path / "counter_0.db").write_bytes(b"\xff\x00\x01\x00" + b"\x07" * 300)
    hooks = PrometheusHooks(tmp_path)
    hooks.retry_scheduled("crm")
    assert of(scrape(tmp_path), "hub_retries_scheduled_total", service="crm") == 1
    hooks.close()


def test_a_folder_that_cannot_be_written_stops_no_delivery(tmp_path: Path) -> None:
    """Hooks must not raise: the event path would take it for a failure."""
    (tmp_path / "file").write_text("")
    everything(PrometheusHooks(tmp_path / "file" / "metrics"))


def test_it_is_written_as_the_library_writes_it(tmp_path: Path, db: Database) -> None:
    """To the byte, whatever a service is called; only sooner."""
    odd = 'say "hi"\\\n\tü'
    hooks = PrometheusHooks(tmp_path)
    everything(hooks)
    for seconds in (0.1, 1e-9, 1e17, 12345678.9):
        hooks.attempt_finished(odd, "success", seconds)
    source = ProcessSource(tmp_path, lambda: (["crm", odd], [odd]))
    families = [*source.collect(), *LedgerSource(State(db)).collect(), family(BUILD, [(("1.2",), 1.0)])]
    registry = CollectorRegistry()

    class Same(Collector):
        def collect(self) -> list[Family]:
            return families

    registry.register(Same())
    assert exposition(families) == generate_latest(registry)
    hooks.close()


def test_hub_up_starts_its_counters_afresh(database_url: str, tmp_path: Path) -> None:
    """It is its own deployment. Counters of a month ago are nobody's."""
    settings = Settings(database_url=database_url, home=tmp_path, secret_keys=KEY, listen="127.0.0.1:0", threads=2)
    before = PrometheusHooks(settings.metrics_folder)
    before.retry_scheduled("gone")
    before.close()
    stop = threading.Event()
    stop.set()
    assert up(settings, announce=lambda _: None, stop=stop) == 0
    assert of(scrape(settings.metrics_folder), "hub_retries_scheduled_total", service="gone") is None
