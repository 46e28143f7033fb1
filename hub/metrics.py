"""Every metric name, and the hooks that count. Business code knows neither: it calls `hub.hooks.Hooks`.

Nothing happens at import: `PrometheusHooks(folder)` counts into files that the exporter adds up. Labels are
bounded: never ids, addresses, host names, pids or error texts.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import structlog
from prometheus_client.utils import floatToGoString

from hub.hooks import Hooks
from hub.metric_files import ProcessFiles, key

log = structlog.get_logger("hub.metrics")

OUTCOMES = (
    "success", "http_4xx", "http_5xx", "timeout", "connect_error", "unroutable", "invalid_payload", "fault",
)  # fmt: skip
REASONS = OUTCOMES[1:]
TRANSITIONS = (
    ("closed", "open"), ("open", "half_open"), ("half_open", "closed"), ("half_open", "open"), ("open", "closed"),
)  # fmt: skip


@dataclass(frozen=True)
class Metric:
    """One metric family.

    Args:
        known: values of the labels after `service` (or of all labels) that exist before anything happened.
        buckets: upper bounds of a histogram in seconds.
    """

    name: str
    kind: str
    text: str
    labels: tuple[str, ...] = ()
    known: tuple[tuple[str, ...], ...] = ()
    buckets: tuple[float, ...] = ()


def _each(*values: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    return tuple(product(*values))


_NONE: tuple[tuple[str, ...], ...] = ((),)
EVENTS = Metric(
    "hub_events_accepted",
    "counter",
    "Events taken in, by what became of them.",
    ("result",),
    _each(("accepted", "duplicate", "unmatched")),
)
ATTEMPTS = Metric(
    "hub_dispatch_attempts", "counter", "Attempts that ran to their end.", ("service", "outcome"), _each(OUTCOMES)
)
FAILURES = Metric(
    "hub_dispatch_failures", "counter", "Attempts that failed, by reason.", ("service", "reason"), _each(REASONS)
)
TRIES = Metric(
    "hub_network_tries",
    "counter",
    "Network sends, several within one attempt.",
    ("service", "outcome"),
    _each(OUTCOMES),
)
DURATION = Metric(
    "hub_dispatch_attempt_duration_seconds",
    "histogram",
    "How long an attempt took.",
    ("service",),
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
WAIT = Metric(
    "hub_task_queue_wait_seconds",
    "histogram",
    "From when a task was due until it was claimed.",
    ("service",),
    buckets=(0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 30, 60, 300, 900, 1800),
)
END_TO_END = Metric(
    "hub_task_end_to_end_seconds",
    "histogram",
    "From when an event was accepted until delivered.",
    ("service",),
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 120, 300, 900, 3600, 14400, 86400),
)
RETRIES = Metric("hub_retries_scheduled", "counter", "Failed attempts that another one follows.", ("service",), _NONE)
FINISHED = Metric(
    "hub_tasks_finished",
    "counter",
    "Tasks that ended.",
    ("service", "outcome"),
    _each(("delivered", "dead", "cancelled")),
)
DEAD = Metric(
    "hub_dead_letters",
    "counter",
    "Tasks that went to the dead-letter queue.",
    ("service", "reason"),
    _each(("attempts", "expired", "worker_lost")),
)
REPLAYS = Metric("hub_dead_letter_replays", "counter", "Dead letters that a person replayed.", ("service",), _NONE)
BREAKER = Metric(
    "hub_breaker_transitions",
    "counter",
    "Moves of a circuit breaker.",
    ("service", "from_state", "to_state"),
    TRANSITIONS,
)
PARKED = Metric(
    "hub_breaker_parked", "counter", "Tasks that met an open circuit and were given back.", ("service",), _NONE
)
CONSUMER_RUNS = Metric(
    "hub_consumer_runs",
    "counter",
    "Runs over a response queue.",
    ("service", "outcome"),
    _each(("ok", "error", "skipped")),
)
CONSUMED = Metric(
    "hub_consumer_messages",
    "counter",
    "Messages taken from a response queue.",
    ("service", "outcome"),
    _each(("stored", "malformed")),
)
CONSUMER_TIME = Metric(
    "hub_consumer_run_duration_seconds",
    "histogram",
    "How long a run over a response queue took.",
    ("service",),
    buckets=(0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60),
)
POOL = Metric("hub_db_pool_connections", "gauge", "Database connections in use.", ("process",))
POOL_MAX = Metric("hub_db_pool_max_connections", "gauge", "Database connections allowed.", ("process",))

CATALOGUE = (
    EVENTS,
    ATTEMPTS,
    FAILURES,
    TRIES,
    DURATION,
    WAIT,
    END_TO_END,
    RETRIES,
    FINISHED,
    DEAD,
    REPLAYS,
    BREAKER,
    PARKED,
    CONSUMER_RUNS,
    CONSUMED,
    CONSUMER_TIME,
    POOL,
    POOL_MAX,
)
CONSUMER = (CONSUMER_RUNS, CONSUMED)  # start at 0 only for services with a response queue


class PrometheusHooks(Hooks):
    """Counts what happened into this process's files.

    Args:
        folder: `PROMETHEUS_MULTIPROC_DIR`, shared with the exporter.
    """

    def __init__(self, folder: Path) -> None:
        self._files = ProcessFiles(folder)
        self._keys: dict[tuple[str, ...], list[str]] = {}
        self._broken = False
        self._lock = threading.Lock()

    def event_accepted(self, result: str, count: int = 1) -> None:
        self._count(EVENTS, count, result)

    def attempt_finished(self, service: str, outcome: str, seconds: float) -> None:
        self._count(ATTEMPTS, 1, service, outcome)
        if outcome != "success":
            self._count(FAILURES, 1, service, outcome)
        self._observe(DURATION, seconds, service)

    def try_finished(self, service: str, outcome: str) -> None:
        self._count(TRIES, 1, service, outcome)

    def queue_wait(self, service: str, seconds: float) -> None:
        self._observe(WAIT, seconds, service)

    def retry_scheduled(self, service: str) -> None:
        self._count(RETRIES, 1, service)

    def task_finished(self, service: str, outcome: str, seconds: float | None = None, count: int = 1) -> None:
        self._count(FINISHED, count, service, outcome)
        if seconds is not None:
            self._observe(END_TO_END, seconds, service)

    def dead_letter(self, service: str, reason: str) -> None:
        self._count(DEAD, 1, service, reason)

    def dead_letter_replayed(self, service: str, count: int = 1) -> None:
        self._count(REPLAYS, count, service)

    def breaker_changed(self, service: str, from_state: str, to_state: str) -> None:
        self._count(BREAKER, 1, service, from_state, to_state)

    def parked(self, service: str) -> None:
        self._count(PARKED, 1, service)

    def consumer_run(self, service: str, outcome: str, seconds: float) -> None:
        self._count(CONSUMER_RUNS, 1, service, outcome)
        if outcome != "skipped":
            self._observe(CONSUMER_TIME, seconds, service)

    def consumer_messages(self, service: str, outcome: str, count: int) -> None:
        self._count(CONSUMED, count, service, outcome)

    def pool(self, process: str, used: int, maximum: int) -> None:
        for metric, value in ((POOL, used), (POOL_MAX, maximum)):
            self._safely(lambda m=metric, v=value: self._files.set(self._names(m, (process,))[0], v))  # type: ignore[misc]

    def known_services(self, names: list[str]) -> None:
        """Nothing to do here: the exporter knows the services, and shows 0 for what never happened."""

    def close(self) -> None:
        """Give the files to whoever comes next."""
        self._safely(self._files.close)

    def _count(self, metric: Metric, amount: float, *values: str) -> None:
        if amount:
            self._safely(lambda: self._files.add("counter", ((self._names(metric, values)[0], amount),)))

    def _observe(self, metric: Metric, seconds: float, *values: str) -> None:
        def write() -> None:
            names = self._names(metric, values)
            place = bisect_left(metric.buckets, seconds)
            self._files.add("histogram", ((names[place], 1.0), (names[-1], seconds)))

        self._safely(write)

    def _names(self, metric: Metric, values: tuple[str, ...]) -> list[str]:
        """The keys of a metric's numbers: one, or a histogram's buckets with +Inf and then the sum."""
        found = self._keys.get((metric.name, *values))
        if found is None:
            labels = dict(zip(metric.labels, values, strict=True))
            if metric.kind == "histogram":
                bounds = [floatToGoString(b) for b in (*metric.buckets, float("inf"))]
                found = [key(metric.name, f"{metric.name}_bucket", labels | {"le": b}, metric.text) for b in bounds]
                found.append(key(metric.name, f"{metric.name}_sum", labels, metric.text))
            else:
                sample = metric.name + ("_total" if metric.kind == "counter" else "")
                found = [key(metric.name, sample, labels, metric.text)]
            self._keys[(metric.name, *values)] = found
        return found

    def _safely(self, write: Callable[[], None]) -> None:
        """A full disk must not stop a delivery: say so once, and go on."""
        try:
            write()
            self._broken = False
        except Exception:
            if not self._broken:
                log.warning("metrics cannot be written", exc_info=True)
            self._broken = True
