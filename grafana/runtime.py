"""Broker and runtime: the hub's own machinery, from queue to exporter."""

from __future__ import annotations

from typing import Any

from grafana.kit import GREEN, PER_MINUTE, PER_SECOND, RED, YELLOW, Q, board, lines, one, steps, timeline, words

R = "[$__rate_interval]"
WAIT = f'rate(hub_task_queue_wait_seconds_bucket{{service=~"$service"}}{R})'
LAST = 'hub_consumer_last_success_timestamp_seconds{service=~"$service"}'
RUN = f'rate(hub_consumer_run_duration_seconds_bucket{{service=~"$service"}}{R})'
UP = words(_0=("DOWN", RED), _1=("up", GREEN))


def beat(title: str, component: str, what: str, bad: float) -> tuple[int, Any]:
    """How long ago a kind of process last gave a sign of life."""
    return (
        4,
        one(
            f"{title}, last seen",
            f"Time since any {component} last gave a sign of life. {what}",
            f'time() - max(hub_heartbeat_timestamp_seconds{{component="{component}"}})',
            "s",
            none="never seen",
            decimals=0,
            thresholds=steps(GREEN, (bad / 2, YELLOW), (bad, RED)),
            link="/d/hub-runbooks",
        ),
    )


def build() -> dict[str, Any]:
    """The dashboard."""
    numbers = [
        beat("Worker", "worker", "Workers deliver.", 60),
        beat("Releaser", "releaser", "It hands due tasks to the broker; one of the workers does it.", 60),
        beat("Scheduler", "scheduler", "Without it response queues are not drained.", 180),
        beat("Web", "web", "It takes events in over HTTP.", 180),
        (
            4,
            one(
                "Exporters",
                "Exporters that answer.",
                'count(up{job="hub"} == 1) or vector(0)',
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
                "Versions of the hub that run. More than one: an update is under way.",
                "count(count by (version) (hub_build_info))",
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
        "The hub's own machinery: processes, sources of metrics, broker queues, database connections, response queues.",
        [
            (4, numbers),
            (
                7,
                [
                    (
                        12,
                        timeline(
                            "Sources",
                            "What the exporters can read. Down: that server is away, its series are missing.",
                            [
                                Q(
                                    "min by (collector, instance) (hub_exporter_collector_up)",
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
                            "Scrapes give a source five seconds.",
                            [Q("max by (collector) (hub_exporter_collector_duration_seconds)", "{{collector}}")],
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
                            "By queue. `.XQ` was given up by Dramatiq (the ledger has it still).",
                            [Q("max by (queue) (hub_queue_depth)", "{{queue}}")],
                            "short",
                        ),
                    ),
                    (
                        8,
                        lines(
                            "Messages unacknowledged",
                            "Taken by a worker and not yet done; from RabbitMQ's own plugin.",
                            [Q("sum by (queue) (rabbitmq_detailed_queue_messages_unacked)", "{{queue}}")],
                            "short",
                        ),
                    ),
                    (
                        8,
                        lines(
                            "Consumers",
                            "By queue. None on the dispatch queue: nothing is delivered.",
                            [Q("max by (queue) (hub_queue_consumers)", "{{queue}}")],
                            "short",
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
                            "Database connections in use",
                            "By kind of process.",
                            [
                                Q("sum by (process) (hub_db_pool_connections)", "{{process}}"),
                                Q("sum by (process) (hub_db_pool_max_connections)", "{{process}} may have"),
                            ],
                            "short",
                        ),
                    ),
                    (
                        8,
                        lines(
                            "Events accepted",
                            "What came in, by what became of it.",
                            [Q(f"sum by (result) (rate(hub_events_accepted_total{R}))", "{{result}}")],
                            PER_SECOND,
                            stacked=True,
                        ),
                    ),
                    (
                        8,
                        lines(
                            "Queue wait, p95",
                            "From when a task was due until a worker took it, over all chosen services.",
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
                                    f'60 * sum by (outcome) (rate(hub_consumer_runs_total{{service=~"$service"}}{R}))',
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
                            "How long a run over one queue took; it may take 50 s.",
                            [
                                Q(
                                    f"histogram_quantile(0.95, sum by (service, le) ({RUN}))",
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
                            "Time since each was drained without an error.",
                            [
                                Q(
                                    f"time() - max by (service) ({LAST})",
                                    "{{service}}",
                                )
                            ],
                            "s",
                            limit=300,
                        ),
                    ),
                ],
            ),
        ],
    )
