"""Overview: is something broken, for whom, since when. RED first, then queue, workers, pool."""

from __future__ import annotations

from typing import Any

from grafana.kit import (
    CIRCUIT,
    GREEN,
    PER_SECOND,
    RED,
    SERVICE_LINK,
    STATES,
    YELLOW,
    Column,
    Q,
    board,
    circuit,
    colored,
    grid,
    lines,
    mapped,
    one,
    steps,
    timeline,
    words,
)

S = 'service=~"$service"'
FIRING = 'alertname=~"Hub.+", alertname!="HubWatchdog", alertstate="firing"'
DEAD_SHARE = f"""sum by (service) (rate(hub_dispatch_failures_total{{{S}}}[$__rate_interval]))
    / (sum by (service) (rate(hub_dispatch_attempts_total{{{S}}}[$__rate_interval])) > 0)"""
P95 = f"""histogram_quantile(0.95, sum by (service, le) (
    rate(hub_dispatch_attempt_duration_seconds_bucket{{{S}}}[$__rate_interval])))"""
DELIVERED = f'sum by (service) (rate(hub_tasks_finished_total{{{S}, outcome="delivered"}}[$__rate_interval]))'
OLDEST = f"max by (service) (hub_oldest_due_task_age_seconds{{{S}}})"
DEAD = f"max by (service) (hub_dead_letters{{{S}}})"
WAITING = f'sum by (service) (max by (service, state) (hub_tasks{{{S}, state=~"pending|delayed"}}))'
RUNBOOKS = "/d/hub-runbooks"


def build() -> dict[str, Any]:
    """The dashboard."""
    numbers = [
        (
            3,
            one(
                "Eyes",
                "Exporters that answer. 0: everything below is blind, whatever it shows.",
                'count(up{job="hub"} == 1) or vector(0)',
                "short",
                graph=False,
                link=RUNBOOKS,
                thresholds=steps(RED, (1, GREEN)),
                mappings=words(_0=("BLIND", RED)),
            ),
        ),
        (
            3,
            one(
                "Sources down",
                "Sources the exporters cannot read (PostgreSQL, RabbitMQ, counters): their series are missing.",
                "count(hub_exporter_collector_up == 0) or (0 * count(hub_exporter_collector_up))",
                "short",
                graph=False,
                thresholds=steps(GREEN, (1, RED)),
                link=RUNBOOKS,
            ),
        ),
        (
            3,
            one(
                "Workers",
                "Consumers of the dispatch queue. 0: nothing is delivered. Embedded mode has none to count.",
                'sum(max by (queue) (hub_queue_consumers{queue=~".+\\\\.dispatch"}))',
                "short",
                graph=False,
                none="embedded",
                thresholds=steps(RED, (1, GREEN)),
                link=RUNBOOKS,
            ),
        ),
        (
            3,
            one(
                "Open circuits",
                "Services that are down: their circuit is open or half open.",
                f'count(max by (service) (hub_breaker_state{{{S}, state=~"open|half_open"}}) == 1) or'
                f" (0 * count(max by (service) (hub_breaker_state{{{S}}})))",
                "short",
                thresholds=steps(GREEN, (1, RED)),
                link=RUNBOOKS,
            ),
        ),
        (
            3,
            one(
                "Oldest due task",
                "How long the oldest task has waited that could run now.",
                f"max(hub_oldest_due_task_age_seconds{{{S}}})",
                "s",
                none="none due",
                decimals=0,
                thresholds=steps(GREEN, (60, YELLOW), (300, RED)),
                link=RUNBOOKS,
            ),
        ),
        (
            3,
            one(
                "Dead letters",
                "Tasks that were given up and wait for a person.",
                f"sum({DEAD})",
                "short",
                thresholds=steps(GREEN, (1, YELLOW)),
                link="/d/hub-dlq",
            ),
        ),
        (3, one("Delivered", "Tasks delivered per second.", f"sum({DELIVERED})", PER_SECOND, decimals=2)),
        (
            3,
            one(
                "Failing attempts",
                "Share of attempts that failed. Most of them are tried again.",
                f"sum(rate(hub_dispatch_failures_total{{{S}}}[$__rate_interval]))"
                f" / (sum(rate(hub_dispatch_attempts_total{{{S}}}[$__rate_interval])) > 0)",
                "percentunit",
                decimals=1,
                none="no attempts",
                thresholds=steps(GREEN, (0.05, YELLOW), (0.25, RED)),
            ),
        ),
    ]
    broken = grid(
        "What is broken",
        "Alerts that fire now: what, for whom, since when. What to do is in the runbook.",
        [
            Column(
                "Since",
                "max by (alertname, severity, service, queue, collector, process) (ALERTS_FOR_STATE"
                f" * 1000 and on (alertname, severity, service, queue, collector, process) ALERTS{{{FIRING}}})",
                "dateTimeFromNow",
            )
        ],
        key="alertname",
        order=("severity",),
        links=[("alertname", "Runbook", RUNBOOKS), ("service", "Service detail", SERVICE_LINK)],
        sort=("Since", True),
        none="Nothing is firing",
    )
    whom = grid(
        "For whom",
        "Every service: is its circuit closed, what gets through, how fast, what waits.",
        [
            Column("Circuit", circuit("$service"), properties=mapped(CIRCUIT)),
            Column("Delivered", DELIVERED, PER_SECOND),
            Column("Failing", DEAD_SHARE, "percentunit", colored((0.05, YELLOW), (0.25, RED))),
            Column("p95", P95, "s"),
            Column("Waiting", WAITING, "short", colored((1000, YELLOW))),
            Column("Oldest due", OLDEST, "s", colored((60, YELLOW), (300, RED))),
            Column("Dead", DEAD, "short", colored((1, YELLOW))),
        ],
        key="service",
        links=[("service", "Service detail", SERVICE_LINK)],
        sort=("Circuit", True),
        none="no services",
    )
    return board(
        "hub-overview",
        "Hub / Overview",
        "What is broken, for whom, since when, what to do. Read it from the upper left.",
        [
            (4, numbers),
            (9, [(10, broken), (14, whom)]),
            (
                8,
                [
                    (
                        8,
                        lines(
                            "Delivered",
                            "Rate: tasks delivered per second, by service.",
                            [Q(DELIVERED, "{{service}}")],
                            PER_SECOND,
                            drill=True,
                        ),
                    ),
                    (
                        8,
                        lines(
                            "Failing attempts",
                            "Errors: share of attempts that failed, by service.",
                            [Q(DEAD_SHARE, "{{service}}")],
                            "percentunit",
                            limit=0.25,
                            maximum=1,
                            drill=True,
                        ),
                    ),
                    (
                        8,
                        lines(
                            "Attempt duration, p95",
                            "Duration: 95 of 100 attempts took no longer, by service.",
                            [Q(P95, "{{service}}")],
                            "s",
                            drill=True,
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
                            "Pending: due. Delayed: a retry or a parked one, later. Held: disabled rule or "
                            "service. Rising pending: too few workers.",
                            [Q(f"sum by (state) (max by (service, state) (hub_tasks{{{S}}}))", "{{state}}")],
                            "short",
                            stacked=True,
                            colors=STATES,
                        ),
                    ),
                    (
                        8,
                        lines(
                            "Oldest due task",
                            "How long the oldest task that could run has waited, by service.",
                            [Q(OLDEST, "{{service}}")],
                            "s",
                            limit=300,
                            drill=True,
                        ),
                    ),
                    (
                        8,
                        timeline(
                            "Circuits",
                            "Closed is healthy. Open: the service is down, its tasks are parked.",
                            [Q(circuit("$service"), "{{service}}")],
                            CIRCUIT,
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
                            "Events accepted",
                            "What came in. Unmatched: no rule wants it. Duplicate: seen before, dropped.",
                            [Q("sum by (result) (rate(hub_events_accepted_total[$__rate_interval]))", "{{result}}")],
                            PER_SECOND,
                            stacked=True,
                        ),
                    ),
                    (
                        8,
                        lines(
                            "Broker queues",
                            "Messages that wait in RabbitMQ. Most waiting tasks are in the ledger, not here.",
                            [Q("max by (queue) (hub_queue_depth)", "{{queue}}")],
                            "short",
                        ),
                    ),
                    (
                        8,
                        lines(
                            "Database connections",
                            "Share of the connections that processes may open.",
                            [
                                Q(
                                    "sum by (process) (hub_db_pool_connections) / (sum by (process)"
                                    " (hub_db_pool_max_connections) > 0)",
                                    "{{process}}",
                                )
                            ],
                            "percentunit",
                            limit=0.9,
                            maximum=1,
                        ),
                    ),
                ],
            ),
        ],
    )
