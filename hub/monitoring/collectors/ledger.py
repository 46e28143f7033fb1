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
SOURCE_LAG = Metric(
    "hub_source_lag_seconds",
    "gauge",
    "Time since every visible row of an event source had been read.",
    ("source",),
)
SOURCE_BEHIND = Metric("hub_source_lag_rows", "gauge", "Ids of an event source that are not read yet.", ("source",))
SOURCE_GAPS = Metric(
    "hub_source_gaps", "gauge", "Ranges of missing ids of an event source that are looked at again.", ("source",)
)
SOURCE_ROWS = Metric(
    "hub_source_rows",
    "counter",
    "Rows of an event source: read (all of them), event (written), undecoded (`other` unreadable), refused (no event).",
    ("source", "result"),
)
SOURCE_ERRORS = Metric("hub_source_errors", "counter", "Looks at an event source that failed.", ("source",))
CLOCK_OFFSET = Metric(
    "hub_clock_offset_seconds",
    "gauge",
    "Largest difference between a machine's clock and the database's, by kind of process; positive: ahead.",
    ("component",),
)
WRITABLE = Metric("hub_ledger_writable", "gauge", "1 if the database accepts writes, else 0.")
LEDGER_METRICS = (
    BREAKER_STATE,
    RESPONSE_BREAKER_STATE,
    TASKS,
    DEAD_LETTERS,
    OLDEST_DUE,
    OLDEST_DEAD,
    LAST_SUCCESS,
    HEARTBEAT,
    SOURCE_LAG,
    SOURCE_BEHIND,
    SOURCE_GAPS,
    SOURCE_ROWS,
    SOURCE_ERRORS,
    CLOCK_OFFSET,
    WRITABLE,
)
_TASK_STATES = ("pending", "running", "delayed", "blocked", "held")
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
        return [*_ledger_families(now), family(WRITABLE, [((), float(self._state.writable()))])]

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
        (CLOCK_OFFSET, now.clock_offsets),
    )
    yield from _source_families(now)
    for metric, values in by_service:
        yield family(metric, (((name,), value) for name, value in values.items() if value is not None))


def _source_families(now: HubState) -> Iterator[Family]:
    found = now.sources.items()
    yield family(SOURCE_LAG, (((name,), source.lag) for name, source in found))
    yield family(SOURCE_BEHIND, (((name,), source.behind) for name, source in found if source.behind is not None))
    yield family(SOURCE_GAPS, (((name,), source.gaps) for name, source in found))
    results = ("read", "rows"), ("event", "events"), ("undecoded", "undecoded"), ("refused", "refused")
    rows = [((name, result), float(getattr(source, field))) for name, source in found for result, field in results]
    yield family(SOURCE_ROWS, rows)
    yield family(SOURCE_ERRORS, (((name,), source.errors) for name, source in found))
