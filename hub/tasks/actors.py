"""The Dramatiq actors. They contain no logic of the pipeline."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import dramatiq
import structlog
from periodiq import PeriodiqMiddleware, cron

from hub.errors import HubError, UnavailableError
from hub.pipeline.attempts import FailedAttempt
from hub.pipeline.dispatch import Dispatcher
from hub.tasks.broker import CONSUME, DISPATCH, TICK, Broker
from hub.tasks.bulkhead import CONSUMERS, Bulkhead
from hub.tasks.retries import AttemptFailed, TaskRetries

log = structlog.get_logger("hub.tasks.actors")
_FIRST = -10  # priority; lower runs first: ticks and consumer runs do not wait behind a backlog of deliveries


@dataclass(frozen=True, slots=True)
class Actors:
    """The actors of a broker."""

    dispatch: Any
    consume: Any
    housekeeping: Any
    tick: Any


def _drain(
    bulkhead: Bulkhead,
    key: int,
    item: int,
    act: Callable[[int], FailedAttempt | None],
    record: Callable[[FailedAttempt], object] = lambda _: None,
) -> FailedAttempt | None:
    """Process `item` if the bulkhead admits it, then the items that wait for this thread.

    Returns the failed attempt of the last item, which the middleware records. Failed attempts before it are passed to
    `record`. An error of an item does not stop the others; an error of the last one is raised.
    """
    if not bulkhead.enter(key, item):
        return None
    next_item: int | None = item
    while next_item is not None:
        done, failure, error = next_item, None, None
        try:
            failure = act(done)
        except Exception as e:
            error = e
        next_item = bulkhead.next_or_leave(key)
        if next_item is None:
            if error is not None:
                raise error
            return failure
        if error is not None:
            log.error("internal error; the lease recovers the task", item=done, exc_info=error)
        if failure is not None:
            record(failure)
    return None


def register(
    broker: Broker,
    queues: dict[str, str],
    *,
    dispatcher: Dispatcher,
    retries: TaskRetries,
    bulkhead: Bulkhead,
    consume: Callable[[int], object],
    run_housekeeping: Callable[[], object],
    tick: Callable[[], object],
) -> Actors:
    """Register all actors on a broker.

    Args:
        queues: names by kind, see `queue_names`.
        consume: reads the response queue of the service with that id once.
        run_housekeeping: one run of housekeeping.
        tick: launches the scheduled tasks that are due.
    """

    def dispatch_event_task(task_id: int, service_id: int) -> None:
        """One attempt of a task, then of the tasks of its service that wait for this thread."""
        failure = _drain(bulkhead, service_id, task_id, attempt, retries.after_attempt)
        if failure is not None:
            raise AttemptFailed(failure)

    def attempt(task_id: int) -> FailedAttempt | None:
        try:
            outcome = dispatcher.run(task_id)
        except UnavailableError as e:  # only while the process stops; until then the ledger waits for its database
            log.warning("not attempted: the process is stopping", task=task_id, error=str(e))
            return None
        return outcome if isinstance(outcome, FailedAttempt) else None

    def consume_responses_task(service_id: int) -> None:
        """Read the response queue of one service. All such runs together are limited as one service."""
        _drain(bulkhead, CONSUMERS, service_id, read_queue)

    def read_queue(service_id: int) -> None:
        try:
            consume(service_id)
        except HubError as e:
            log.warning("response queue not read; the next run reads it", service_id=service_id, error=str(e))

    def housekeeping_task() -> None:
        """One run of housekeeping."""
        try:
            run_housekeeping()
        except HubError as e:
            log.warning("housekeeping not finished; the next run continues", error=str(e))

    def tick_task() -> None:
        """Triggered by periodiq once a minute. A late message is harmless: the tick claims the current minute."""
        try:
            tick()
        except HubError as e:
            log.warning("tick rolled back", error=str(e))

    # No skip_delay: it compares the clocks of two machines, and would skip every tick of one whose clock is late.
    broker.add_middleware(PeriodiqMiddleware(skip_delay=math.inf))

    def on(queue: str, **options: Any) -> Callable[[Callable[..., None]], Any]:
        return dramatiq.actor(broker=broker, queue_name=queues[queue], **options)

    return Actors(
        dispatch=on(DISPATCH, throws=(AttemptFailed,))(dispatch_event_task),
        consume=on(CONSUME, priority=_FIRST)(consume_responses_task),
        housekeeping=on(CONSUME)(housekeeping_task),
        tick=on(TICK, priority=_FIRST, periodic=cron("* * * * *"))(tick_task),
    )
