"""Which rules an event matches, and the request that a rule makes of it. Pure."""

from __future__ import annotations

import hashlib
import html
import re
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from hub.codec import dumps, loads
from hub.domain.conditions import check_conditions, holds
from hub.domain.operator_events import OPERATOR_EVENTS, may_match
from hub.domain.paths import JsonStrings
from hub.domain.template_compiler import MAX_BODY
from hub.domain.templates import Scope, check_endpoint, check_template, render_body, render_endpoint, render_text
from hub.domain.text import storable
from hub.errors import InvalidPayloadError, PayloadError
from hub.models import JSON, Event, Rule, ServiceType

__all__ = ["JsonStrings", "check_conditions", "check_endpoint", "check_template", "matches", "preview", "render"]

BODYLESS: Final = frozenset({"GET", "HEAD"})
"""Methods whose requests carry no body: its meaning is undefined, and many servers refuse it."""

MAX_KEY: Final = 200
"""Most characters of an ordering key; longer ones are hashed."""
_MAX_KEY_VALUES = 1_000_000  # characters of the values in an ordering key

PREVIEW_LIMIT: Final = 1_048_576
"""Most characters of a body in a preview."""


def matches(rule: Rule, event: Event, strings: JsonStrings | None = None) -> bool:
    """Whether the event's name fits the rule's (`*`: any run of characters) and its conditions hold.

    Disabled rules match, too: they still collect tasks. Operator events match only rules that name them.

    Args:
        strings: shared by all rules that the event is matched against, so that JSON in strings is parsed once.

    Raises:
        PayloadError: the stored conditions are malformed.
    """
    name = event.name[1:] if event.name.startswith("\\") else event.name
    pieces = _pieces(rule.event)
    if len(pieces) == 1:
        if name != pieces[0]:
            return False
    elif not _fits(pieces, name):
        return False
    if name in OPERATOR_EVENTS and not may_match(rule.event, rule.service, name, event.data):
        return False
    return not rule.conditions or holds(rule.conditions, event.data, strings or JsonStrings())


def render(
    rule: Rule,
    *,
    event_name: str,
    event_data: JSON,
    event_id: str,
    task_id: int,
    now: datetime,
    limit: int = MAX_BODY,
    cached: bool = True,
    kind: ServiceType = ServiceType.REST,
    extra: dict[str, JSON] | None = None,
) -> tuple[str | None, str]:
    """The body (JSON text; None for GET and HEAD) and the endpoint that the rule makes of the event.

    Args:
        limit: most characters of the body.
        cached: whether the compiled templates are kept.
        kind: of the service. AMQP: the endpoint is a routing key. SMTP: values in the body's `html` member are escaped.
        extra: what lookups found, for placeholders that are not in the event's data.

    Raises:
        InvalidPayloadError: the result is not a valid request; the text says which part and why.
    """
    scope = Scope(event_data, event_name, event_id, task_id, now, rule.strict, limit, cached, extra=extra or {})
    body = None if rule.method in BODYLESS else render_body(rule.payload, scope)
    if kind is ServiceType.SMTP and body is not None and rule.payload:
        body = _with_escaped_html(body, rule.payload, scope)
    return body, render_endpoint(rule.endpoint, scope, routing_key=kind is ServiceType.AMQP)


def _with_escaped_html(body: str, template: str, scope: Scope) -> str:
    """The body with the `html` member of a rendering whose values are escaped for HTML."""
    message = loads(body)
    if not isinstance(message, dict) or "html" not in message:
        return body
    escaped = loads(render_body(template, replace(scope, escape=html.escape)))
    return dumps({**message, "html": escaped.get("html")})


def ordering_key(rule: Rule, event: Event, *, limit: int = MAX_KEY) -> str | None:
    """The key by which the rule orders an event; None: it has no order.

    That is so where the rule has no ordering key, or the event has none of the values that it names. Long keys are
    hashed.
    """
    if not rule.ordering_key:
        return None
    scope = Scope(event.data, event.name, "", 0, datetime.min.replace(tzinfo=UTC), limit=_MAX_KEY_VALUES)
    try:
        text = render_text(rule.ordering_key, scope)
    except InvalidPayloadError:
        return None
    if text is None or len(text) <= limit:
        return storable(text)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def check_ordering_key(text: str) -> None:
    """Raise `PayloadError` unless the text is a template of an ordering key."""
    check_endpoint(text)
    if name := next(
        (name for name in ("task.id", "now", "event.id") if re.search(rf"\{{\{{\s*{name}\s*\}}\}}", text)), None
    ):
        raise PayloadError(f"{{{{{name}}}}} is different for every event, so it orders nothing")


def preview(
    rule: Rule,
    *,
    event_name: str,
    event_data: JSON,
    event_id: str,
    now: datetime,
    kind: ServiceType = ServiceType.REST,
    extra: dict[str, JSON] | None = None,
) -> tuple[str | None, str]:
    """Render as `render` does, at most `PREVIEW_LIMIT` characters, without caching compiled templates."""
    return render(
        rule,
        event_name=event_name,
        event_data=event_data,
        event_id=event_id,
        task_id=0,
        now=now,
        limit=PREVIEW_LIMIT,
        cached=False,
        kind=kind,
        extra=extra,
    )


@lru_cache(4096)
def _pieces(pattern: str) -> tuple[str, ...]:
    """The parts between the `*`. Moodle writes names with and without the leading backslash."""
    return tuple((pattern[1:] if pattern.startswith("\\") else pattern).split("*"))


def _fits(pieces: tuple[str, ...], name: str) -> bool:
    """Glob matching in linear time: a regular expression with many `.*` would not be."""
    first, *middle, last = pieces
    if len(name) < len(first) + len(last) or not (name.startswith(first) and name.endswith(last)):
        return False
    at, end = len(first), len(name) - len(last)
    for piece in middle:
        found = name.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True
