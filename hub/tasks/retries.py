"""The Dramatiq middleware that replaces Dramatiq's retries with the five-attempt rule."""

from __future__ import annotations

from typing import Any, ClassVar

import dramatiq
import structlog

from hub.errors import HubError, UnavailableError
from hub.pipeline.attempts import AttemptRecorder, FailedAttempt

log = structlog.get_logger("hub.tasks.retries")


class AttemptFailed(HubError):  # noqa: N818 - an outcome, not an error of the hub
    """Carries a `FailedAttempt` from an actor to the middleware.

    An exception, because Dramatiq offers no other way: it discards what an actor returns, and logs a warning.
    """

    def __init__(self, failure: FailedAttempt) -> None:
        super().__init__(str(failure.error))
        self.failure = failure


class TaskRetries(dramatiq.Middleware):  # type: ignore[misc, unused-ignore]
    """Records failed attempts through `hub.pipeline.attempts`."""

    actor_options: ClassVar[set[str]] = {"throws"}  # exceptions that the worker does not log as unexpected

    def __init__(self, recorder: AttemptRecorder) -> None:
        self._recorder = recorder

    def after_process_message(
        self, broker: dramatiq.Broker, message: Any, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        """Record the attempt if the actor raised `AttemptFailed`; any other exception leaves the message failed.

        Dramatiq swallows what this hook raises and acknowledges the message. So the message is marked as failed
        first, and the mark is removed after the attempt was recorded.
        """
        if exception is None:
            return
        message.fail()
        if isinstance(exception, AttemptFailed) and self.after_attempt(exception.failure):
            message.failed = False

    def after_attempt(self, failure: FailedAttempt) -> bool:
        """Record one failed attempt. False: not recorded; the task is recovered when this worker's lease ends."""
        try:
            self._recorder.record(failure)
        except UnavailableError as e:  # only while the process stops; until then the ledger waits for its database
            log.warning("attempt not recorded; the lease recovers the task", task=failure.claim.id, error=str(e))
        except Exception:
            log.exception("attempt not recorded; the lease recovers the task", task=failure.claim.id)
        else:
            return True
        return False
