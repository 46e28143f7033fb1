"""What the exporter reads at each scrape: the ledger, the broker's queues, the files of the hub's processes.

Each source fails alone, by raising; what it does not know it leaves out. None keeps state between scrapes
that could be shown in place of the truth, so the gauges are right even when every worker is dead.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Protocol

import pika
import pika.exceptions
from prometheus_client import Metric as Family
from prometheus_client.utils import floatToGoString

from hub.errors import UnavailableError
from hub.metric_files import Labels, read
from hub.metrics import CATALOGUE, CONSUMED, CONSUMER_RUNS, Metric
from hub.models import BreakerState
from hub.store.state import HubState, State

BREAKER_STATE = Metric(
    "hub_breaker_state", "gauge", "1 for the state a circuit is in, 0 for the others.", ("service", "state")
)
TASKS = Metric("hub_tasks", "gauge", "Tasks in the ledger.", ("service", "state"))
DEAD_LETTERS = Metric("hub_dead_letters", "gauge", "Dead letters that wait for a person.", ("service",))
OLDEST_DUE = Metric(
    "hub_oldest_due_task_age_seconds", "gauge", "How long the oldest waiting task has been due.", ("service",)
)
OLDEST_DEAD = Metric("hub_oldest_dead_letter_age_seconds", "gauge", "Age of the oldest dead letter.", ("service",))
LAST_SUCCESS = Metric(
    "hub_consumer_last_success_timestamp_seconds",
    "gauge",
    "When a response queue was last drained without an error.",
    ("service",),
)
HEARTBEAT = Metric(
    "hub_heartbeat_timestamp_seconds", "gauge", "Latest sign of life of any process of that kind.", ("component",)
)
DEPTH = Metric("hub_queue_depth", "gauge", "Messages that are ready in a queue of the broker.", ("queue",))
CONSUMERS = Metric("hub_queue_consumers", "gauge", "Consumers of a queue of the broker.", ("queue",))
LEDGER_METRICS = (BREAKER_STATE, TASKS, DEAD_LETTERS, OLDEST_DUE, OLDEST_DEAD, LAST_SUCCESS, HEARTBEAT)
QUEUE_METRICS = (DEPTH, CONSUMERS)
_TASK_STATES = ("pending", "running", "delayed", "held")
_SOCKET_TIMEOUT = 2.0
_SELDOM = 300.0  # seconds


class Source(Protocol):
    """Something that can be read for metrics; raises when it cannot."""

    name: str

    def collect(self) -> list[Family]:
        """The families as they are now."""

    def close(self) -> None:
        """Let connections go."""


def family(metric: Metric, samples: Iterable[tuple[tuple[str, ...], float]] = ()) -> Family:
    """A gauge family with samples by label values."""
    made = Family(metric.name, metric.text, metric.kind)
    for values, value in samples:
        made.add_sample(metric.name, dict(zip(metric.labels, values, strict=True)), value)
    return made


class LedgerSource:
    """State gauges from PostgreSQL."""

    name = "ledger"

    def __init__(self, state: State) -> None:
        self._state = state
        self._looked = threading.Event()
        self._known: tuple[list[str], list[str]] = ([], [])

    def collect(self) -> list[Family]:
        """One look at the ledger."""
        try:
            now = self._state.read()
            self._known = now.services, list(now.consumers)
        finally:
            self._looked.set()
        return list(_ledger_families(now))

    def known(self) -> tuple[list[str], list[str]]:
        """Services, and those with a response queue, at the last good look; waits for the first one a moment."""
        self._looked.wait(_SOCKET_TIMEOUT)
        return self._known

    def close(self) -> None:
        """The database is its owner's to close."""


def _ledger_families(now: HubState) -> Iterator[Family]:
    states = [state.value for state in BreakerState]
    circuits = ((name, state, float(state == now_in)) for name, now_in in now.breakers.items() for state in states)
    yield family(BREAKER_STATE, (((name, state), value) for name, state, value in circuits))
    zero = {(service, state): 0.0 for service in now.services for state in _TASK_STATES}
    yield family(TASKS, (zero | now.tasks).items())
    none = dict.fromkeys(now.services, 0.0)
    by_service = (
        (DEAD_LETTERS, none | now.dead_letters),
        (OLDEST_DUE, now.oldest_due),
        (OLDEST_DEAD, now.oldest_dead),
        (LAST_SUCCESS, now.consumers),
        (HEARTBEAT, now.heartbeats),
    )
    for metric, values in by_service:
        yield family(metric, (((name,), value) for name, value in values.items() if value is not None))


class RabbitSource:
    """Depth and consumers of the hub's queues, by passive declare: fresh, and no plugin is needed.

    Args:
        queues: names; their `.XQ` (dead) and `.DQ` (delayed) follow by themselves. The hub makes no `.DQ`, but
            another Dramatiq may have: one that is missing is asked for seldom, for RabbitMQ logs an error each time.
        clock: seconds.
    """

    name = "rabbitmq"

    def __init__(self, url: str, queues: Iterable[str], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._queues = [queue + suffix for queue in queues for suffix in ("", ".DQ", ".XQ")]
        self._clock = clock
        self._ask_again: dict[str, float] = {}
        self._parameters = pika.URLParameters(url)
        p = self._parameters
        p.socket_timeout = p.stack_timeout = p.blocked_connection_timeout = _SOCKET_TIMEOUT
        p.connection_attempts = 1
        p.heartbeat = 60
        p.client_properties = {"connection_name": "hub exporter"}
        self._connection: pika.BlockingConnection | None = None

    def collect(self) -> list[Family]:
        """One look at every queue; a queue that does not exist is left out.

        Raises:
            UnavailableError: the broker does not answer.
        """
        for last in (False, True):
            try:
                found = self._look()
            except (pika.exceptions.AMQPError, OSError) as e:
                was_open = self._connection is not None
                self.close()
                if last or not was_open:  # a kept connection may have ended since; a new one has no excuse
                    raise UnavailableError(f"the broker does not answer: {type(e).__name__}") from None
            else:
                break
        return [
            family(DEPTH, (((queue,), depth) for queue, depth, _ in found)),
            family(CONSUMERS, (((queue,), consumers) for queue, _, consumers in found)),
        ]

    def _look(self) -> list[tuple[str, float, float]]:
        if self._connection is None:
            self._connection = pika.BlockingConnection(self._parameters)
        channel = self._connection.channel()
        found = []
        for queue in self._queues:
            if self._ask_again.get(queue, 0.0) > self._clock():
                continue
            try:
                ok = channel.queue_declare(queue, passive=True).method
            except pika.exceptions.ChannelClosedByBroker as e:
                if e.reply_code != 404:
                    raise
                channel = self._connection.channel()
                if queue.endswith(".DQ"):
                    self._ask_again[queue] = self._clock() + _SELDOM
                continue
            found.append((queue, float(ok.message_count), float(ok.consumer_count)))
        channel.close()
        return found

    def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except (pika.exceptions.AMQPError, OSError):
                pass  # it is gone already


class InProcessSource:
    """Depth of the queues of Dramatiq's in-process broker.

    Args:
        ready: messages that wait in a queue, None when there is no such queue.
    """

    name = "in_process"

    def __init__(self, ready: Callable[[str], int | None], queues: Iterable[str]) -> None:
        self._ready = ready
        self._queues = list(queues)

    def collect(self) -> list[Family]:
        """One look at every queue."""
        depths = ((queue, self._ready(queue)) for queue in self._queues)
        return [family(DEPTH, (((queue,), float(n)) for queue, n in depths if n is not None))]

    def close(self) -> None:
        """Nothing to close."""


class ProcessSource:
    """Counters and histograms of all processes on this machine, added up.

    Args:
        known: services, and those of them with a response queue: their counters are shown from 0 on.
    """

    name = "processes"

    def __init__(self, folder: Path, known: Callable[[], tuple[list[str], list[str]]]) -> None:
        self._folder = folder
        self._known = known

    def collect(self) -> list[Family]:
        """Add up the files."""
        numbers = read(self._folder)
        services, consumers = self._known()
        return [self._family(m, numbers.get(m.name, {}), services, consumers) for m in CATALOGUE]

    def _family(
        self, metric: Metric, numbers: dict[tuple[str, Labels], float], services: list[str], consumers: list[str]
    ) -> Family:
        if metric.kind == "histogram":
            return _histogram(metric, numbers)
        sample = metric.name + ("_total" if metric.kind == "counter" else "")
        values = {labels: value for (name, labels), value in numbers.items() if name == sample}
        names = consumers if metric in (CONSUMER_RUNS, CONSUMED) else services
        for known in _known_labels(metric, names):
            values.setdefault(known, 0.0)
        made = Family(metric.name, metric.text, metric.kind)
        for labels, value in values.items():
            by_name = dict(labels)
            made.add_sample(sample, {name: by_name[name] for name in metric.labels}, value)
        return made

    def close(self) -> None:
        """Nothing to close."""


def _known_labels(metric: Metric, services: list[str]) -> Iterator[Labels]:
    if metric.labels[0] == "service":
        values = ((service, *rest) for service in services for rest in metric.known)
    else:
        values = (rest for rest in metric.known)
    for labels in values:
        yield tuple(sorted(zip(metric.labels, labels, strict=True)))


def _histogram(metric: Metric, numbers: dict[tuple[str, Labels], float]) -> Family:
    """Files hold each bucket's own count; Prometheus wants them cumulative."""
    bounds = [floatToGoString(b) for b in (*metric.buckets, float("inf"))]
    counts: dict[Labels, dict[str, float]] = {}
    sums: dict[Labels, float] = {}
    for (sample, labels), value in numbers.items():
        if sample.endswith("_bucket"):
            (le,) = (value for name, value in labels if name == "le")
            counts.setdefault(tuple(pair for pair in labels if pair[0] != "le"), {})[le] = value
        else:
            sums[labels] = value
    made = Family(metric.name, metric.text, "histogram")
    for labels, own in counts.items():
        total = 0.0
        for bound in bounds:
            total += own.get(bound, 0.0)
            made.add_sample(f"{metric.name}_bucket", dict(chain(labels, (("le", bound),))), total)
        made.add_sample(f"{metric.name}_count", dict(labels), total)
        made.add_sample(f"{metric.name}_sum", dict(labels), sums.get(labels, 0.0))
    return made
