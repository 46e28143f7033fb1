"""Integration Hub delivers events to external services and does not lose them.

The packages, in the order in which an event passes them:

 1. `models`, `errors`            what an event, a rule, a service, a task are; what can go wrong
 2. `pipeline.intake`             check, deduplicate, match, write event and tasks, commit; then enqueue
 3. `domain.rules`, `.templates`  matching and rendering, pure
 4. `tasks`                       Dramatiq: broker, actors, the retry middleware, the outbox relay, the bulkhead
 5. `pipeline.dispatch`           one attempt of one task: claim, render, send, record the outcome
 6. `pipeline.gateway`            circuit, rate limit, tries, transport, delivery record
 7. `domain.breaker`, `.retry_policy`  the circuit's transitions and the tries within an attempt, pure
 8. `transports`                  REST, AMQP, SOAP: send once
 9. `pipeline.dead_letters`       after the fifth failure: store, replay
    `pipeline.operator_events`    what happened in the hub, as events
10. `inbound`                     responses, webhook calls and rows of sources: stored, turned into events
    (`sources`                    reads Moodle's log store: rows as events, position with gaps)
11. `scheduling`                  cron expressions, the tick, housekeeping

`store` holds all SQL, `config` the definitions of services and rules. `app` builds a process, `programs` runs it.
`operations` has the actions of people; `cli`, `web` and `api` call it. `monitoring` counts and exposes.
docs/explanation/architecture.md has the picture.

From any Python program: `hub.emit(name, data)` and `hub.request(service, endpoint, payload)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hub.models import JSON, Accepted, Delivery

__version__ = "0.2.0"
__all__ = ["emit", "request"]


def emit(name: str, data: JSON = None, *, id: str | None = None) -> Accepted:
    """Accept one event; see `hub.api.emit`."""
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
