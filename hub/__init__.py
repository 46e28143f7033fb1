"""Integration Hub: events in, reliable deliveries out.

Read the package in the order in which an event travels:

 1. `models`         what an event, a rule, a service, a task are
 2. `errors`         what can go wrong, as a tree
 3. `observer`       an event comes in: dedupe, match, write, commit, then enqueue
 4. `rules`          matching and rendering, pure
 5. `dispatch`       one attempt of one task
 6. `gateway`        breaker -> retry policy -> transport -> delivery record
 7. `breaker`        the circuit's transitions, pure
 8. `retry_policy`   the network tries within one attempt
 9. `transports`     REST, AMQP, SOAP: send once
10. `dead_letters`   after the fifth failure: keep, replay
11. `responses`      answers that services publish to response queues: read, stored, acknowledged
    `response_messages`  one answer: what it says, which task it is for
    `response_events`    the events that answers become
12. `schedule`       the minute tick and what it runs

From any Python program: `hub.emit(name, data)` and `hub.request(service, endpoint, payload)`.

`store` keeps all of it in PostgreSQL, `tasks` runs it on Dramatiq, `parts` puts it together, `app` starts and ends it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hub.models import JSON, Accepted, Delivery

__version__ = "0.1.0"
__all__ = ["emit", "request"]


def emit(name: str, data: JSON = None, *, id: str | None = None) -> Accepted:
    """Hand one event to the hub; see `hub.api.emit`."""
    from hub import api  # late: `import hub` stays cheap

    return api.emit(name, data, id=id)


def request(
    service: str,
    endpoint: str = "",
    payload: JSON = None,
    *,
    method: str = "POST",
    headers: Mapping[str, str] | None = None,
    idempotency_key: str | None = None,
) -> Delivery:
    """Send one request to a service now; see `hub.api.request`."""
    from hub import api

    return api.request(service, endpoint, payload, method=method, headers=headers, idempotency_key=idempotency_key)
