"""Decodes messages of the hub's queues, and rejects those that the hub did not publish."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import dramatiq
import structlog

from hub.codec import loads
from hub.errors import PayloadError

log = structlog.get_logger("hub.tasks.messages")

DISPATCH_ACTOR = "dispatch_event_task"
SIZE_LIMIT = 65536
"""Most bytes of a message; a full group of the largest ids has less than 2,000."""
GROUP_LIMIT = 1000  # task ids; more than any release of the hub puts into a message
_TEXT_LIMIT = 200
_LARGEST_ID = 2**63 - 1
_FIELDS = {"queue_name", "actor_name", "args", "kwargs", "options", "message_id", "message_timestamp"}
_LOG_EVERY = 1.0  # seconds between two log lines about rejected messages of one queue


class InvalidMessageError(Exception):
    """A message that the hub did not publish. `reason` is one of `hub.monitoring.metrics.REJECTIONS`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def decode(body: bytes, *, queue: str, actors: Mapping[str, Any]) -> dramatiq.Message[Any]:
    """Decode a Dramatiq message that the hub published.

    Args:
        queue: the queue that it came from; the message must name the same one.
        actors: the broker's actors by name.

    Raises:
        InvalidMessageError: it is not one; the text quotes nothing of the message.
    """
    if len(body) > SIZE_LIMIT:
        raise InvalidMessageError("too_large", f"{len(body)} bytes, more than {SIZE_LIMIT}")
    try:
        fields = loads(body)
    except PayloadError:
        raise InvalidMessageError("not_json", "not JSON") from None
    if not isinstance(fields, dict) or set(fields) != _FIELDS:
        raise InvalidMessageError("invalid_fields", "not the fields of a Dramatiq message")
    if fields["queue_name"] != queue:
        raise InvalidMessageError("wrong_queue", "names another queue")
    name = fields["actor_name"]
    actor = actors.get(name) if isinstance(name, str) else None
    if actor is None or actor.queue_name != queue:
        raise InvalidMessageError("unknown_actor", "names no actor of this queue")
    _check_envelope(fields)
    _check_arguments(actor, fields["args"], fields["kwargs"])
    return dramatiq.Message(**(fields | {"args": tuple(fields["args"])}))


def _check_envelope(fields: dict[str, Any]) -> None:
    """Dramatiq acts on options (`eta`, `throws`, `pipe_target`): only that of the scheduler is allowed."""
    id_, made_at, options = fields["message_id"], fields["message_timestamp"], fields["options"]
    if not isinstance(id_, str) or not 1 <= len(id_) <= _TEXT_LIMIT or not id_.isprintable():
        raise InvalidMessageError("invalid_fields", "message_id is not a short text")
    if not _is_id(made_at):
        raise InvalidMessageError("invalid_fields", "message_timestamp is not a positive integer")
    if not isinstance(options, dict) or not set(options) <= {"scheduled_at"}:
        raise InvalidMessageError("invalid_fields", "has options that the hub does not set")
    if "scheduled_at" in options:
        try:
            if datetime.fromisoformat(options["scheduled_at"]).tzinfo is None:
                raise ValueError
        except (TypeError, ValueError):
            raise InvalidMessageError("invalid_fields", "scheduled_at is not a time") from None


def _check_arguments(actor: Any, args: object, kwargs: object) -> None:
    """Allow only ids: as many as the actor takes, or a group of them for the dispatch actor."""
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        raise InvalidMessageError("invalid_arguments", "args is not an array or kwargs is not an object")
    if kwargs:
        ids = kwargs.get("task_ids")
        valid = (
            actor.actor_name == DISPATCH_ACTOR
            and not args
            and set(kwargs) == {"task_ids", "service_id"}
            and _is_id(kwargs["service_id"])
            and isinstance(ids, list)
            and 1 <= len(ids) <= GROUP_LIMIT
            and all(_is_id(id_) for id_ in ids)
        )
    else:
        valid = len(args) == actor.fn.__code__.co_argcount and all(_is_id(id_) for id_ in args)
    if not valid:
        raise InvalidMessageError("invalid_arguments", "the arguments are not the ids that the actor takes")


def _is_id(value: object) -> bool:
    return type(value) is int and 0 < value <= _LARGEST_ID


class RejectionLog:
    """Counts rejected messages of one queue, and logs at most one line a second with the number of unlogged ones.

    Args:
        report: called with the kind of queue and the reason.
    """

    def __init__(self, queue: str, report: Callable[[str, str], None]) -> None:
        self._queue = queue
        self._report = report
        self._next = float("-inf")
        self._unlogged = 0

    def rejected(self, error: InvalidMessageError, size: int) -> None:
        """Count and log one rejected message of `size` bytes."""
        self._report(self._queue.rpartition(".")[2], error.reason)
        now = time.monotonic()
        if now < self._next:
            self._unlogged += 1
            return
        log.error(
            "rejected a message that the hub did not publish",
            queue=self._queue,
            reason=error.reason,
            error=str(error),
            bytes=size,
            unlogged=self._unlogged,
        )
        self._next, self._unlogged = now + _LOG_EVERY, 0
