"""The Dramatiq actors: thin, and registered on the broker they are given."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import dramatiq
import structlog
from periodiq import PeriodiqMiddleware, cron

from hub.errors import HubError, UnavailableError
from hub.pipeline.dispatch import AttemptFailed, Dispatcher
from hub.tasks.broker import (
    CONSUME,
    DISPATCH,
    TICK,
    Broker,
)
from hub.tasks.bulkhead import CONSUMERS, Bulkhead
from hub.tasks.retries import TaskRetries

log = structlog.get_logger("hub.actors")
_FIRST = -10  # lower goes first: a tick or a consumer run does not wait behind a backlog of deliveries


@dataclass(frozen=True, slots=True)
class Actors:
    """The actors of a broker."""

    dispatch: Any
    consume: Any
    housekeeping: Any
    tick: Any


def _raise(failure: Exception) -> None:
    raise failure


def _drain(
    bulkhead: Bulkhead,
    key: int,
    item: int,
    act: Callable[[int], object],
    settle: Callable[[Exception], None] = _raise,
) -> None:
    """Do `item`, if there is room for it, and then what waited for this thread, whatever becomes of each.

    The failure of the last one is raised; those before it are settled here, so that none keeps the others
    from running or the thread from being given up.
    """
    if not bulkhead.enter(key, item):
        return
    next_item: int | None = item
    while next_item is not None:
        done, failure = next_item, None
        try:
            act(done)
        except Exception as e:
            failure = e
        next_item = bulkhead.next_or_leave(key)
        if failure is not None:
            if next_item is None:
                raise failure
            try:
                settle(failure)
            except UnavailableError as e:
                log.warning("not settled; it is taken up again", item=done, error=str(e))
            except Exception:
                log.exception("not settled; it is taken up again", item=done)


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
    """Register all of them.

    Args:
        queues: names by what they carry, see `queue_names`.
        consume: one run over the response queue of the service with that id.
        run_housekeeping: one run of housekeeping.
        tick: starts what the schedule says is due.
    """

    def dispatch_event_task(task_id: int, service_id: int) -> None:
        """One attempt of one task, and of those of its service that waited for this thread."""
        _drain(bulkhead, service_id, task_id, attempt, settle)

    def attempt(task_id: int) -> None:
        try:
            dispatcher.run(task_id)
        except UnavailableError as e:  # only while the process stops: else the ledger waits for its database
            log.warning("left to others: the process stops", task=task_id, error=str(e))

    def settle(failure: Exception) -> None:
        """What the middleware does for the last of them. A task that is not settled is its lease's."""
        if not isinstance(failure, AttemptFailed):
            raise failure
        retries.record(failure)

    def consume_responses_task(service_id: int) -> None:
        """One run over one service's response queue; all such runs together hold a share of the threads."""
        _drain(bulkhead, CONSUMERS, service_id, read_queue)

    def read_queue(service_id: int) -> None:
        try:
            consume(service_id)
        except HubError as e:
            log.warning("a response queue was not read; next time", service_id=service_id, error=str(e))

    def housekeeping_task() -> None:
        """One run of housekeeping."""
        try:
            run_housekeeping()
        except HubError as e:
            log.warning("housekeeping not finished; next time", error=str(e))

    def tick_task() -> None:
        """What periodiq sends once a minute. One that comes late does no harm: it claims the minute that is now."""
        try:
            tick()
        except HubError as e:
            log.warning("the tick was given back", error=str(e))

    # It would skip ticks that are old by two machines' clocks: all of them when the scheduler's is slow.
    broker.add_middleware(PeriodiqMiddleware(skip_delay=math.inf))

    def on(queue: str, **options: Any) -> Callable[[Callable[..., None]], Any]:
        return dramatiq.actor(broker=broker, queue_name=queues[queue], **options)

    return Actors(
        dispatch=on(DISPATCH, throws=(AttemptFailed,))(dispatch_event_task),
        consume=on(CONSUME, priority=_FIRST)(consume_responses_task),
        housekeeping=on(CONSUME)(housekeeping_task),
        tick=on(TICK, priority=_FIRST, periodic=cron("* * * * *"))(tick_task),
    )
