"""Dashboard of broker, processes and exporters."""

from __future__ import annotations

from typing import Any

from grafana.kit import (
    ENV,
    GREEN,
    PER_MINUTE,
    PER_SECOND,
    RED,
    YELLOW,
    Q,
    board,
    lines,
    one,
    steps,
    timeline,
    words,
)

R = "[$__rate_interval]"
WAIT = f'rate(hub_task_queue_wait_seconds_bucket{{{ENV}, service=~"$service"}}{R})'
LAST = f'hub_consumer_last_success_timestamp_seconds{{{ENV}, service=~"$service"}}'
TIME = f"hub_exporter_collector_duration_seconds{{{ENV}}}"
RUNS = f'rate(hub_consumer_runs_total{{{ENV}, service=~"$service"}}{R})'
RUN = f'rate(hub_consumer_run_duration_seconds_bucket{{{ENV}, service=~"$service"}}{R})'
UP = words(_0=("DOWN", RED), _1=("up", GREEN))


def heartbeat(title: str, component: str, what: str, bad: float) -> tuple[int, Any]:
    """Return a panel with the time since the last heartbeat of a component."""
    return (
        4,
        one(
            f"{title}, heartbeat",
            f"Time since the last heartbeat of any {component}. {what}",
            f'time() - max(hub_heartbeat_timestamp_seconds{{{ENV}, component="{component}"}})',
            "s",
            none="none",
            decimals=0,
            thresholds=steps(GREEN, (bad / 2, YELLOW), (bad, RED)),
            link="/d/hub-runbooks",
        ),
    )


def build() -> dict[str, Any]:
    """Return the dashboard."""
    numbers = [
        heartbeat("Worker", "worker", "Workers deliver.", 60),
        heartbeat("Outbox relay", "releaser", "It publishes due tasks; one process leads.", 60),
        heartbeat("Scheduler", "scheduler", "Without it response queues are not read.", 180),
        heartbeat("Web", "web", "It accepts events over HTTP.", 180),
        (
            4,
            one(
                "Exporters",
                "Exporters that respond.",
                f'count(up{{job="hub", {ENV}}} == 1) or vector(0)',
                "short",
                graph=False,
                thresholds=steps(RED, (1, GREEN)),
                link="/d/hub-runbooks",
            ),
        ),
        (
            4,
            one(
                "Versions",
                "Versions of the hub that run. More than one: an update is not complete.",
                f"count(count by (version) (hub_build_info{{{ENV}}}))",
                "short",
                graph=False,
                thresholds=steps(GREEN, (2, YELLOW)),
                link="/d/hub-runbooks",
            ),
        ),
    ]
    return board(
        "hub-runtime",
        "Hub / Broker and runtime",
        "Processes, sources of metrics, broker queues, database connections, response queues.",
        [
            (4, numbers),
            (
                7,
                [
                    (
                        12,
                        timeline(
                            "Sources",
                            "Whether exporters can read their sources. Down: the series of that source are absent.",
                            [
                                Q(
                                    f"min by (environment, collector, instance) (hub_exporter_collector_up{{{ENV}}})",
                                    "{{collector}} ({{instance}})",
                                )
                            ],
                            UP,
                        ),
                    ),
                    (
                        12,
                        lines(
                            "Time to read a source",
                            "A source that takes over five seconds is left out.",
                            [
                                Q(
                                    f"max by (environment, collector) ({TIME})",
                                    "{{collector}}",
                                )
                            ],
                            "s",
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
                            "Messages ready",
                            "By queue. `.XQ`: rejected by Dramatiq; the ledger still has the task.",
                            [Q(f"max by (environment, queue) (hub_queue_depth{{{ENV}}})", "{{queue}}")],
                            "short",
                        ),
                    ),
                    (
                        8,
                        lines(
                            "Messages unacknowledged",
                            "Messages that workers hold, from RabbitMQ's Prometheus plugin.",
                            [
                                Q(
                                    f"sum by (queue) (rabbitmq_detailed_queue_messages_unacked{{{ENV}}})",
                                    "{{queue}}",
                                )
                            ],
                            "short",
                        ),
                    ),
                    (
                        8,
                        lines(
                            "Consumers",
                            "By queue. None on the dispatch queue: nothing is delivered.",
                            [Q(f"max by (environment, queue) (hub_queue_consumers{{{ENV}}})", "{{queue}}")],
                            "short",
                        ),
                    ),
                ],
            ),
            (
                8,
                [
                    (
                        6,
                        lines(
                            "Database connections in use",
                            "By kind of process.",
                            [
                                Q(f"sum by (process) (hub_db_pool_connections{{{ENV}}})", "{{process}}"),
                                Q(
                                    f"sum by (process) (hub_db_pool_max_connections{{{ENV}}})",
                                    "{{process}} limit",
                                ),
                            ],
                            "short",
                        ),
                    ),
                    (
                        6,
                        lines(
                            "Worker threads",
                            "Threads that run a task, and all threads, of all workers. Read every 5 s.",
                            [
                                Q(f"sum(hub_worker_threads_busy{{{ENV}}})", "busy"),
                                Q(f"sum(hub_worker_threads{{{ENV}}})", "all"),
                            ],
                            "short",
                        ),
                    ),
                    (
                        6,
                        lines(
                            "Events accepted",
                            "Received events, by result.",
                            [Q(f"sum by (result) (rate(hub_events_accepted_total{{{ENV}}}{R}))", "{{result}}")],
                            PER_SECOND,
                            stacked=True,
                        ),
                    ),
                    (
                        6,
                        lines(
                            "Queue wait, p95",
                            "95th percentile of the time from due to claimed, over the chosen services.",
                            [
                                Q(
                                    f"histogram_quantile(0.95, sum by (le) ({WAIT}))",
                                    "p95",
                                )
                            ],
                            "s",
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
                            "Response queues, runs",
                            "Runs of consume_responses_task.",
                            [
                                Q(
                                    f"60 * sum by (outcome) ({RUNS})",
                                    "{{outcome}}",
                                )
                            ],
                            PER_MINUTE,
                            bars=True,
                            colors={"ok": GREEN, "error": RED},
                        ),
                    ),
                    (
                        8,
                        lines(
                            "Response queues, duration, p95",
                            "95th percentile of the duration of a run over one queue. A run ends after 50 s.",
                            [
                                Q(
                                    f"histogram_quantile(0.95, sum by (environment, service, le) ({RUN}))",
                                    "{{service}}",
                                )
                            ],
                            "s",
                            limit=50,
                        ),
                    ),
                    (
                        8,
                        lines(
                            "Response queues, last success",
                            "Time since each was read to its end without an error.",
                            [
                                Q(
                                    f"time() - max by (environment, service) ({LAST})",
                                    "{{service}}",
                                )
                            ],
                            "s",
                            limit=300,
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
                            "Event sources, lag",
                            "Time since every visible row of a source had been read.",
                            [Q(f"max by (environment, source) (hub_source_lag_seconds{{{ENV}}})", "{{source}}")],
                            "s",
                            limit=300,
                            none="no sources",
                        ),
                    ),
                    (
                        8,
                        lines(
                            "Event sources, rows",
                            "Rows read, and what became of them: events are those that a rule may want.",
                            [
                                Q(
                                    f"sum by (environment, source, result) (rate(hub_source_rows_total{{{ENV}}}{R}))",
                                    "{{source}} {{result}}",
                                )
                            ],
                            PER_SECOND,
                            none="no sources",
                        ),
                    ),
                    (
                        8,
                        lines(
                            "Event sources, missing ids and failures",
                            "Ranges of ids that may still appear, and looks that failed, per minute.",
                            [
                                Q(f"max by (environment, source) (hub_source_gaps{{{ENV}}})", "{{source}} gaps"),
                                Q(
                                    f"60 * sum by (environment, source) (rate(hub_source_errors_total{{{ENV}}}{R}))",
                                    "{{source}} failures",
                                ),
                            ],
                            "short",
                            none="no sources",
                        ),
                    ),
                ],
            ),
        ],
    )
