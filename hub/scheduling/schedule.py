"""The tick and the schedule. Each scheduled task is a row that every tick reads.

A tick claims one minute in the database and launches the tasks that are due, in one transaction. If a launch fails, the
claim is rolled back and the tasks are due again at the next tick. Missed runs (no scheduler, a backlog) are
made up for by one run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from hub.scheduling.cron import next_runs, parse_cron, runs_after
from hub.store.schedules import (
    CONSUME,
    HOUSEKEEPING,
    ClaimedMinute,
    ScheduledTask,
    Schedules,
)

__all__ = [
    "CONSUME",
    "HOUSEKEEPING",
    "Due",
    "Schedule",
    "ScheduledTask",
    "next_runs",
    "parse_cron",
    "run_due",
    "runs_after",
]
log = structlog.get_logger("hub.scheduling.schedule")

_MINUTE = timedelta(minutes=1)
_COUNT_MISSED = 10_000  # most missed runs that are counted


@dataclass(frozen=True, slots=True)
class Due:
    """A scheduled task to launch now. `missed` runs before this one never took place."""

    name: str
    missed: int = 0
    requested: bool = False


class Schedule:
    """The scheduled tasks of a deployment.

    Args:
        store: their rows.
        zone: name of the time zone in which expressions are read.
        now: reads the deployment's clock, which every scheduler shares; timezone-aware.
    """

    def __init__(self, store: Schedules, zone: str, *, now: Callable[[], datetime]) -> None:
        self._store = store
        self.zone = zone
        self._now = now

    def show(self, name: str) -> ScheduledTask:
        """One scheduled task; raises `NotFoundError`."""
        return self._shown(self._store.get(name))

    def preview(self, cron: str, n: int = 5, *, name: str = "") -> list[datetime]:
        """The next runs of an expression that is not saved yet; raises `ConfigError`."""
        return next_runs(parse_cron(cron, seed=self._store.seed(name)), self.zone, self._now(), n)

    def tidy(self, name: str, cron: str) -> str:
        """The expression as `set` would keep it; raises `ConfigError`."""
        return parse_cron(cron, seed=self._store.seed(name))

    def set(self, name: str, cron: str) -> ScheduledTask:
        """Change the expression; counts from the next minute, in every process.

        Raises:
            ConfigError: names the bad field.
            NotFoundError: no such scheduled task.
        """
        task = self._store.get(name)
        cron = parse_cron(cron, seed=self._store.seed(name))
        if cron != task.cron:
            self._store.update(name, cron=cron, next_run_at=self._next(cron, self._now()) if task.enabled else None)
        return self.show(name)

    def reset(self, name: str) -> ScheduledTask:
        """Back to the expression the hub came with."""
        return self.set(name, self._store.get(name).default_cron)

    def enable(self, name: str, enabled: bool = True) -> ScheduledTask:
        """Enable or disable; runs missed while disabled are not made up for."""
        task = self._store.get(name)
        if task.enabled != enabled:
            next_run_at = self._next(task.cron, self._now()) if enabled else None
            self._store.enable(name, enabled, next_run_at)
        return self.show(name)

    def request_run(self, name: str) -> ScheduledTask:
        """Run at the next tick, whatever the expression says, also when disabled."""
        self._store.get(name)
        self._store.request(name)
        return self.show(name)

    def tick(self, now: datetime | None = None, launch: Callable[[Due], int | None] | None = None) -> list[Due]:
        """Claim this minute and launch what is due. An empty list: nothing is, or another scheduler has the minute.

        Args:
            now: defaults to the clock.
            launch: enqueues one task (never runs it: the rows are locked) and returns how many
                runs that makes, None for one; called before the claim is committed. What it raises is raised
                here, and the claim is taken back.

        Raises:
            UnavailableError: the database is away; nothing was claimed.
        """
        now = now or self._now()
        minute = now.replace(second=0, microsecond=0)
        due: list[Due] = []
        with self._store.claim(minute) as claimed:
            for task in claimed.tasks if claimed is not None else ():
                assert claimed is not None
                if (run := self._judge(claimed, task, minute)) is not None:
                    due.append(run)
                    if launch is not None and launch(run) == 0:
                        claimed.nothing_to_do(run.name)
        for run in due:
            if run.missed:
                log.warning("made up for missed runs with one run", scheduled_task=run.name, missed=run.missed)
        return due

    def _judge(self, claimed: ClaimedMinute, task: ScheduledTask, minute: datetime) -> Due | None:
        """Whether a task is due in this minute; writes when it comes next."""
        requested, planned = task.run_requested_at is not None, task.next_run_at
        if not task.enabled:
            if requested:
                claimed.launched(task.name, None)
            return Due(task.name, requested=True) if requested else None
        following = self._next(task.cron, minute)
        if planned is None:  # new: this very minute counts
            planned = self._next(task.cron, minute - _MINUTE)
        on_time = planned is not None and planned <= minute
        if not (on_time or requested):
            # Not due. After a change of the time zone, or of a clock that was ahead, the plan is another one.
            if following != task.next_run_at:
                claimed.plan(task.name, following)
            return None
        claimed.launched(task.name, following)
        return Due(task.name, self._missed(task.cron, planned, minute) if on_time else 0, requested)

    def _missed(self, cron: str, planned: datetime | None, minute: datetime) -> int:
        if planned is None or planned >= minute:
            return 0
        count = 0
        for at in runs_after(cron, self.zone, planned - _MINUTE):
            if at >= minute or count >= _COUNT_MISSED:
                break
            count += 1
        this_minute = next(runs_after(cron, self.zone, minute - _MINUTE), None) == minute
        return count if this_minute else count - 1  # the run of now stands for the last one missed

    def _next(self, cron: str, after: datetime) -> datetime | None:
        return next(runs_after(cron, self.zone, after), None)

    def _shown(self, task: ScheduledTask) -> ScheduledTask:
        if task.enabled and task.next_run_at is None:
            return task.planned(self._next(task.cron, self._now()))
        return task

    def list(self) -> list[ScheduledTask]:
        """Every scheduled task, by name, with its next run."""
        return [self._shown(task) for task in self._store.list()]


def run_due(
    schedule: Schedule, starters: Mapping[str, Callable[[], int | None]], now: datetime | None = None
) -> list[Due]:
    """One tick: start what is due through `starters` (by task name), which hand it to the broker.

    A starter returns how many runs that makes (None: one); what it raises takes the tick back.
    """

    def launch(due: Due) -> int | None:
        starter = starters.get(due.name)
        if starter is None:
            log.error("this version knows no such scheduled task", scheduled_task=due.name)
            return 0
        return starter()

    return schedule.tick(now, launch)
