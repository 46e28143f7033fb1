"""Overview dashboard: alerts, rate, errors and duration by service, then queues, workers and connections."""

from __future__ import annotations

from typing import Any

from grafana.kit import (
    CIRCUIT,
    ENV,
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

S = f'{ENV}, service=~"$service"'
WHICH = "environment, alertname, severity, service, queue, collector, process, instance"
FIRING = f'{ENV}, alertname=~"Hub.+", alertname!="HubWatchdog", alertstate="firing"'
DEAD_SHARE = f"""sum by (environment, service) (rate(hub_dispatch_failures_total{{{S}}}[$__rate_interval]))
    / (sum by (environment, service) (rate(hub_dispatch_attempts_total{{{S}}}[$__rate_interval])) > 0)"""
P95 = f"""histogram_quantile(0.95, sum by (environment, service, le) (
    rate(hub_dispatch_attempt_duration_seconds_bucket{{{S}}}[$__rate_interval])))"""
DELIVERED = (
    f'sum by (environment, service) (rate(hub_tasks_finished_total{{{S}, outcome="delivered"}}[$__rate_interval]))'
)
OLDEST = f"max by (environment, service) (hub_oldest_due_task_age_seconds{{{S}}})"
DEAD = f"max by (environment, service) (hub_dead_letters{{{S}}})"
WAITING = (
    f'sum by (environment, service) (max by (environment, service, state) (hub_tasks{{{S}, state=~"pending|delayed"}}))'
)
RUNBOOKS = "/d/hub-runbooks"


def build() -> dict[str, Any]:
    """Return the dashboard."""
    numbers = [
        (
            3,
            one(
                "Exporters",
                "Exporters that respond. 0: nothing on this page can be trusted.",
                f'count(up{{job="hub", {ENV}}} == 1) or vector(0)',
                "short",
                graph=False,
                link=RUNBOOKS,
                thresholds=steps(RED, (1, GREEN)),
                mappings=words(_0=("NONE", RED)),
            ),
        ),
        (
            3,
            one(
                "Sources down",
                "Sources that exporters cannot read (PostgreSQL, RabbitMQ, counters): their series are absent.",
                f"count(hub_exporter_collector_up{{{ENV}}} == 0) or (0 * count(hub_exporter_collector_up{{{ENV}}}))",
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
                "Consumers of the dispatch queue. 0: nothing is delivered. Embedded mode has no such queue.",
                f'sum(max by (environment, queue) (hub_queue_consumers{{{ENV}, queue=~".+\\\\.dispatch"}}))',
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
                "Services whose circuit is open or half open.",
                f'count(max by (environment, service) (hub_breaker_state{{{S}, state=~"open|half_open"}}) == 1) or'
                f" (0 * count(max by (environment, service) (hub_breaker_state{{{S}}})))",
                "short",
                thresholds=steps(GREEN, (1, RED)),
                link=RUNBOOKS,
            ),
        ),
        (
            3,
            one(
                "Oldest due task",
                "Time since the oldest task that could run was due.",
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
                "Dead letters that were neither replayed nor deleted.",
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
                "Share of attempts that failed. Most are followed by another attempt.",
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
        "Firing alerts",
        "Alerts that fire now, for which service, since when. The link leads to the runbook.",
        [
            Column(
                "Since",
                f"max by ({WHICH}) (ALERTS_FOR_STATE * 1000 and on ({WHICH}) ALERTS{{{FIRING}}})",
                "dateTimeFromNow",
            )
        ],
        key="alertname",
        order=("severity", "environment"),
        links=[("alertname", "Runbook", RUNBOOKS), ("service", "Service detail", SERVICE_LINK)],
        sort=("Since", True),
        none="No alert fires",
    )
    whom = grid(
        "Services",
        "Each service: circuit, delivered and failing rates, duration, waiting tasks, dead letters.",
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
        "Firing alerts, the state of each service, and the load of the hub.",
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
                            "Duration: 95th percentile of attempts, by service.",
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
                            "Pending: due. Delayed: waits for a retry or a circuit. Held: disabled rule or "
                            "service. Rising pending: too few workers.",
                            [
                                Q(
                                    f"sum by (state) (max by (environment, service, state) (hub_tasks{{{S}}}))",
                                    "{{state}}",
                                )
                            ],
                            "short",
                            stacked=True,
                            colors=STATES,
                        ),
                    ),
                    (
                        8,
                        lines(
                            "Oldest due task",
                            "Time since the oldest task that could run was due, by service.",
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
                            "Open: the service fails, and its tasks are parked.",
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
                            "Received events. Unmatched: no rule matches. Duplicate: accepted before, dropped.",
                            [
                                Q(
                                    f"sum by (result) (rate(hub_events_accepted_total{{{ENV}}}[$__rate_interval]))",
                                    "{{result}}",
                                )
                            ],
                            PER_SECOND,
                            stacked=True,
                        ),
                    ),
                    (
                        8,
                        lines(
                            "Busy worker threads",
                            "Share of the worker threads that run a task. Near 100 %: add threads or workers.",
                            [
                                Q(
                                    f"max by (environment) (environment:hub_worker_threads_busy:ratio{{{ENV}}})",
                                    "busy",
                                )
                            ],
                            "percentunit",
                            limit=0.8,
                            maximum=1,
                        ),
                    ),
                    (
                        8,
                        lines(
                            "Time to drain",
                            "Pending tasks divided by the rate of finished tasks. Absent while none finishes.",
                            [
                                Q(
                                    f"max by (environment, service) (service:hub_tasks_drain:seconds{{{S}}})",
                                    "{{service}}",
                                )
                            ],
                            "s",
                            limit=300,
                            drill=True,
                        ),
                    ),
                ],
            ),
        ],
    )
