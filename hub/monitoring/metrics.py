"""The catalogue of metrics that processes count. `collectors` defines those that are read at a scrape.

Label values are bounded: no ids, addresses, host names, pids or error texts.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

OUTCOMES = (
    "success",
    "http_4xx",
    "http_5xx",
    "timeout",
    "connect_error",
    "unroutable",
    "invalid_payload",
    "fault",
)
REASONS = OUTCOMES[1:]
REJECTIONS = ("too_large", "not_json", "invalid_fields", "wrong_queue", "unknown_actor", "invalid_arguments")
TRANSITIONS = (
    ("closed", "open"),
    ("open", "half_open"),
    ("half_open", "closed"),
    ("half_open", "open"),
    ("open", "closed"),
)


@dataclass(frozen=True)
class Metric:
    """One metric family.

    Args:
        known: values of the labels after `service` (or of all labels) that are exported from 0 on.
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
    "Events received, by result.",
    ("result",),
    _each(("accepted", "duplicate", "unmatched")),
)
ATTEMPTS = Metric(
    "hub_dispatch_attempts", "counter", "Finished attempts, by outcome.", ("service", "outcome"), _each(OUTCOMES)
)
FAILURES = Metric(
    "hub_dispatch_failures", "counter", "Failed attempts, by reason.", ("service", "reason"), _each(REASONS)
)
TRIES = Metric(
    "hub_network_tries",
    "counter",
    "Network tries, one or more per attempt, by outcome.",
    ("service", "outcome"),
    _each(OUTCOMES),
)
DURATION = Metric(
    "hub_dispatch_attempt_duration_seconds",
    "histogram",
    "Duration of an attempt, with all its tries and pauses.",
    ("service",),
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
WAIT = Metric(
    "hub_task_queue_wait_seconds",
    "histogram",
    "Time from when a task was due until it was claimed.",
    ("service",),
    buckets=(0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 30, 60, 300, 900, 1800),
)
END_TO_END = Metric(
    "hub_task_end_to_end_seconds",
    "histogram",
    "Time from when an event was accepted until it was delivered.",
    ("service",),
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 120, 300, 900, 3600, 14400, 86400),
)
RETRIES = Metric(
    "hub_retries_scheduled", "counter", "Failed attempts that are followed by another attempt.", ("service",), _NONE
)
FINISHED = Metric(
    "hub_tasks_finished",
    "counter",
    "Finished tasks, by outcome.",
    ("service", "outcome"),
    _each(("delivered", "dead", "cancelled")),
)
DEAD = Metric(
    "hub_dead_letters",
    "counter",
    "Tasks that became dead letters, by reason.",
    ("service", "reason"),
    _each(("attempts", "expired", "worker_lost")),
)
REPLAYS = Metric("hub_dead_letter_replays", "counter", "Replayed dead letters.", ("service",), _NONE)
BREAKER = Metric(
    "hub_breaker_transitions",
    "counter",
    "State changes of a circuit breaker.",
    ("service", "from_state", "to_state"),
    TRANSITIONS,
)
PARKED = Metric(
    "hub_breaker_parked", "counter", "Tasks that were released because the circuit was open.", ("service",), _NONE
)
LOCKED_OUT = Metric(
    "hub_secrets_unreadable",
    "counter",
    "Tasks that were released because no key decrypts the secrets of their service.",
    ("service",),
    _NONE,
)
CONSUMER_RUNS = Metric(
    "hub_consumer_runs",
    "counter",
    "Runs of the response consumer, by outcome.",
    ("service", "outcome"),
    _each(("ok", "error", "skipped")),
)
CONSUMED = Metric(
    "hub_consumer_messages",
    "counter",
    "Messages read from a response queue, by outcome.",
    ("service", "outcome"),
    _each(("stored", "malformed")),
)
CONSUMER_TIME = Metric(
    "hub_consumer_run_duration_seconds",
    "histogram",
    "Duration of a run of the response consumer.",
    ("service",),
    buckets=(0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60),
)
AUTH = Metric(
    "hub_auth_events",
    "counter",
    "Log-ins and changes of users, login links, sessions and tokens, by result.",
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
    "Messages in the queues of the hub that the hub did not publish, by reason.",
    ("queue", "reason"),
    _each(("dispatch", "consume", "tick"), REJECTIONS),
)
POOL = Metric("hub_db_pool_connections", "gauge", "Database connections in use.", ("process",))
POOL_MAX = Metric(
    "hub_db_pool_max_connections", "gauge", "Most database connections that the pool opens.", ("process",)
)
THREADS_BUSY = Metric("hub_worker_threads_busy", "gauge", "Worker threads that run a task.")
THREADS = Metric("hub_worker_threads", "gauge", "Worker threads.")

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
    THREADS_BUSY,
    THREADS,
)
CONSUMER = (CONSUMER_RUNS, CONSUMED)  # exported from 0 on for services with a response queue only
