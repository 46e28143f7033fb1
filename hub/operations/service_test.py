"""Connection test of a service, without side effects."""

from __future__ import annotations

import time
from dataclasses import dataclass

from hub.app.lifecycle import Hub
from hub.errors import DeliveryError, NotSentError
from hub.transports.masking import without_secrets


@dataclass(frozen=True, slots=True)
class Tested:
    """The result of a connection test. `latency_ms` includes name resolution and log-in. `message` has no secrets."""

    ok: bool
    message: str
    latency_ms: float


def run_service_test(hub: Hub, name: str) -> Tested:
    """Test the connection to the service `name`.

    Raises:
        NotFoundError: there is no such service.
        UnavailableError: the database is unavailable.
    """
    service = hub.configuration.service(name)
    started = time.perf_counter()
    try:
        message, ok = hub.gateway.check(service), True
    except (DeliveryError, NotSentError) as e:
        message, ok = str(e), False
    return Tested(ok, without_secrets(message, service), round((time.perf_counter() - started) * 1000, 1))
