"""The Python API: `hub.emit()` and `hub.request()`. The first call opens one hub per process."""

from __future__ import annotations

import atexit
import os
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from hub.app.lifecycle import Hub, build
from hub.codec import dumps
from hub.errors import DeliveryError, HubError
from hub.models import (
    JSON,
    Accepted,
    Delivery,
    Event,
    Request,
)
from hub.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

log = structlog.get_logger("hub.api")
_lock = threading.Lock()
_hub: Hub | None = None
_forked: list[Hub | None] = []


def _after_fork() -> None:
    """A child process shares its parent's sockets: it must neither use nor close them."""
    global _hub, _lock
    _forked.append(_hub)  # kept: collected, it would be closed
    _hub, _lock = None, threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


def _get() -> Hub:
    global _hub
    with _lock:
        if _hub is None:
            _hub = build(load_settings(), role="cli")
            _hub.registry.configuration.listen()
            atexit.register(close)
        return _hub


def close() -> None:
    """Close this process's connections; the next call opens them again."""
    global _hub
    with _lock:
        if _hub is not None:
            _hub.close()
            _hub = None


def emit(name: str, data: JSON = None, *, id: str | None = None) -> Accepted:
    """Accept one event; when this returns, it is stored.

    Args:
        name: the event's name.
        data: any JSON value; None stands for an empty object.
        id: the sender's id; accepted once in 24 hours.

    Raises:
        PayloadError: the event is not valid; names the field.
        UnavailableError: the database is away; nothing was accepted.
    """
    return _get().intake.handle_event(Event(name, {} if data is None else data, id))


def request(
    service: str,
    endpoint: str = "",
    payload: JSON = None,
    *,
    method: str = "POST",
    headers: Mapping[str, str] | None = None,
    idempotency_key: str | None = None,
) -> Delivery:
    """Send one request to a service now: with the breaker, retry policy, transport and log of a task's attempt.

    Returns:
        The logged delivery: `status`, `response_body` (text, bounded), `latency_ms`, `tries`.

    Raises:
        NotFoundError: no such service.
        CircuitOpenError: the circuit is open; `.retry_after` seconds.
        DeliveryError: it failed; `.delivery` is what was logged.
        UnavailableError: the hub's database is away, or an internal error; nothing was sent.

    A log row that cannot be written after the request raises nothing; it leaves a line in the process's log.
    """
    hub = _get()
    body = None if payload is None else dumps(payload)
    wanted = Request(
        endpoint=endpoint,
        method=method.upper(),
        body=body,
        headers=dict(headers or {}),
        idempotency_key=idempotency_key,
    )
    target = hub.configuration.service(service)
    if not target.enabled:
        raise HubError(f"service {service!r} is disabled")
    try:
        delivery = hub.gateway.execute_request(target, wanted)
    except DeliveryError as e:
        if e.delivery is not None:
            _record(hub, e.delivery)
        raise
    _record(hub, delivery)
    return replace(delivery, response_body=delivery.response)  # the caller asked for it; only the log is masked


def _record(hub: Hub, delivery: Delivery) -> None:
    """Write the delivery log. The request is over: a failing write must not look like a failed request."""
    try:
        hub.log.add([delivery])
    except Exception as e:
        log.warning("delivery not logged", service=delivery.service, status=delivery.status, error=str(e))
