"""The Dramatiq actors: thin, and registered on the broker they are given."""

from __future__ import annotations

import time
from collections.abc import Callable

import dramatiq

from hub.dispatch import AttemptFailed, Dispatcher
from hub.tasks.broker import CONSUME, DISPATCH, TICK, Broker, queue_names
from hub.tasks.bulkhead import Bulkhead
from hub.tasks.retries import TaskRetries


def register_dispatch(
    broker: Broker, prefix: str, dispatcher: Dispatcher, retries: TaskRetries, bulkhead: Bulkhead
) -> dramatiq.Actor[[int, int], None]:
    """`dispatch_event_task`: one attempt of one task."""

    def dispatch_event_task(task_id: int, service_id: int) -> None:
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

    return dramatiq.actor(
        dispatch_event_task, broker=broker, queue_name=queue_names(prefix)[DISPATCH], throws=(AttemptFailed,)
    )


def register_consume(broker: Broker, prefix: str, consume: Callable[[int], None]) -> dramatiq.Actor[[int], None]:
    """`consume_responses_task`: one run over one service's response queue."""

    def consume_responses_task(service_id: int) -> None:
        consume(service_id)

    return dramatiq.actor(consume_responses_task, broker=broker, queue_name=queue_names(prefix)[CONSUME])


def register_tick(broker: Broker, prefix: str, tick: Callable[[], None], **options: object) -> dramatiq.Actor[[], None]:
    """`tick`: once a minute, run what the schedule says is due."""

    def tick_task() -> None:
        tick()

    return dramatiq.actor(
        tick_task,
        broker=broker,
        queue_name=queue_names(prefix)[TICK],
        **options,  # type: ignore[call-overload,no-any-return]
    )
