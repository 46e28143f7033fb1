"""Why a task waits: the first reason that applies, in words."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from hub.domain.waits import Conditions, Wait, Waiting, wait_of

NOW = datetime(2026, 3, 1, 19, 36, tzinfo=UTC)
SOON = NOW + timedelta(minutes=2)
LATER = NOW + timedelta(minutes=5)
TASK = Waiting("pending", 0, NOW, None, False, "r", "crm", True, True, False, False)


@pytest.mark.parametrize(
    ("task", "around", "wanted"),
    [
        ({"state": "running"}, {}, None),
        ({}, {}, Wait("a free worker")),
        ({"state": "queued", "before": 12}, {}, Wait("a free worker, 12 before it")),
        ({"rule_enabled": False}, {"workers": 0}, Wait("rule r disabled", blocked=True)),
        ({"service_enabled": False, "rule_enabled": False}, {}, Wait("service crm disabled", blocked=True)),
        ({"rule_deleted": True}, {}, Wait("rule r was deleted", blocked=True)),
        ({"service_deleted": True, "service": None}, {}, Wait("its service was deleted", blocked=True)),
        ({}, {"workers": 0}, Wait("no worker is running")),
        ({}, {"broker": False}, Wait("broker unreachable")),
        (
            {},
            {"breaker": "open", "retry_at": SOON},
            Wait("circuit open, next probe 19:38:00 UTC", SOON, blocked=True),
        ),
        ({}, {"breaker": "half_open"}, Wait("circuit open, a probe is due or under way", blocked=True)),
        (
            {"state": "delayed", "next_run_at": SOON, "attempts": 2, "last_error": "circuit"},
            {"breaker": "open", "retry_at": SOON},
            Wait("circuit open, next probe 19:38:00 UTC", SOON, blocked=True),
        ),
        (
            {"state": "delayed", "next_run_at": LATER, "attempts": 2},
            {"breaker": "open", "retry_at": SOON},
            Wait("retry 3 of 5 at 19:41:00 UTC", LATER),
        ),
        ({"state": "delayed", "next_run_at": LATER, "attempts": 2}, {}, Wait("retry 3 of 5 at 19:41:00 UTC", LATER)),
        (
            {"state": "delayed", "next_run_at": NOW + timedelta(days=1), "last_error": "no key opens its secrets"},
            {},
            Wait("next attempt at 2026-03-02 19:36 UTC: no key opens its secrets", NOW + timedelta(days=1)),
        ),
        ({"state": "delayed", "next_run_at": NOW, "attempts": 2}, {}, Wait("a free worker")),
        ({"before": 1000}, {"rate_limit": 5.0}, Wait("rate limit 5/s, 1,000+ before it")),
        (
            {"state": "delayed", "next_run_at": SOON, "last_error": "crm takes 5 requests/s at most"},
            {"rate_limit": 5.0},
            Wait("rate limit 5/s", SOON),
        ),
        ({"before": 3}, {"queued": 1000}, Wait("per-service queue limit (1,000), 3 before it")),
        ({"bulk": True}, {}, Wait("live events go first")),
    ],
)
def test_the_first_reason_is_named(task: dict[str, Any], around: dict[str, Any], wanted: Wait | None) -> None:
    assert wait_of(replace(TASK, **task), Conditions(NOW, **around)) == wanted
