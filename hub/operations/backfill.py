"""Backfill a rule over past events: count, start, pause, resume, cancel. A worker makes the tasks in the background."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from hub.app.lifecycle import Hub
from hub.errors import PayloadError
from hub.models import Rule
from hub.operations.tasks import who
from hub.scheduling.backfill import matcher, scope_of
from hub.store.backfills import Backfill

__all__ = ["RATE", "Backfill", "Count", "cancel", "count", "start"]
RATE = 50.0
"""Tasks made in a second, where nobody says another rate."""
_MOST = 10_000.0  # tasks a second


@dataclass(frozen=True, slots=True)
class Count:
    """What a backfill would do.

    `matched`: events that match the rule; `skipped` of them have a task of this rule, or had one. `complete`: False
    when the count was stopped; then it is what was found until then.
    """

    matched: int
    skipped: int
    complete: bool = True

    @property
    def tasks(self) -> int:
        """Tasks that would be made."""
        return self.matched - self.skipped


def count(
    hub: Hub,
    rule: Rule,
    since: datetime,
    until: datetime,
    *,
    told: Callable[[float], None] = lambda progress: None,
    go_on: Callable[[], bool] = lambda: True,
) -> Count:
    """Count the events that a backfill would find.

    Args:
        told: called after each window with the part of the events that was read, from 0 to 1.
        go_on: asked before each window; False stops the count.
    """
    _check(since, until)
    matches = matcher(rule)
    first, last = hub.views.event_log.first_since(since), hub.backfills.last_id()
    matched = skipped = 0
    for up_to, events in hub.backfill_steps.windows(scope_of(rule, since, until), first, last):
        found = [event for event in events if matches(event)]
        matched += len(found)
        skipped += sum(event["had_task"] for event in found)
        told((up_to - first + 1) / (last - first + 1))
        if up_to < last and not go_on():
            return Count(matched, skipped, complete=False)
    return Count(matched, skipped)


def start(
    hub: Hub, rule: Rule, since: datetime, until: datetime, *, rate: float = RATE, expected: int | None = None
) -> Backfill:
    """Start a backfill: a worker makes a task of the rule for each event of that time that has none.

    Args:
        rate: most tasks made in a second.
        expected: how many tasks were counted, for its progress.

    Raises:
        PayloadError: `until` is not after `since`, or the rate is not usable.
        ConflictError: a backfill of this rule is running or paused.
    """
    _check(since, until)
    if not 0 < rate <= _MOST:
        raise PayloadError(f"rate: must be above 0 and at most {_MOST:.0f} tasks a second")
    backfill_id = hub.backfills.start(
        scope_of(rule, since, until),
        rule.name,
        rate=rate,
        first_id=hub.views.event_log.first_since(since),
        last_id=hub.backfills.last_id(),
        expected=expected,
    )
    return hub.backfills.get(backfill_id)


def cancel(hub: Hub, backfill_id: int) -> tuple[Backfill, int]:
    """End a backfill for good and delete those of its tasks that wait in the lane: (it, how many were deleted).

    Raises:
        NotFoundError: no such backfill.
        ConflictError: it has ended.
    """
    return hub.backfills.cancel(backfill_id, who=who())


def _check(since: datetime, until: datetime) -> None:
    if until <= since:
        raise PayloadError("until: must be after since")
