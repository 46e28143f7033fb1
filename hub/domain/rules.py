"""Which rules an event meets, and the request a rule makes of it. Pure functions.

Conditions are JSON, and all of their members must hold::

    {"courseid": 10, "crud": {"in": ["c", "u"]}, "not": {"other.username": {"prefix": "test"}}}

A field is a dotted path into the event's data; a value by itself means `eq`. Numbers and numeric strings
are equal (Moodle's ids may be either); true and false equal only themselves. A field that is not there
counts as null, and only `exists` tells the two apart.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from typing import Final

from hub.codec import dumps, loads
from hub.domain.paths import (
    MISSING,
    JsonStrings,
    dig,
    split_path,
)
from hub.domain.templates import (
    MAX_BODY,
    Scope,
    check_endpoint,
    check_template,
    render_body,
    render_endpoint,
)
from hub.errors import PayloadError
from hub.models import JSON, Event, Rule, ServiceType

__all__ = ["JsonStrings", "check_conditions", "check_endpoint", "check_template", "matches", "preview", "render"]

BODYLESS: Final = frozenset({"GET", "HEAD"})
"""Methods whose requests carry no body: what a body means there is undefined, and many servers refuse it."""

PREVIEW_LIMIT: Final = 1_048_576
"""Most characters of a body in a preview."""

_NUMERIC = re.compile(r"[+-]?\d{1,300}(\.\d{1,300})?([eE][+-]?\d{1,3})?", re.ASCII)
_DEPTH = 50  # how deeply conditions may nest


def matches(rule: Rule, event: Event, strings: JsonStrings | None = None) -> bool:
    """Whether the event's name fits the rule's (`*`: any run of characters) and its conditions hold.

    Enabled or not is not asked here: a disabled rule still collects tasks.

    Args:
        strings: shared by all rules that the event is matched against, so that JSON in strings is parsed once.

    Raises:
        PayloadError: the stored conditions are malformed; better loud than an event that matches nothing.
    """
    name = event.name[1:] if event.name.startswith("\\") else event.name
    pieces = _pieces(rule.event)
    if len(pieces) == 1:
        if name != pieces[0]:
            return False
    elif not _fits(pieces, name):
        return False
    return not rule.conditions or _holds(rule.conditions, event.data, strings or JsonStrings())


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
) -> tuple[str | None, str]:
    """The body (JSON text; None for GET and HEAD) and the endpoint that the rule makes of the event.

    Args:
        limit: most characters of the body.
        cached: whether the compiled templates are kept.
        kind: of the service. AMQP: the endpoint is a routing key. SMTP: values in the body's `html` member are escaped.

    Raises:
        InvalidPayloadError: no valid request comes of it; the text says which part and why.
    """
    scope = Scope(event_data, event_name, event_id, task_id, now, rule.strict, limit, cached)
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


def preview(
    rule: Rule, *, event_name: str, event_data: JSON, event_id: str, now: datetime, kind: ServiceType = ServiceType.REST
) -> tuple[str | None, str]:
    """As `render`, for a person to look at: at most `PREVIEW_LIMIT` characters, and nothing is kept."""
    return render(
        rule, event_name=event_name, event_data=event_data, event_id=event_id, task_id=0, now=now,
        limit=PREVIEW_LIMIT, cached=False, kind=kind,
    )  # fmt: skip


def check_conditions(conditions: JSON) -> None:
    """Raises `PayloadError` naming the path of what is wrong; None and {} mean no conditions."""
    if conditions is not None:
        _check(conditions, "", 0)


@lru_cache(4096)
def _pieces(pattern: str) -> tuple[str, ...]:
    """What stands between the `*`; Moodle writes names with and without the leading backslash."""
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


def _holds(conditions: JSON, data: JSON, strings: JsonStrings) -> bool:
    for key, wanted in conditions.items():
        if key == "and":
            held = all(_holds(c, data, strings) for c in wanted)
        elif key == "or":
            held = any(_holds(c, data, strings) for c in wanted)
        elif key == "not":
            held = not _holds(wanted, data, strings)
        else:
            value = dig(data, split_path(key), strings)
            if type(wanted) is dict:
                held = all(_operator(name)(value, operand) for name, operand in wanted.items())
            else:
                held = _equal(value, wanted)
        if not held:
            return False
    return True


def _operator(name: str) -> Callable[[JSON, JSON], bool]:
    try:
        return _OPERATORS[name]
    except KeyError:
        raise PayloadError(f"{name!r} is no operator; known: {', '.join(_OPERATORS)}") from None


def _number(value: JSON) -> int | float | None:
    if type(value) is int or type(value) is float:
        return value
    if type(value) is str and (m := _NUMERIC.fullmatch(value)):
        return float(value) if m[1] or m[2] else int(value)
    return None


def _equal(a: JSON, b: JSON) -> bool:
    if a is MISSING:
        a = None
    if type(a) is type(b):
        if type(a) is dict:
            return a.keys() == b.keys() and all(_equal(v, b[k]) for k, v in a.items())
        if type(a) is list:
            return len(a) == len(b) and all(map(_equal, a, b))
        return bool(a == b)
    x, y = _number(a), _number(b)
    return x is not None and x == y


def _compare(a: JSON, b: JSON) -> int | None:
    """-1, 0 or 1; None where the two have no order. Texts that are no numbers are ordered as texts."""
    x, y = _number(a), _number(b)
    if x is not None and y is not None:
        return (x > y) - (x < y)
    if type(a) is str and type(b) is str:
        return (a > b) - (a < b)
    return None


def _as_text(value: JSON) -> str:
    """Ids may be numbers: `prefix` and the like look at them as text."""
    return value if type(value) is str else str(value) if type(value) is int else ""


def _contains(value: JSON, wanted: JSON) -> bool:
    if type(value) is list:
        return any(_equal(item, wanted) for item in value)
    return type(wanted) is str and wanted in _as_text(value)


_OPERATORS: dict[str, Callable[[JSON, JSON], bool]] = {
    "eq": _equal,
    "ne": lambda value, wanted: not _equal(value, wanted),
    "in": lambda value, wanted: any(_equal(value, item) for item in wanted),
    "nin": lambda value, wanted: not any(_equal(value, item) for item in wanted),
    "exists": lambda value, wanted: (value is not MISSING) is wanted,
    "prefix": lambda value, wanted: _as_text(value).startswith(wanted),
    "suffix": lambda value, wanted: _as_text(value).endswith(wanted),
    "contains": _contains,
    "gt": lambda value, wanted: _compare(value, wanted) == 1,
    "gte": lambda value, wanted: _compare(value, wanted) in (0, 1),
    "lt": lambda value, wanted: _compare(value, wanted) == -1,
    "lte": lambda value, wanted: _compare(value, wanted) in (0, -1),
}


def _check(conditions: JSON, where: str, depth: int) -> None:
    if depth > _DEPTH:
        raise PayloadError(f"{where}: nested more than {_DEPTH} deep")
    if type(conditions) is not dict:
        raise PayloadError(f'{where or "conditions"}: must be an object such as {{"courseid": 10}}')
    for key, wanted in conditions.items():
        here = f"{where}.{key}" if where else key
        if key in ("and", "or"):
            if type(wanted) is not list or not wanted:
                raise PayloadError(f"{here}: must be a list of conditions, not empty")
            for i, item in enumerate(wanted):
                _check(item, f"{here}[{i}]", depth + 1)
        elif key == "not":
            _check(wanted, here, depth + 1)
        else:
            _check_field(key, wanted, here)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_field(key: str, wanted: JSON, here: str) -> None:
    try:
        split_path(key)
    except PayloadError as e:
        raise PayloadError(f"{here}: {e}") from None
    try:
        text = dumps(wanted)
    except PayloadError as e:
        raise PayloadError(f"{here}: {e}") from None
    if "\\u0000" in text or not _encodable(text):
        raise PayloadError(f"{here}: must not hold NUL or half a surrogate pair")  # PostgreSQL keeps neither
    if type(wanted) is not dict:
        return
    if not wanted:
        raise PayloadError(f"{here}: holds no operator; known: {', '.join(_OPERATORS)}")
    for name, operand in wanted.items():
        if name not in _OPERATORS:
            raise PayloadError(f"{here}.{name}: no such operator; known: {', '.join(_OPERATORS)}")
        if name in ("in", "nin") and type(operand) is not list:
            raise PayloadError(f"{here}.{name}: must be a list")
        if name == "exists" and type(operand) is not bool:
            raise PayloadError(f"{here}.{name}: must be true or false")
        if name in ("prefix", "suffix") and type(operand) is not str:
            raise PayloadError(f"{here}.{name}: must be a text")
        if name in ("gt", "gte", "lt", "lte") and type(operand) not in (int, float, str):
            raise PayloadError(f"{here}.{name}: must be a number or a text")
