"""The Dramatiq actors: thin, and registered on the broker they are given."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import dramatiq
import structlog
from periodiq import PeriodiqMiddleware, cron

from hub.dispatch import AttemptFailed, Dispatcher
from hub.errors import HubError
from hub.tasks.broker import CONSUME, DISPATCH, TICK, Broker
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


def register(
    broker: Broker,
    queues: dict[str, str],
    *,
    dispatcher: Dispatcher,
    retries: TaskRetries,
    bulkhead: Bulkhead,
    consume: Callable[[int], object],
    keep_house: Callable[[], object],
    tick: Callable[[], object],
) -> Actors:
    """Register all of them.

    Args:
        queues: names by what they carry, see `queue_names`.
        consume: one run over the response queue of the service with that id.
        keep_house: one run of housekeeping.
        tick: starts what the schedule says is due.
    """

    def dispatch_event_task(task_id: int, service_id: int) -> None:
        """One attempt of one task, and of those of its service that waited for this thread."""
        if not bulkhead.enter(service_id, task_id):
            return
        next_id: int | None = task_id
        while next_id is not None:
            started = time.monotonic()
            failure: AttemptFailed | None = None
            try:
                dispatcher.run(next_id)
            except AttemptFailed as e:
                failure = e
            finally:
                next_id = bulkhead.next_or_leave(service_id, time.monotonic() - started)
            if failure is not None:
                if next_id is None:
                    raise failure  # the middleware settles it
                retries.settle(failure)

    def consume_responses_task(service_id: int) -> None:
        """One run over one service's response queue; all such runs together hold a share of the threads."""
        if not bulkhead.enter(CONSUMERS, service_id):
            return
        next_id: int | None = service_id
        while next_id is not None:
            started = time.monotonic()
            try:
                consume(next_id)
            except HubError as e:
                log.warning("a response queue was not read; next time", service_id=next_id, error=str(e))
            finally:
                next_id = bulkhead.next_or_leave(CONSUMERS, time.monotonic() - started)

    def housekeeping_task() -> None:
        """One run of housekeeping."""
        try:
            keep_house()
        except HubError as e:
            log.warning("housekeeping not finished; next time", error=str(e))

    def tick_task() -> None:
        """What periodiq sends once a minute. Workers skip one that is older than 30 s; the next makes up for it."""
        try:
            tick()
        except HubError as e:
            log.warning("the tick was given back", error=str(e))

    broker.add_middleware(PeriodiqMiddleware(skip_delay=30))

    def on(queue: str, **options: Any) -> Callable[[Callable[..., None]], Any]:
        return dramatiq.actor(broker=broker, queue_name=queues[queue], **options)

    return Actors(
        dispatch=on(DISPATCH, throws=(AttemptFailed,))(dispatch_event_task),
        consume=on(CONSUME, priority=_FIRST)(consume_responses_task),
        housekeeping=on(CONSUME)(housekeeping_task),
        tick=on(TICK, priority=_FIRST, periodic=cron("* * * * *"))(tick_task),
    )
