"""Why a rule matches an event or does not, in words. Pure.

Each condition is judged by `hub.domain.rules.matches`, so an explanation cannot differ from what intake does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from hub.codec import dumps
from hub.domain.paths import (
    MISSING,
    JsonStrings,
    dig,
    split_path,
)
from hub.domain.rules import matches
from hub.errors import PayloadError
from hub.models import JSON, Event, Rule

_LONGEST = 80  # characters of a value in a reason
_WORDS = {
    "eq": "must be",
    "ne": "must not be",
    "in": "must be one of",
    "nin": "must be none of",
    "prefix": "must begin with",
    "suffix": "must end with",
    "contains": "must contain",
    "gt": "must be more than",
    "gte": "must be at least",
    "lt": "must be less than",
    "lte": "must be at most",
}


@dataclass(frozen=True, slots=True)
class Reason:
    """Whether a rule matches an event, and why."""

    matched: bool
    text: str


def explain(rule: Rule, event: Event, shown: JSON = MISSING) -> Reason:
    """Why the rule matches, or the first conditions that do not hold.

    Args:
        shown: the event's data as it may be shown; values in the reason are taken from it.
    """
    strings = JsonStrings()
    if not matches(replace(rule, conditions=None), event, strings):
        return Reason(False, f"the event's name is not {rule.event}")
    try:
        if matches(rule, event, strings):
            return Reason(True, "the name fits" + (" and all conditions hold" if rule.conditions else ""))
        data = event.data if shown is MISSING else shown
        failed = _failed(rule.conditions, rule, event, data, strings)
        return Reason(False, "; ".join(text for text, _ in zip(failed, range(3), strict=False)))
    except PayloadError as e:
        return Reason(False, f"its conditions cannot be read: {e}")


def _failed(conditions: JSON, rule: Rule, event: Event, shown: JSON, strings: JsonStrings) -> Iterator[str]:
    """What is wrong, condition by condition."""

    def holds(condition: JSON) -> bool:
        return matches(replace(rule, event="*", conditions=condition), event, strings)

    for key, wanted in conditions.items():
        if holds({key: wanted}):
            continue
        if key == "and":
            for part in wanted:
                yield from _failed(part, rule, event, shown, strings)
        elif key == "or":
            parts = [next(_failed(part, rule, event, shown, strings), "") for part in wanted]
            yield "none of these holds: " + " / ".join(parts)
        elif key == "not":
            yield f"this must not hold: {_cut(dumps(wanted))}"
        else:
            has = _has(shown, key)
            operators = wanted if type(wanted) is dict else {"eq": wanted}
            for name, operand in operators.items():
                if not holds({key: {name: operand}}):
                    yield f"{key} {has}, and {_must(name, operand)}"


def _has(shown: JSON, path: str) -> str:
    value = dig(shown, split_path(path))
    return "is missing" if value is MISSING else f"is {_cut(dumps(value))}"


def _must(name: str, operand: JSON) -> str:
    if name == "exists":
        return "must be there" if operand else "must not be there"
    return f"{_WORDS[name]} {_cut(dumps(operand))}"


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
