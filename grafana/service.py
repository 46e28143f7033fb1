"""Service detail: one service, from the circuit to the last byte."""

from __future__ import annotations

from typing import Any

from grafana.kit import (
    BLUE,
    CIRCUIT,
    GREEN,
    PER_MINUTE,
    PER_SECOND,
    RED,
    SHARES,
    STATES,
    YELLOW,
    Q,
    board,
    circuit,
    heat,
    lines,
    one,
    steps,
    timeline,
)

S = 'service="$service"'
R = "[$__rate_interval]"


def quantiles(metric: str, *shares: float) -> list[Q]:
    """Quantiles of a histogram of this service."""
    return [
        Q(f"histogram_quantile({q}, sum by (le) (rate({metric}_bucket{{{S}}}{R})))", f"p{q * 100:g}") for q in shares
    ]


def build() -> dict[str, Any]:
    """The dashboard."""
    outcomes = {
        "success": GREEN,
        "http_4xx": YELLOW,
        "http_5xx": RED,
        "timeout": "orange",
        "connect_error": "dark-red",
        "unroutable": "purple",
        "invalid_payload": "dark-yellow",
        "fault": "dark-purple",
    }
    numbers = [
        (
            3,
            one(
                "Circuit",
                "Open: the service is down, its tasks are parked and lose no attempt.",
                circuit("$service"),
                "short",
                mappings=CIRCUIT,
                graph=False,
                link="/d/hub-runbooks",
            ),
        ),
        (
            3,
            one(
                "Delivered",
                "Tasks delivered per second.",
                f'sum(rate(hub_tasks_finished_total{{{S}, outcome="delivered"}}{R}))',
                PER_SECOND,
                decimals=2,
            ),
        ),
        (
            3,
            one(
                "Failing attempts",
                "Share of attempts that failed.",
                f"sum(rate(hub_dispatch_failures_total{{{S}}}{R}))"
                f" / (sum(rate(hub_dispatch_attempts_total{{{S}}}{R})) > 0)",
                "percentunit",
                decimals=1,
                none="no attempts",
                thresholds=steps(GREEN, (0.05, YELLOW), (0.25, RED)),
            ),
        ),
        (
            3,
            one(
                "Dead of finished, 1 h",
                "Share of the tasks that finished within an hour and died. The objective is 1 %.",
                f"max(service:hub_tasks_dead:ratio_rate1h{{{S}}})",
                "percentunit",
                decimals=2,
                none="none finished",
                thresholds=steps(GREEN, (0.01, YELLOW), (0.144, RED)),
                link="/d/hub-runbooks",
            ),
        ),
        (
            3,
            one(
                "Attempt, p95",
                "95 of 100 attempts took no longer.",
                f"histogram_quantile(0.95, sum by (le) (rate(hub_dispatch_attempt_duration_seconds_bucket{{{S}}}{R})))",
                "s",
                none="no attempts",
            ),
        ),
        (
            3,
            one(
                "Oldest due task",
                "How long the oldest task that could run has waited.",
                f"max(hub_oldest_due_task_age_seconds{{{S}}})",
                "s",
                decimals=0,
                none="none due",
                thresholds=steps(GREEN, (60, YELLOW), (300, RED)),
                link="/d/hub-runbooks",
            ),
        ),
        (
            3,
            one(
                "Waiting",
                "Tasks that are due or have a retry to come.",
                f'sum(max by (state) (hub_tasks{{{S}, state=~"pending|delayed"}}))',
                "short",
            ),
        ),
        (
            3,
            one(
                "Dead letters",
                "Tasks that were given up and wait for a person.",
                f"max(hub_dead_letters{{{S}}})",
                "short",
                thresholds=steps(GREEN, (1, YELLOW)),
                link="/d/hub-dlq?var-service=$service",
            ),
        ),
    ]
    return board(
        "hub-service",
        "Hub / Service",
        "One service: its circuit, what it answers, how fast, what waits for it, what it sends back.",
        [
            (4, numbers),
            (
                4,
                [
                    (
                        24,
                        timeline(
                            "Circuit over time",
                            "Since when it is down.",
                            [Q(circuit("$service"), "{{service}}")],
                            CIRCUIT,
                        ),
                    )
                ],
            ),
            (
                8,
                [
                    (
                        8,
                        lines(
                            "Attempts by outcome",
                            "What the service answered. 4xx: it refuses what we send. 5xx, timeout, "
                            "connect_error: it is in trouble.",
                            [Q(f"sum by (outcome) (rate(hub_dispatch_attempts_total{{{S}}}{R})) > 0", "{{outcome}}")],
                            PER_SECOND,
                            stacked=True,
                            colors=outcomes,
                        ),
                    ),
                    (
                        8,
                        lines(
                            "Network tries by outcome",
                            "Sends, several within an attempt: more tries than attempts means it fails for moments.",
                            [Q(f"sum by (outcome) (rate(hub_network_tries_total{{{S}}}{R})) > 0", "{{outcome}}")],
                            PER_SECOND,
                            stacked=True,
                            colors=outcomes,
                        ),
                    ),
                    (
                        8,
                        lines(
                            "Attempt duration",
                            "How long an attempt took, its tries and pauses included.",
                            quantiles("hub_dispatch_attempt_duration_seconds", 0.5, 0.95, 0.99),
                            "s",
                            colors=SHARES,
                        ),
                    ),
                ],
            ),
            (
                8,
                [
                    (
                        8,
                        heat(
                            "Attempt duration, all",
                            "Where the attempts are: two bands mean two kinds of answers.",
                            f"sum by (le) (increase(hub_dispatch_attempt_duration_seconds_bucket{{{S}}}{R}))",
                        ),
                    ),
                    (
                        8,
                        lines(
                            "Queue wait",
                            "From when a task was due until a worker took it. High with short attempts: too few "
                            "workers, or a rate limit.",
                            quantiles("hub_task_queue_wait_seconds", 0.5, 0.95),
                            "s",
                            colors=SHARES,
                        ),
                    ),
                    (
                        8,
                        lines(
                            "End to end",
                            "From when the event was accepted until it was delivered, retries included.",
                            quantiles("hub_task_end_to_end_seconds", 0.5, 0.95),
                            "s",
                            colors=SHARES,
                        ),
                    ),
                ],
            ),
            (
                8,
                [
                    (
                        8,
                        lines(
                            "Tasks in the ledger",
                            "Pending: due. Delayed: retry or parked. Held: disabled rule or service.",
                            [Q(f"max by (state) (hub_tasks{{{S}}})", "{{state}}")],
                            "short",
                            stacked=True,
                            colors=STATES,
                        ),
                    ),
                    (
                        8,
                        lines(
                            "Retries and parked tasks",
                            "Retries cost an attempt. What was parked, or found no key, lost none.",
                            [
                                Q(f"sum(rate(hub_retries_scheduled_total{{{S}}}{R}))", "retries"),
                                Q(f"sum(rate(hub_breaker_parked_total{{{S}}}{R}))", "parked"),
                                Q(f"sum(rate(hub_secrets_unreadable_total{{{S}}}{R}))", "no key"),
                            ],
                            PER_SECOND,
                            colors={"retries": YELLOW, "parked": BLUE, "no key": RED},
                        ),
                    ),
                    (
                        8,
                        lines(
                            "Circuit moves",
                            "Openings from closed are outages; from half open, failed probes.",
                            [
                                Q(
                                    "60 * sum by (from_state, to_state)"
                                    f" (rate(hub_breaker_transitions_total{{{S}}}{R})) > 0",
                                    "{{from_state}} to {{to_state}}",
                                )
                            ],
                            PER_MINUTE,
                            bars=True,
                        ),
                    ),
                ],
            ),
            (
                7,
                [
                    (
                        8,
                        lines(
                            "Response queue, messages",
                            "Answers taken from the service's queue. Malformed ones are kept, too.",
                            [Q(f"sum by (outcome) (rate(hub_consumer_messages_total{{{S}}}{R}))", "{{outcome}}")],
                            PER_SECOND,
                            stacked=True,
                            colors={"stored": GREEN, "malformed": YELLOW},
                            none="no response queue",
                        ),
                    ),
                    (
                        8,
                        lines(
                            "Response queue, runs",
                            "Runs of consume_responses_task for this service.",
                            [Q(f"60 * sum by (outcome) (rate(hub_consumer_runs_total{{{S}}}{R}))", "{{outcome}}")],
                            PER_MINUTE,
                            bars=True,
                            colors={"ok": GREEN, "error": RED, "skipped": BLUE},
                            none="no response queue",
                        ),
                    ),
                    (
                        8,
                        lines(
                            "Response queue, last success",
                            "Time since the queue was drained without an error.",
                            [
                                Q(
                                    f"time() - max by (service) (hub_consumer_last_success_timestamp_seconds{{{S}}})",
                                    "{{service}}",
                                )
                            ],
                            "s",
                            limit=300,
                            none="no response queue",
                        ),
                    ),
                ],
            ),
        ],
        single=True,
    )
