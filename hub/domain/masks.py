"""Which values a service's `mask` hides, wherever they turn up. Pure.

A path of `mask` leads into the payload. The same value stands elsewhere too: in the event's data (at that path, or
where the rule's template takes it from), in the endpoint, in the response, in an error text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from urllib.parse import quote, quote_plus

from hub.domain.paths import mask_body
from hub.domain.templates import placeholders_at
from hub.domain.text import MASK
from hub.models import JSON

INBOUND = frozenset({"hub.response_received", "hub.webhook_received"})
"""Events whose data holds what a service sent, in the member `payload`."""
_SHORTEST = 4  # characters; to replace shorter values in a text would shred it


def event_paths(mask: Sequence[str], template: str | None) -> list[str]:
    """Paths into an event's data that a service's mask covers, for a rule with that payload template."""
    if not mask:
        return []
    return sorted({*mask, *(placeholders_at(template, tuple(mask)) if template else ())})


def source_paths(event: str, data: JSON, mask_of: Callable[[str], Sequence[str]]) -> list[str]:
    """Paths into an inbound event's data that the mask of the service it came from covers.

    Args:
        mask_of: the mask of the service of that name.
    """
    if event not in INBOUND or not isinstance(data, dict) or not isinstance(data.get("service"), str):
        return []
    return [f"payload.{path}" for path in mask_of(data["service"])]


def texts(values: Iterable[JSON]) -> tuple[str, ...]:
    """The values as they may appear in a text, the longest first; short ones, true, false and null are left out."""
    found: set[str] = set()
    for value in values:
        if isinstance(value, dict | list):
            found.update(texts(value.values() if isinstance(value, dict) else value))
        elif value is not None and not isinstance(value, bool):
            text = str(value)
            if len(text) >= _SHORTEST:
                found |= {text, quote(text, safe=""), quote_plus(text), json.dumps(text)[1:-1]}
                found.add(json.dumps(text, ensure_ascii=False)[1:-1])
    return tuple(sorted(found, key=len, reverse=True))


def hide(text: str | None, hidden: Sequence[str]) -> str | None:
    """A text with `***` in place of each of the `hidden` texts."""
    if text:
        for one in hidden:
            text = text.replace(one, MASK)
    return text


def masked(text: str | None, mask: Sequence[str], hidden: Sequence[str]) -> str | None:
    """A body with `***` at the paths of `mask`, and in place of the `hidden` texts wherever they stand."""
    return hide(mask_body(text, mask), hidden) if text and mask else hide(text, hidden)
