"""Dashboard of one service."""

from __future__ import annotations

from typing import Any

from grafana.kit import (
    BLUE,
    CIRCUIT,
    ENV,
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

S = f'{ENV}, service="$service"'
R = "[$__rate_interval]"
LAST = f"hub_consumer_last_success_timestamp_seconds{{{S}}}"


def quantiles(metric: str, *shares: float) -> list[Q]:
    """Return queries for quantiles of a histogram of this service."""
    return [
        Q(f"histogram_quantile({q}, sum by (le) (rate({metric}_bucket{{{S}}}{R})))", f"p{q * 100:g}") for q in shares
    ]


def build() -> dict[str, Any]:
    """Return the dashboard."""
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
                "Open: the service fails; its tasks are parked and lose no attempt.",
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
                "Share of the tasks finished within an hour that became dead letters. The objective is 1 %.",
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
                "95th percentile of the attempt duration.",
                f"histogram_quantile(0.95, sum by (le) (rate(hub_dispatch_attempt_duration_seconds_bucket{{{S}}}{R})))",
                "s",
                none="no attempts",
            ),
        ),
        (
            3,
            one(
                "Oldest due task",
                "Time since the oldest task that could run was due.",
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
                "Tasks that are due, or wait for a retry or a circuit.",
                f'sum(max by (environment, state) (hub_tasks{{{S}, state=~"pending|delayed"}}))',
                "short",
            ),
        ),
        (
            3,
            one(
                "Dead letters",
                "Dead letters that were neither replayed nor deleted.",
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
        "One service: circuit, outcomes, durations, waiting tasks, responses.",
        [
            (4, numbers),
            (
                4,
                [
                    (
                        24,
                        timeline(
                            "Circuit over time",
                            "State of the circuit over time.",
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
                            "4xx: the service refuses the request. 5xx, timeout, connect_error: the service fails.",
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
                            "An attempt has one or more tries. More tries than attempts: short failures.",
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
                            "Duration of an attempt, with all its tries and pauses.",
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
                            "Distribution of attempt durations. Two bands: two kinds of requests.",
                            f"sum by (le) (increase(hub_dispatch_attempt_duration_seconds_bucket{{{S}}}{R}))",
                        ),
                    ),
                    (
                        8,
                        lines(
                            "Queue wait",
                            "Time from when a task was due until it was claimed. High with short attempts: too few "
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
                            "Time from when the event was accepted until it was delivered, retries included.",
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
                            "Pending: due. Delayed: waits for a retry or a circuit. Held: disabled rule or service.",
                            [Q(f"max by (environment, state) (hub_tasks{{{S}}})", "{{state}}")],
                            "short",
                            stacked=True,
                            colors=STATES,
                        ),
                    ),
                    (
                        8,
                        lines(
                            "Retries and parked tasks",
                            "A retry costs an attempt. A parked task, or one without a key, loses none.",
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
                            "Circuit changes",
                            "closed to open: an outage. half_open to open: a failed probe.",
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
                            "Responses read from the queue of the service. Malformed ones are stored too.",
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
                            "Time since the queue was read to its end without an error.",
                            [
                                Q(
                                    f"time() - max by (environment, service) ({LAST})",
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
