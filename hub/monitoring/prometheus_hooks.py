"""Hooks that count events into the value files of this process."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from pathlib import Path

import structlog
from prometheus_client.utils import floatToGoString

from hub.hooks import Hooks
from hub.monitoring.metrics import (
    ATTEMPTS,
    AUTH,
    BREAKER,
    CONSUMED,
    CONSUMER_RUNS,
    CONSUMER_TIME,
    DEAD,
    DURATION,
    END_TO_END,
    EVENTS,
    FAILURES,
    FINISHED,
    LOCKED_OUT,
    PARKED,
    POOL,
    POOL_MAX,
    REJECTED,
    REPLAYS,
    RETRIES,
    THREADS,
    THREADS_BUSY,
    TRIES,
    WAIT,
    Metric,
)
from hub.monitoring.value_files import ProcessFiles, key

log = structlog.get_logger("hub.monitoring.prometheus_hooks")


class PrometheusHooks(Hooks):
    """Counts into the value files of this process.

    Args:
        folder: `PROMETHEUS_MULTIPROC_DIR`, shared with the exporter.
    """

    def __init__(self, folder: Path) -> None:
        self._files = ProcessFiles(folder)
        self._keys: dict[tuple[str, ...], list[str]] = {}
        self._broken = False

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

    def locked_out(self, service: str) -> None:
        self._count(LOCKED_OUT, 1, service)

    def consumer_run(self, service: str, outcome: str, seconds: float) -> None:
        self._count(CONSUMER_RUNS, 1, service, outcome)
        if outcome != "skipped":
            self._observe(CONSUMER_TIME, seconds, service)

    def consumer_messages(self, service: str, outcome: str, count: int) -> None:
        self._count(CONSUMED, count, service, outcome)

    def auth_event(self, event: str, result: str) -> None:
        self._count(AUTH, 1, event, result)

    def message_rejected(self, queue: str, reason: str) -> None:
        self._count(REJECTED, 1, queue, reason)

    def pool(self, process: str, used: int, maximum: int) -> None:
        self._set(POOL, used, process)
        self._set(POOL_MAX, maximum, process)

    def worker_threads(self, busy: int, threads: int) -> None:
        self._set(THREADS_BUSY, busy)
        self._set(THREADS, threads)

    def known_services(self, names: list[str]) -> None:
        """Do nothing: the exporter reads the services from the ledger and exports 0 for them."""

    def close(self) -> None:
        """Release the files for the next process."""
        self._safely(self._files.close)

    def _count(self, metric: Metric, amount: float, *values: str) -> None:
        if amount:
            self._safely(lambda: self._files.add("counter", ((self._names(metric, values)[0], amount),)))

    def _set(self, metric: Metric, value: float, *values: str) -> None:
        self._safely(lambda: self._files.set(self._names(metric, values)[0], value))

    def _observe(self, metric: Metric, seconds: float, *values: str) -> None:
        def write() -> None:
            names = self._names(metric, values)
            place = bisect_left(metric.buckets, seconds)
            self._files.add("histogram", ((names[place], 1.0), (names[-1], seconds)))

        self._safely(write)

    def _names(self, metric: Metric, values: tuple[str, ...]) -> list[str]:
        """Return the keys of a metric: one, or for a histogram its buckets, +Inf and the sum."""
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
        """Log the first failed write and continue: a full disk must not stop deliveries."""
        try:
            write()
            self._broken = False
        except Exception:
            if not self._broken:
                log.warning("metrics cannot be written", exc_info=True)
            self._broken = True
