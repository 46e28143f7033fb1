"""DLQ and retries: what was given up, why, and what is on its way there."""

from __future__ import annotations

from typing import Any

from grafana.kit import (
    BLUE,
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

S = 'service=~"$service"'
R = "[$__rate_interval]"
REPLAYS = f"rate(hub_dead_letter_replays_total{{{S}}}{R})"
REASONS = {"attempts": RED, "expired": YELLOW, "worker_lost": "purple"}
FINISHED = {"delivered": GREEN, "dead": RED, "cancelled": BLUE}


def build() -> dict[str, Any]:
    """The dashboard."""
    numbers = [
        (
            4,
            one(
                "Dead letters",
                "Tasks that wait for a person: replay or delete them.",
                f"sum(max by (service) (hub_dead_letters{{{S}}}))",
                "short",
                thresholds=steps(GREEN, (1, YELLOW)),
                link="/d/hub-runbooks",
            ),
        ),
        (
            4,
            one(
                "Oldest",
                "Age of the oldest dead letter. After a day HubDeadLettersUnhandled says so.",
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
                "Given up, 1 h",
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
                "Dead letters that a person replayed within the last hour.",
                f"sum(increase(hub_dead_letter_replays_total{{{S}}}[1h]))",
                "short",
                decimals=0,
            ),
        ),
        (
            4,
            one(
                "Retries",
                "Failed attempts that another one follows, per second.",
                f"sum(rate(hub_retries_scheduled_total{{{S}}}{R}))",
                PER_SECOND,
                decimals=2,
            ),
        ),
        (
            4,
            one(
                "Delayed tasks",
                "Tasks that wait for their next attempt, or behind an open circuit.",
                f'sum(max by (service) (hub_tasks{{{S}, state="delayed"}}))',
                "short",
            ),
        ),
    ]
    by_service = grid(
        "By service",
        "Whose dead letters, since when, and how fast they come.",
        [
            Column("Dead", f"max by (service) (hub_dead_letters{{{S}}}) > 0", "short", colored((1, YELLOW))),
            Column(
                "Oldest",
                f"max by (service) (hub_oldest_dead_letter_age_seconds{{{S}}})",
                "s",
                colored((3600, YELLOW), (86400, RED)),
            ),
            Column(
                "Last hour",
                f"sum by (service) (increase(hub_dead_letters_total{{{S}}}[1h])) > 0",
                "short",
                (*colored((1, RED)), ("decimals", 0)),
            ),
            Column(
                "Dead of finished",
                f"max by (service) (service:hub_tasks_dead:ratio_rate1h{{{S}}}) > 0",
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
        "What was given up and why, what is being retried, and how much of the error budget it costs.",
        [
            (4, numbers),
            (
                8,
                [
                    (12, by_service),
                    (
                        12,
                        lines(
                            "Given up, by reason",
                            "attempts: five failures. expired: too old. worker_lost: it killed its worker.",
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
                        8,
                        lines(
                            "Error budget, 1 h",
                            "Share of finished tasks that died. Above the line HubDeliveryErrorBudgetBurnFast "
                            "fires; the objective is 1 %.",
                            [Q(f"max by (service) (service:hub_tasks_dead:ratio_rate1h{{{S}}})", "{{service}}")],
                            "percentunit",
                            limit=0.144,
                            maximum=1,
                            drill=True,
                        ),
                    ),
                    (
                        8,
                        lines(
                            "Tasks finished",
                            "How tasks ended.",
                            [Q(f"sum by (outcome) (rate(hub_tasks_finished_total{{{S}}}{R}))", "{{outcome}}")],
                            PER_SECOND,
                            stacked=True,
                            colors=FINISHED,
                        ),
                    ),
                    (
                        8,
                        lines(
                            "Why attempts fail",
                            "Failed attempts by reason: the next dead letters, unless it gets better.",
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
                            "How many wait, by service: since when it grows, and whether replays help.",
                            [Q(f"max by (service) (hub_dead_letters{{{S}}}) > 0", "{{service}}")],
                            "short",
                            drill=True,
                            none="no dead letters",
                        ),
                    ),
                    (
                        8,
                        lines(
                            "Retries by service",
                            "Failed attempts that another one follows.",
                            [Q(f"sum by (service) (rate(hub_retries_scheduled_total{{{S}}}{R}))", "{{service}}")],
                            PER_SECOND,
                            drill=True,
                        ),
                    ),
                    (
                        8,
                        lines(
                            "Replayed",
                            "Dead letters that people replayed.",
                            [
                                Q(
                                    f"60 * sum by (service) (rate(hub_dead_letter_replays_total{{{S}}}{R}))",
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
