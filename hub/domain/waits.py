"""Why a task waits, and what ends it, in words. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

MOST_BEFORE = 1000
"""Tasks that are counted before one; more of them are `1,000+`."""

_SAME_TIME = timedelta(seconds=5)  # a parked task is due with the probe, a little later


@dataclass(frozen=True, slots=True)
class Waiting:
    """A task that waits: its row, its rule and service.

    Attributes:
        state: pending, queued, delayed, blocked or running.
        behind: the task that holds the ordering key of a blocked one.
    """

    state: str
    attempts: int
    next_run_at: datetime
    last_error: str | None
    bulk: bool
    rule: str | None
    service: str | None
    rule_enabled: bool
    service_enabled: bool
    rule_deleted: bool
    service_deleted: bool
    before: int = 0
    behind: int | None = None


@dataclass(frozen=True, slots=True)
class Conditions:
    """What holds for all tasks of a service at this moment.

    Attributes:
        breaker: closed, open or half_open; `retry_at`: when an open one lets a probe through.
        queued: tasks of the service in the broker.
        rate_limit: requests per second; None: no limit.
        workers: worker processes with a recent heartbeat.
        broker: whether the outbox relay reached the broker lately.
    """

    now: datetime
    breaker: str = "closed"
    retry_at: datetime | None = None
    queued: int = 0
    queue_limit: int = 1000
    rate_limit: float | None = None
    max_attempts: int = 5
    workers: int = 1
    broker: bool = True


@dataclass(frozen=True, slots=True)
class Wait:
    """What a task waits for. `until`: when that ends, if it is known. `blocked`: running it now would not help."""

    text: str
    until: datetime | None = None
    blocked: bool = False


def wait_of(task: Waiting, now: Conditions) -> Wait | None:
    """What the task waits for; None: it is running.

    The first of these that applies: its rule or service is gone or disabled; the time of its next attempt; no worker
    or broker; the circuit; the limits of the service; other tasks.
    """
    if task.state == "running":
        return None
    if (held := _held(task)) is not None:
        return held
    if task.state == "blocked":
        first = "a task" if task.behind is None else f"task {task.behind}"
        return Wait(f"{first} of the same ordering key", blocked=True)
    return _delayed(task, now) if _is_delayed(task, now) else _due(task, now)


def _held(task: Waiting) -> Wait | None:
    if task.rule_deleted:
        return Wait(f"rule {task.rule} was deleted" if task.rule else "its rule was deleted", blocked=True)
    if task.service_deleted:
        return Wait(f"service {task.service} was deleted" if task.service else "its service was deleted", blocked=True)
    if not task.service_enabled:
        return Wait(f"service {task.service} disabled", blocked=True)
    if not task.rule_enabled:
        return Wait(f"rule {task.rule} disabled", blocked=True)
    return None


def _is_delayed(task: Waiting, now: Conditions) -> bool:
    return task.state == "delayed" and task.next_run_at > now.now


def _delayed(task: Waiting, now: Conditions) -> Wait:
    at = task.next_run_at
    if now.breaker != "closed" and (now.retry_at is None or now.retry_at > at - _SAME_TIME):
        return _circuit(now)
    if now.rate_limit and (task.last_error or "").endswith("requests/s at most"):
        return Wait(f"rate limit {now.rate_limit:g}/s{_before(task)}", at)
    if task.attempts:
        return Wait(f"retry {task.attempts + 1} of {now.max_attempts} at {clock(at, now.now)}", at)
    return Wait(f"next attempt at {clock(at, now.now)}" + (f": {task.last_error}" if task.last_error else ""), at)


def _due(task: Waiting, now: Conditions) -> Wait:
    if not now.workers:
        return Wait("no worker is running")
    if not now.broker:
        return Wait("broker unreachable")
    if now.breaker != "closed":
        return _circuit(now)
    if now.rate_limit and (task.before or now.queued >= max(1, now.rate_limit)):
        return Wait(f"rate limit {now.rate_limit:g}/s{_before(task)}")
    if task.bulk and task.state == "pending":
        return Wait("live events go first")
    if task.state == "pending" and now.queued >= now.queue_limit:
        return Wait(f"per-service queue limit ({now.queue_limit:,}){_before(task)}")
    return Wait(f"a free worker{_before(task)}")


def _circuit(now: Conditions) -> Wait:
    if now.breaker == "half_open" or now.retry_at is None or now.retry_at <= now.now:
        return Wait("circuit open, a probe is due or under way", blocked=True)
    return Wait(f"circuit open, next probe {clock(now.retry_at, now.now)}", now.retry_at, blocked=True)


def _before(task: Waiting) -> str:
    if not task.before:
        return ""
    return f", {task.before:,}{'+' if task.before >= MOST_BEFORE else ''} before it"


def clock(at: datetime, now: datetime) -> str:
    """`19:38:05 UTC`, with the date if it is another day's."""
    return at.strftime("%H:%M:%S UTC" if at.date() == now.date() else "%Y-%m-%d %H:%M UTC")
