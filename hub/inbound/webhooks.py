"""Stores webhook calls and turns them into events.

The row in the delivery log and the event are one transaction. A call that is repeated with the same `webhook-id` (or
`Idempotency-Key`) within 24 h changes nothing. A chain of events ends at `HUB_MAX_DEPTH`: the caller names the request
that it responds to by `X-Hub-Task`. Secrets of the service and headers that may contain one are masked.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog

from hub.domain.paths import mask_body
from hub.hooks import Hooks
from hub.models import JSON, Accepted, Delivery, Direction, Event, Service
from hub.pipeline.intake import Intake, ToEnqueue
from hub.store.database import Database
from hub.store.delivery_log import DeliveryLog
from hub.store.intake import once
from hub.transports.masking import hidden, without_secrets

log = structlog.get_logger("hub.inbound.webhooks")
WEBHOOK_RECEIVED = "hub.webhook_received"  # the event that a call becomes
_TASK = re.compile(r"[0-9]{1,18}", re.ASCII)
_SECRET_HEADER = re.compile(r"auth|token|secret|key|cookie|signature|password|credential|session", re.IGNORECASE)
_KEPT_HEADERS = frozenset({"idempotency-key"})  # although the name looks like that of a secret
_MOST_HEADERS = 60
_LONGEST = 1000  # characters of a header's name and value


@dataclass(frozen=True, slots=True)
class WebhookCall:
    """A webhook call whose caller has been authenticated.

    Attributes:
        message_id: identifies repeats of the call; None: it has no id.
        headers: names in lower case.
        body: the JSON text; `value` is its parsed value.
    """

    message_id: str | None
    headers: Mapping[str, str]
    body: str
    value: JSON


class WebhookReceiver:
    """Stores calls and writes their events.

    Args:
        depth_of: the depth of the event of a task of a service; None: there is no such task.
        max_depth: most events of a chain.
    """

    def __init__(
        self,
        db: Database,
        intake: Intake,
        log: DeliveryLog,
        hooks: Hooks,
        *,
        depth_of: Callable[[int, int], int | None],
        max_depth: int,
    ) -> None:
        self._db = db
        self._intake = intake
        self._log = log
        self._hooks = hooks
        self._depth_of = depth_of
        self._max_depth = max_depth

    def receive(self, service: Service, call: WebhookCall) -> Accepted:
        """Store the call and its event in one transaction, then enqueue the tasks.

        Returns the event's id; for a repeat, the id of the first call's event.

        Raises:
            PayloadError: the event exceeds a limit; nothing was stored.
            UnavailableError: the ledger is unavailable.
        """
        task_id, depth = self._chain(service, call.headers.get("x-hub-task", ""))
        cut = depth > self._max_depth
        uid = str(uuid.uuid4())
        headers = _visible_headers(service, call.headers)
        delivery = _delivery(service, call, uid, task_id, headers, cut_at=depth if cut else None)
        queued = ToEnqueue()
        accepted = Accepted(uid, duplicate=False)
        with self._db.transaction() as conn:
            if call.message_id is not None:
                first = once(conn, _key(service, call.message_id), uid)
                if first != uid:
                    return Accepted(first, duplicate=True)
            if not cut:
                event = _event(service, call, uid, task_id, headers)
                [accepted], queued = self._intake.write([event], [depth], conn)
            self._log.add([delivery], conn)
        self._intake.enqueue(queued)
        if cut:
            self._hooks.event_accepted("cut")
            log.warning("chain of events cut", service=service.name, depth=depth)
        return accepted

    def _chain(self, service: Service, given: str) -> tuple[int | None, int]:
        """(the task that the call responds to, the depth of its event in the chain)."""
        depth = self._depth_of(int(given), service.id) if _TASK.fullmatch(given) else None
        return (None, 1) if depth is None else (int(given), depth + 1)


def _delivery(
    service: Service, call: WebhookCall, uid: str, task_id: int | None, headers: dict[str, str], *, cut_at: int | None
) -> Delivery:
    text = without_secrets(call.body.removeprefix("\ufeff"), service)
    if mask := service.options.get("mask"):
        text = mask_body(text, mask)
    properties: dict[str, JSON] = {"event_id": uid, "headers": headers}
    if call.message_id is not None:
        properties["webhook_id"] = call.message_id
    if cut_at is not None:
        properties["chain_cut_at"] = cut_at
    return Delivery(
        direction=Direction.INBOUND,
        service_id=service.id,
        service=service.name,
        success=True,
        task_id=task_id,
        event=WEBHOOK_RECEIVED,
        endpoint=f"/webhook/{service.name}",
        method="POST",
        status=202,
        request_body=text,
        properties=properties,
    )


def _event(service: Service, call: WebhookCall, uid: str, task_id: int | None, headers: dict[str, str]) -> Event:
    """The event of a call. It has an id of its own, because two equal calls are two events."""
    data: dict[str, JSON] = {
        "service": service.name,
        "webhook_id": call.message_id,
        "task_id": task_id,
        "headers": headers,
        "payload": hidden(call.value, service),
    }
    return Event(WEBHOOK_RECEIVED, data, uid, f"webhook:{service.id}", cause_task=task_id)


def _key(service: Service, message_id: str) -> bytes:
    return hashlib.sha256(f"webhook\0{service.id}\0{message_id}".encode()).digest()


def _visible_headers(service: Service, headers: Mapping[str, str]) -> dict[str, str]:
    """The headers without those that may contain a secret."""
    kept: dict[str, str] = {}
    for name, value in headers.items():
        if len(kept) < _MOST_HEADERS and (name in _KEPT_HEADERS or not _SECRET_HEADER.search(name)):
            kept[name[:_LONGEST]] = without_secrets(value, service)[:_LONGEST]
    return kept
