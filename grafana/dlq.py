"""Dashboard of dead letters and retries."""

from __future__ import annotations

from typing import Any

from grafana.kit import (
    BLUE,
    ENV,
    GREEN,
    PER_MINUTE,
    PER_SECOND,
    RED,
    SERVICE_LINK,
    YELLOW,
    Column,
    Q,
    board,
    colored,
    grid,
    lines,
    one,
    steps,
)

S = f'{ENV}, service=~"$service"'
R = "[$__rate_interval]"
BUDGET = f"max by (environment, service) (service:hub_error_budget_remaining:ratio30d{{{S}}})"
REPLAYS = f"rate(hub_dead_letter_replays_total{{{S}}}{R})"
REASONS = {"attempts": RED, "expired": YELLOW, "worker_lost": "purple"}
FINISHED = {"delivered": GREEN, "dead": RED, "cancelled": BLUE}


def build() -> dict[str, Any]:
    """Return the dashboard."""
    numbers = [
        (
            4,
            one(
                "Dead letters",
                "Dead letters that were neither replayed nor deleted.",
                f"sum(max by (environment, service) (hub_dead_letters{{{S}}}))",
                "short",
                thresholds=steps(GREEN, (1, YELLOW)),
                link="/d/hub-runbooks",
            ),
        ),
        (
            4,
            one(
                "Oldest",
                "Age of the oldest dead letter. After a day HubDeadLettersUnhandled fires.",
                f"max(hub_oldest_dead_letter_age_seconds{{{S}}})",
                "s",
                none="none",
                decimals=0,
                thresholds=steps(GREEN, (3600, YELLOW), (86400, RED)),
                link="/d/hub-runbooks",
            ),
        ),
        (
            4,
            one(
                "New, 1 h",
                "Tasks that became dead letters within the last hour.",
                f"sum(increase(hub_dead_letters_total{{{S}}}[1h]))",
                "short",
                decimals=0,
                thresholds=steps(GREEN, (1, RED)),
                link="/d/hub-runbooks",
            ),
        ),
        (
            4,
            one(
                "Replayed, 1 h",
                "Dead letters that were replayed within the last hour.",
                f"sum(increase(hub_dead_letter_replays_total{{{S}}}[1h]))",
                "short",
                decimals=0,
            ),
        ),
        (
            4,
            one(
                "Retries",
                "Failed attempts that are followed by another attempt, per second.",
                f"sum(rate(hub_retries_scheduled_total{{{S}}}{R}))",
                PER_SECOND,
                decimals=2,
            ),
        ),
        (
            4,
            one(
                "Delayed tasks",
                "Tasks that wait for their next attempt, or because the circuit is open.",
                f'sum(max by (environment, service) (hub_tasks{{{S}, state="delayed"}}))',
                "short",
            ),
        ),
    ]
    by_service = grid(
        "By service",
        "Dead letters of each service: number, age, rate.",
        [
            Column(
                "Dead", f"max by (environment, service) (hub_dead_letters{{{S}}}) > 0", "short", colored((1, YELLOW))
            ),
            Column(
                "Oldest",
                f"max by (environment, service) (hub_oldest_dead_letter_age_seconds{{{S}}})",
                "s",
                colored((3600, YELLOW), (86400, RED)),
            ),
            Column(
                "Last hour",
                f"sum by (environment, service) (increase(hub_dead_letters_total{{{S}}}[1h])) > 0",
                "short",
                (*colored((1, RED)), ("decimals", 0)),
            ),
            Column(
                "Dead of finished",
                f"max by (environment, service) (service:hub_tasks_dead:ratio_rate1h{{{S}}}) > 0",
                "percentunit",
                colored((0.01, YELLOW), (0.144, RED)),
            ),
        ],
        key="service",
        links=[("service", "Service detail", SERVICE_LINK)],
        sort=("Dead", True),
        none="no dead letters",
    )
    return board(
        "hub-dlq",
        "Hub / DLQ and retries",
        "Dead letters and their reasons, retries, and the error budget.",
        [
            (4, numbers),
            (
                8,
                [
                    (12, by_service),
                    (
                        12,
                        lines(
                            "New dead letters, by reason",
                            "attempts: all attempts failed. expired: too old. worker_lost: it ended its workers.",
                            [Q(f"60 * sum by (reason) (rate(hub_dead_letters_total{{{S}}}{R}))", "{{reason}}")],
                            PER_MINUTE,
                            bars=True,
                            colors=REASONS,
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
                            "Error budget, 1 h",
                            "Share of finished tasks that became dead letters. Objective: 1 %. Above the line "
                            "HubDeliveryErrorBudgetBurnFast fires.",
                            [
                                Q(
                                    f"max by (environment, service) (service:hub_tasks_dead:ratio_rate1h{{{S}}})",
                                    "{{service}}",
                                )
                            ],
                            "percentunit",
                            limit=0.144,
                            maximum=1,
                            drill=True,
                        ),
                    ),
                    (
                        6,
                        lines(
                            "Error budget left, 30 days",
                            "100 %: no dead letters. 0: 1 % of the finished tasks became dead letters. Below 0: the "
                            "objective was missed.",
                            [
                                Q(
                                    BUDGET,
                                    "{{service}}",
                                )
                            ],
                            "percentunit",
                            minimum=-1,
                            maximum=1,
                            drill=True,
                        ),
                    ),
                    (
                        6,
                        lines(
                            "Tasks finished",
                            "Finished tasks, by outcome.",
                            [Q(f"sum by (outcome) (rate(hub_tasks_finished_total{{{S}}}{R}))", "{{outcome}}")],
                            PER_SECOND,
                            stacked=True,
                            colors=FINISHED,
                        ),
                    ),
                    (
                        6,
                        lines(
                            "Failed attempts, by reason",
                            "Tasks whose attempts keep failing become dead letters.",
                            [Q(f"sum by (reason) (rate(hub_dispatch_failures_total{{{S}}}{R})) > 0", "{{reason}}")],
                            PER_SECOND,
                            stacked=True,
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
                            "Dead letters",
                            "Number of dead letters, by service.",
                            [Q(f"max by (environment, service) (hub_dead_letters{{{S}}}) > 0", "{{service}}")],
                            "short",
                            drill=True,
                            none="no dead letters",
                        ),
                    ),
                    (
                        8,
                        lines(
                            "Retries by service",
                            "Failed attempts that are followed by another attempt.",
                            [
                                Q(
                                    f"sum by (environment, service) (rate(hub_retries_scheduled_total{{{S}}}{R}))",
                                    "{{service}}",
                                )
                            ],
                            PER_SECOND,
                            drill=True,
                        ),
                    ),
                    (
                        8,
                        lines(
                            "Replayed",
                            "Replayed dead letters.",
                            [
                                Q(
                                    f"60 * sum by (environment, service) ({REPLAYS})",
                                    "{{service}}",
                                )
                            ],
                            PER_MINUTE,
                            bars=True,
                        ),
                    ),
                ],
            ),
        ],
    )
