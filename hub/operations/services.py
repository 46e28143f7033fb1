"""Add and change services, and declare their response queues.

A response queue is declared when its service is saved. Otherwise a response that is published before the first
consumption would be lost.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import structlog

from hub.app.lifecycle import Hub
from hub.config.definitions import ServiceSpec
from hub.errors import DeliveryError, NotSentError
from hub.models import Service, ServiceType
from hub.transports.base import Deadline
from hub.transports.masking import without_secrets

log = structlog.get_logger("hub.operations.services")
_TIMEOUT = 5.0  # seconds


@dataclass(frozen=True, slots=True)
class Saved:
    """A saved service. `note`: None, or that its response queue could not be declared."""

    service: Service
    note: str | None


def add_service(hub: Hub, spec: ServiceSpec) -> Saved:
    """Create a service; raises as `Registry.add_service`."""
    service = hub.registry.services.add(spec)
    return Saved(service, declare_response_queue(hub, service))


def update_service(hub: Hub, name: str, changes: dict[str, Any], version: int | None = None) -> Saved:
    """Change a service; raises as `Registry.update_service`."""
    service = hub.registry.services.update(name, changes, version)
    return Saved(service, declare_response_queue(hub, service))


def declare_response_queues(hub: Hub, names: Iterable[str]) -> list[str]:
    """Declare the response queues of services; returns the notes about failures."""
    notes = (declare_response_queue(hub, hub.configuration.service(name)) for name in names)
    return [note for note in notes if note]


def declare_response_queue(hub: Hub, service: Service) -> str | None:
    """Declare the response queue of an enabled AMQP service. Returns a note about a failure, or None."""
    if service.type is not ServiceType.AMQP or not service.response_queue or not service.enabled:
        return None
    try:
        hub.amqp.declare_responses(service, Deadline(min(service.timeout, _TIMEOUT)))
    except (DeliveryError, NotSentError) as e:
        reason = without_secrets(str(e), service)
        log.warning("response queue not declared", service=service.name, queue=service.response_queue, error=reason)
        return (
            f"the response queue {service.response_queue!r} is not declared yet ({reason});"
            " it is declared before the first message is sent"
        )
    return None
