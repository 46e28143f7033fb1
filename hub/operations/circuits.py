"""Close circuits manually."""

from __future__ import annotations

from hub.app.lifecycle import Hub
from hub.models import Service


def reset_circuits(hub: Hub, service: Service) -> bool:
    """Close the circuits of a service, for dispatches and for responses; returns whether one was not closed."""
    dispatches, responses = hub.breakers.reset(service), hub.response_breakers.reset(service)
    return dispatches or responses
