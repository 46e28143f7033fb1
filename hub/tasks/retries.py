"""The five-attempt rule, as a Dramatiq middleware.

| Attempt | On failure |
|---|---|
| 1-4 | the next attempt is scheduled in the ledger, later each time |
| 5 | `move_to_dlq()`; the task is over |

Dramatiq swallows what `after_*` hooks raise and then acknowledges the message. So the message is first marked
as failed, then the task is settled, and only then the mark is taken off: a settlement that did not
happen is never an acknowledged loss.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, ClassVar

import dramatiq
import structlog

from hub.errors import UnavailableError
from hub.hooks import Hooks
from hub.models import DeadReason
from hub.pipeline.dead_letters import DeadLetters
from hub.pipeline.dispatch import AttemptFailed
from hub.settings import Settings
from hub.store.ledger import Ledger
from hub.tasks.bulkhead import LONG

log = structlog.get_logger("hub.retries")
_JITTER = 0.1


class TaskRetries(dramatiq.Middleware):  # type: ignore[misc, unused-ignore]
    """Settles failed attempts: schedule the next one, or move the task to the dead-letter queue.

    Args:
        jitter: gives a number in [-1, 1]; injected in tests.
    """

    actor_options: ClassVar[set[str]] = {"throws"}  # exceptions that the worker does not log as surprises

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        dead_letters: DeadLetters,
        hooks: Hooks,
        *,
        jitter: Callable[[], float] = lambda: random.uniform(-1, 1),  # noqa: S311 - spread, not secrecy
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._dead_letters = dead_letters
        self._hooks = hooks
        self._jitter = jitter
        self._narrow, self._wide = threading.Lock(), nullcontext()

    def after_process_message(
        self, broker: dramatiq.Broker, message: Any, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        """Settle the attempt if the actor raised `AttemptFailed`; anything else stays a failed message."""
        if exception is None:
            return
        message.fail()
        if isinstance(exception, AttemptFailed):
            try:
                self.record(exception)
            except UnavailableError as e:  # only while the process stops: else the ledger waits for its database
                log.warning("not settled; it is taken up again", task=exception.claim.id, error=str(e))
            else:
                message.failed = False

    def record(self, failure: AttemptFailed) -> None:
        """Attempts 1-4: again later. The last one: dead letter.

        Those that began together at a service that hangs also time out together. They go one by one: so they
        leave the CPU to other services, and as each goes on with its service's next task, the next time-outs
        are already apart.
        """
        waited = (failure.delivery.latency_ms or 0) > 1000 * LONG
        with self._narrow if waited else self._wide:
            self._record(failure)

    def _record(self, failure: AttemptFailed) -> None:
        claim, service, error = failure.claim, failure.service, failure.error
        limit = service.options.get("max_attempts") or self._settings.max_attempts
        own = service.options.get("retry_delays")
        delay = None if claim.attempt >= limit else self.delay(claim.attempt, own, error.retry_after)
        log.warning("attempt failed", outcome=error.outcome, status=error.status, error=failure.delivery.error,
                    next_in=None if delay is None else round(delay, 1), **failure.context)  # fmt: skip
        if delay is None:
            self._dead_letters.move_to_dlq(claim, service, failure.delivery, DeadReason.ATTEMPTS)
        elif self._ledger.fail(claim, failure.delivery, delay=delay):
            self._hooks.retry_scheduled(service.name)

    def delay(self, attempt: int, own: list[float] | None, retry_after: float | None) -> float:
        """Seconds until the attempt after number `attempt`; at least the service's `Retry-After`, capped."""
        base = own[min(attempt, len(own)) - 1] if own else self._settings.delay_after(attempt)
        delay = base * (1 + _JITTER * self._jitter())
        if retry_after is not None:
            delay = max(delay, min(retry_after, self._settings.retry_after_cap))
        return delay
