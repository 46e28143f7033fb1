"""State gauges from the ledger: circuits, tasks, dead letters, response queues, heartbeats."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from prometheus_client import Metric as Family

from hub.models import BreakerState
from hub.monitoring.collectors.base import family
from hub.monitoring.metrics import Metric
from hub.store.state import HubState, State

BREAKER_STATE = Metric(
    "hub_breaker_state", "gauge", "1 for the current state of the circuit, 0 for the others.", ("service", "state")
)
RESPONSE_BREAKER_STATE = Metric(
    "hub_response_breaker_state",
    "gauge",
    "1 for the current state of the circuit for a response queue, 0 for the others.",
    ("service", "state"),
)
TASKS = Metric("hub_tasks", "gauge", "Tasks in the ledger, by state.", ("service", "state"))
DEAD_LETTERS = Metric("hub_dead_letters", "gauge", "Dead letters that were neither replayed nor deleted.", ("service",))
OLDEST_DUE = Metric(
    "hub_oldest_due_task_age_seconds", "gauge", "Time since the oldest waiting task was due.", ("service",)
)
OLDEST_DEAD = Metric("hub_oldest_dead_letter_age_seconds", "gauge", "Age of the oldest dead letter.", ("service",))
LAST_SUCCESS = Metric(
    "hub_consumer_last_success_timestamp_seconds",
    "gauge",
    "Unix time when a response queue was last read to its end without an error.",
    ("service",),
)
HEARTBEAT = Metric(
    "hub_heartbeat_timestamp_seconds",
    "gauge",
    "Unix time of the latest heartbeat of any process of this kind.",
    ("component",),
)
LEDGER_METRICS = (
    BREAKER_STATE,
    RESPONSE_BREAKER_STATE,
    TASKS,
    DEAD_LETTERS,
    OLDEST_DUE,
    OLDEST_DEAD,
    LAST_SUCCESS,
    HEARTBEAT,
)
_TASK_STATES = ("pending", "running", "delayed", "held")
_FIRST_READ = 2.0  # seconds


class LedgerSource:
    """State gauges from PostgreSQL."""

    name = "ledger"

    def __init__(self, state: State) -> None:
        self._state = state
        self._was_read = threading.Event()
        self._known: tuple[list[str], list[str]] = ([], [])

    def collect(self) -> list[Family]:
        """Read the state of the ledger."""
        try:
            now = self._state.read()
            self._known = now.services, list(now.consumers)
        finally:
            self._was_read.set()
        return list(_ledger_families(now))

    def known(self) -> tuple[list[str], list[str]]:
        """Return (services, services with a response queue) of the last successful read. Waits for the first read."""
        self._was_read.wait(_FIRST_READ)
        return self._known

    def close(self) -> None:
        """Do nothing: the caller closes the database."""


def _ledger_families(now: HubState) -> Iterator[Family]:
    states = [state.value for state in BreakerState]
    for metric, found in ((BREAKER_STATE, now.breakers), (RESPONSE_BREAKER_STATE, now.response_breakers)):
        yield family(metric, [((name, s), float(s == state)) for name, state in found.items() for s in states])
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
