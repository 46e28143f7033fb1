"""Rule preview: the request of a rule for an event. Nothing is sent or stored."""

from __future__ import annotations

from dataclasses import dataclass

from hub.app.lifecycle import Hub
from hub.codec import loads
from hub.domain import masks, rules
from hub.domain.lookups import named
from hub.domain.paths import mask_value
from hub.errors import DeliveryError, HubError, NotSentError, PayloadError
from hub.models import JSON, Event, Rule

REAL = "latest"
"""Source of an event that was accepted, where the real one is not known."""


@dataclass(frozen=True, slots=True)
class Preview:
    """The result of a preview.

    Attributes:
        matches: name and data of the event match the rule.
        endpoint: None if no request can be made.
        body: JSON text; None if there is none.
        error: why no request can be made.
    """

    matches: bool
    endpoint: str | None = None
    body: str | None = None
    error: HubError | None = None


def latest_event(hub: Hub, pattern: str) -> Event | None:
    """The latest event whose name matches `pattern` (the event of a rule); None if there is none.

    An empty pattern matches every name.
    """
    name: str | None = pattern
    if "*" in pattern or not pattern:
        any_of = Rule(0, "", pattern or "*", 0, "")
        names = (row["name"] for row in hub.views.events.names())
        name = next((seen for seen in names if rules.matches(any_of, Event(seen, {}))), None)
    data = hub.views.events.sample(name) if name is not None else None
    return Event(name, loads(data), source=REAL) if name is not None and data is not None else None


def preview(hub: Hub, rule: Rule, event: Event, *, event_id: str = "preview") -> Preview:
    """Make the request of `rule` for `event`. The rule need not be stored.

    Lookups are read only for accepted events of a source. Otherwise a person who may preview could read data of any
    user by an invented event.
    """
    matches = rules.matches(rule, event)
    try:
        extra = _looked_up(hub, rule, event) if event.source else {}
        body, endpoint = rules.preview(
            rule,
            event_name=event.name,
            event_data=event.data,
            event_id=event_id,
            now=hub.clock.now(),
            kind=hub.service_type(rule.service),
            extra=extra,
        )
    except (PayloadError, DeliveryError, NotSentError) as e:
        return Preview(matches, error=e)
    return Preview(matches, endpoint, body)


def _looked_up(hub: Hub, rule: Rule, event: Event) -> dict[str, JSON]:
    """What the rule's lookups find, with what any service masks hidden."""
    extra = hub.lookups.read(named(rule.payload, rule.endpoint), event.data, event.source)
    if not extra:
        return extra
    hidden = {
        path
        for service in hub.configuration.services()
        for path in masks.event_paths(service.options.get("mask") or [], rule.payload)
    }
    masked: dict[str, JSON] = mask_value(extra, sorted(hidden))
    return masked
