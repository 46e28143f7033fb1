"""What a rule would have done with the latest events. Nothing is sent or stored."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from hub.app.lifecycle import Hub
from hub.codec import loads
from hub.domain import masks, rules
from hub.domain.lookups import named
from hub.domain.paths import mask_value
from hub.errors import DeliveryError, PayloadError
from hub.models import Event, Rule

MOST = 1000
"""Most events that are looked at."""
_SHOWN = 5  # requests that are shown
_ERRORS = 10  # different errors that are shown


@dataclass(slots=True)
class Trial:
    """What a rule would have done.

    Attributes:
        events: events that were looked at, the latest ones; `since`: when the oldest of them was accepted.
        other_name: events whose name the rule does not match; `conditions_failed`: whose data it does
            not match.
        matched: events that would have become a task; `failed`: those of them that make no valid request.
        errors: why they make none, with numbers, the most frequent first.
        requests: the latest requests, with masked values hidden: `event_id event created_at method endpoint body`.
        rendered: False when no requests were made, because the rule looks data up in a source.
    """

    events: int = 0
    since: datetime | None = None
    other_name: int = 0
    conditions_failed: int = 0
    matched: int = 0
    failed: int = 0
    errors: list[tuple[str, int]] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    rendered: bool = True


def trial(hub: Hub, rule: Rule, last: int) -> Trial:
    """Try a rule, stored or not, on the `last` stored events; whether it is enabled does not matter."""
    found = Trial(rendered=not named(rule.payload, rule.endpoint))
    bare = Rule(rule.id, rule.name, rule.event, rule.service_id, rule.service)
    errors: Counter[str] = Counter()
    for row in hub.views.events.latest(min(last, MOST)):
        found.events += 1
        found.since = row["created_at"]
        event = Event(row["name"], loads(row["data"]))
        if not rules.matches(bare, event):
            found.other_name += 1
        elif not rules.matches(rule, event):
            found.conditions_failed += 1
        else:
            found.matched += 1
            if found.rendered and (error := _error(hub, rule, event, row["uid"])) is not None:
                found.failed += 1
                errors[error] += 1
            elif found.rendered and len(found.requests) < _SHOWN:
                found.requests.append(_request(hub, rule, row))
    found.errors = errors.most_common(_ERRORS)
    return found


def _render(hub: Hub, rule: Rule, event: Event, uid: str) -> tuple[str | None, str]:
    return rules.preview(
        rule,
        event_name=event.name,
        event_data=event.data,
        event_id=uid,
        now=hub.clock.now(),
        kind=hub.service_type(rule.service),
    )


def _error(hub: Hub, rule: Rule, event: Event, uid: str) -> str | None:
    try:
        _render(hub, rule, event, uid)
    except (PayloadError, DeliveryError) as e:
        return str(e)
    return None


def _request(hub: Hub, rule: Rule, row: dict[str, Any]) -> dict[str, Any]:
    """The request as it may be shown: made of masked data."""
    own = next((s.options.get("mask") for s in hub.configuration.services() if s.name == rule.service), None)
    data = loads(hub.views.events.masked(row["name"], row["data"]))
    event = Event(row["name"], mask_value(data, masks.event_paths(own or [], rule.payload)))
    try:
        body, endpoint = _render(hub, rule, event, row["uid"])
    except (PayloadError, DeliveryError):  # a template that asks for the masked value's type
        body, endpoint = '"***"', "***"
    return {
        "event_id": row["uid"],
        "event": row["name"],
        "created_at": row["created_at"],
        "method": rule.method,
        "endpoint": endpoint.replace("%2A%2A%2A", "***"),
        "body": None if body is None else loads(body),
    }
