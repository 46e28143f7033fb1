"""The five-attempt rule: what follows from the outcome of one attempt.

| Attempt | After a failure |
|---|---|
| 1-4 | the next attempt is scheduled in the ledger, with increasing delays |
| 5 | `move_to_dlq()`: the task ends as a dead letter |

`next_step` is the rule, without side effects. `AttemptRecorder` carries it out. Dramatiq's middleware
(`hub.tasks.retries`) and `hub tasks run` both call the recorder.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Literal

import structlog

from hub.errors import CircuitOpenError, DeliveryError, HubError, NotSentError, RateLimitedError, SecretsError
from hub.hooks import Hooks
from hub.models import Claim, DeadReason, Delivery, Service
from hub.pipeline.dead_letters import DeadLetters
from hub.settings import Settings
from hub.store.ledger import Ledger

log = structlog.get_logger("hub.pipeline.attempts")
_JITTER = 0.1
_RELEASE_DELAY = 1.0  # seconds until a released task is tried again, where the error names no time
_LONG = 0.5  # seconds; failures that took longer are recorded one after the other


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """A failed attempt that counts.

    `delivery` is the log row to write; `context` holds fields for log lines.
    """

    claim: Claim
    service: Service
    error: DeliveryError
    delivery: Delivery
    context: Mapping[str, object] = field(default_factory=dict)


Outcome = Literal["delivered", "parked", "skipped"] | FailedAttempt
"""The outcome of one attempt. "parked": released, not counted. "skipped": the task could not be claimed."""


@dataclass(frozen=True, slots=True)
class AttemptPolicy:
    """How often and when a task is attempted.

    Args:
        max_attempts: failed attempts until the task is a dead letter.
        delays: seconds before attempts 2, 3, ...; the last one repeats. Empty: no delay.
        retry_after_cap: most seconds for which a service's `Retry-After` is honoured.
        count_open_circuit: whether an attempt that finds the circuit open counts.
    """

    max_attempts: int
    delays: tuple[float, ...]
    retry_after_cap: float
    count_open_circuit: bool = False

    @classmethod
    def of(cls, settings: Settings, service: Service) -> AttemptPolicy:
        """The policy for one service: its own options, else the settings."""
        return cls(
            max_attempts=service.options.get("max_attempts") or settings.max_attempts,
            delays=tuple(service.options.get("retry_delays") or settings.retry_delays),
            retry_after_cap=settings.retry_after_cap,
            count_open_circuit=settings.circuit_open == "count",
        )

    def delay_after(self, attempt: int, retry_after: float | None, jitter: float) -> float:
        """Seconds between attempt number `attempt` (from 1) and the next; at least `retry_after`, capped.

        Args:
            jitter: a number in [-1, 1]; moves the delay by up to 10 %.
        """
        base = self.delays[min(attempt, len(self.delays)) - 1] if self.delays else 0.0
        delay = base * (1 + _JITTER * jitter)
        return delay if retry_after is None else max(delay, min(retry_after, self.retry_after_cap))


@dataclass(frozen=True, slots=True)
class Delivered:
    """The task ends: delivered."""


@dataclass(frozen=True, slots=True)
class Released:
    """The attempt does not count; the task is due again after `delay` seconds."""

    delay: float
    why: str


@dataclass(frozen=True, slots=True)
class Retry:
    """The attempt counts; the next one follows after `delay` seconds."""

    delay: float


@dataclass(frozen=True, slots=True)
class Dead:
    """The attempt was the last one; the task ends as a dead letter."""


Step = Delivered | Released | Retry | Dead


def next_step(error: BaseException | None, attempt: int, policy: AttemptPolicy, *, jitter: float = 0.0) -> Step:
    """What follows from one attempt.

    Args:
        error: how it failed; None: it was delivered.
        attempt: its number, from 1.
        jitter: a number in [-1, 1].
    """
    if error is None:
        return Delivered()
    if isinstance(error, CircuitOpenError | RateLimitedError | SecretsError):
        if not (policy.count_open_circuit and isinstance(error, CircuitOpenError)):
            return Released(error.retry_after or _RELEASE_DELAY, str(error))
    elif not isinstance(error, DeliveryError):
        why = str(error) if isinstance(error, HubError) else f"internal error: {type(error).__name__}"
        return Released((error.retry_after if isinstance(error, NotSentError) else None) or _RELEASE_DELAY, why)
    if attempt >= policy.max_attempts:
        return Dead()
    return Retry(policy.delay_after(attempt, error.retry_after, jitter))


class AttemptRecorder:
    """Records failed attempts in the ledger, as `next_step` says.

    Args:
        jitter: gives a number in [-1, 1].
    """

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
        self._one_by_one = threading.Lock()

    def record(self, failure: FailedAttempt) -> Literal["failed", "dead"]:
        """Schedule the next attempt, or move the task to the dead-letter queue.

        Attempts at a service that hangs begin together and time out together. They are recorded one by one: other
        services keep the CPU, and the next time-outs are spread.

        Raises:
            UnavailableError: the database is away and the process is stopping. The lease's end recovers the task.
        """
        with self._one_by_one if (failure.delivery.latency_ms or 0) > 1000 * _LONG else nullcontext():
            return self._record(failure)

    def _record(self, failure: FailedAttempt) -> Literal["failed", "dead"]:
        claim, service, error = failure.claim, failure.service, failure.error
        step = next_step(error, claim.attempt, AttemptPolicy.of(self._settings, service), jitter=self._jitter())
        delay = step.delay if isinstance(step, Retry) else None
        facts = {"outcome": error.outcome, "status": error.status, "error": failure.delivery.error, **failure.context}
        if delay is None:
            if self._dead_letters.move_to_dlq(claim, service, failure.delivery, DeadReason.ATTEMPTS):
                log.error("dead letter", reason=DeadReason.ATTEMPTS.value, **facts)
            else:
                log.warning("attempt failed", next_in=None, **facts)
            return "dead"
        log.warning("attempt failed", next_in=round(delay, 1), **facts)
        if self._ledger.fail(claim, failure.delivery, delay=delay):
            self._hooks.retry_scheduled(service.name)
        return "failed"
