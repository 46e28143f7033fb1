"""Every metric that the hub's processes count, by name; `collectors` has those that are read at a scrape.

Labels are bounded: never ids, addresses, host names, pids or error texts.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

OUTCOMES = (
    "success", "http_4xx", "http_5xx", "timeout", "connect_error", "unroutable", "invalid_payload", "fault",
)  # fmt: skip
REASONS = OUTCOMES[1:]
REJECTIONS = ("too_large", "not_json", "invalid_fields", "wrong_queue", "unknown_actor", "invalid_arguments")
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
LOCKED_OUT = Metric(
    "hub_secrets_unreadable",
    "counter",
    "Tasks that were given back because no key opens their service's secrets.",
    ("service",),
    _NONE,
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
AUTH = Metric(
    "hub_auth_events",
    "counter",
    "Log-ins, and changes of users, links, sessions and tokens.",
    ("event", "result"),
    (
        *(("login", result) for result in ("ok", "failed", "locked", "busy")),
        *(("link", result) for result in ("added", "used", "refused")),
        *(("user", result) for result in ("added", "changed", "deleted")),
        *(("session", result) for result in ("ended", "revoked")),
        *(("token", result) for result in ("added", "revoked", "refused")),
    ),
)
REJECTED = Metric(
    "hub_broker_messages_rejected",
    "counter",
    "Messages in the hub's own queues that the hub did not make.",
    ("queue", "reason"),
    _each(("dispatch", "consume", "tick"), REJECTIONS),
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
    LOCKED_OUT,
    CONSUMER_RUNS,
    CONSUMED,
    CONSUMER_TIME,
    AUTH,
    REJECTED,
    POOL,
    POOL_MAX,
)
CONSUMER = (CONSUMER_RUNS, CONSUMED)  # start at 0 only for services with a response queue
