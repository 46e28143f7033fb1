"""Events that the hub emits about itself, their data as JSON Schema, and which rules may match them. Pure."""

from __future__ import annotations

from typing import Any, Final

from hub.models import JSON

TASK_DEAD: Final = "hub.task_dead"
DIGEST: Final = "hub.dead_letters_digest"
CIRCUIT_OPENED: Final = "hub.circuit_opened"
CIRCUIT_CLOSED: Final = "hub.circuit_closed"
CONSUMER_FAILED: Final = "hub.consumer_failed"
SECRETS_UNREADABLE: Final = "hub.secrets_unreadable"
NO_WORKERS: Final = "hub.no_workers"
SOURCE_LAGGING: Final = "hub.source_lagging"

_TEXT: Final = {"type": "string"}
_OPTIONAL: Final = {"type": ["string", "null"]}
_TIME: Final = {"type": "string", "format": "date-time"}
_NUMBER: Final = {"type": "integer", "minimum": 0}
_COMMON: Final[dict[str, Any]] = {
    "count": {"type": "integer", "minimum": 1, "description": "How many times it happened since the last such event."},
    "since": _TIME | {"description": "When the first of them happened."},
    "until": _TIME | {"description": "When the last of them happened."},
}
_SERVICE: Final = _TEXT | {"description": "Name of the service."}
_DEAD: Final[dict[str, Any]] = {
    "service": _SERVICE,
    "rule": _OPTIONAL | {"description": "Rule of the latest dead letter."},
    "event": _TEXT | {"description": "Event of the latest dead letter."},
    "reason": {"enum": ["attempts", "expired", "worker_lost"]},
    "error": _OPTIONAL,
    "task_id": _NUMBER,
    "dead_letter_id": _NUMBER,
    "attempts": _NUMBER,
}
_CIRCUIT: Final[dict[str, Any]] = {
    "service": _SERVICE,
    "circuit": {"enum": ["dispatch", "responses"], "description": "Requests, or reading of the response queue."},
    "failures": _NUMBER,
    "retry_at": {"type": ["string", "null"], "description": "When an open circuit lets a probe through."},
}
_WHAT: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    TASK_DEAD: ("Tasks of a service became dead letters.", _DEAD),
    DIGEST: ("More tasks of the service became dead letters after `hub.task_dead`.", _DEAD),
    CIRCUIT_OPENED: ("The circuit of a service opened.", _CIRCUIT),
    CIRCUIT_CLOSED: ("The circuit of a service closed.", _CIRCUIT),
    CONSUMER_FAILED: ("The response queue of a service could not be read.", {"service": _SERVICE, "error": _TEXT}),
    SECRETS_UNREADABLE: ("No key in HUB_SECRET_KEYS decrypts the secrets of a service.", {"service": _SERVICE}),
    NO_WORKERS: (
        "No worker has reported for a minute. The event is delivered when one runs again.",
        {"last_seen_at": {"type": ["string", "null"]}, "waiting": _NUMBER | {"description": "Tasks that wait."}},
    ),
}
SCHEMAS: Final[dict[str, dict[str, Any]]] = {
    name: {
        "title": name,
        "description": description,
        "type": "object",
        "properties": properties | _COMMON,
        "required": [*properties, *_COMMON],
        "additionalProperties": False,
    }
    for name, (description, properties) in _WHAT.items()
}
"""JSON Schema of the data of each operator event."""
OPERATOR_EVENTS: Final = frozenset({*SCHEMAS, SOURCE_LAGGING})


def may_match(pattern: str, service: str, event: str, data: JSON) -> bool:
    """Whether a rule may match an operator event.

    Only rules that name such events (`hub.` and more) do, and an event about a service is not sent to that service.
    """
    named = pattern.removeprefix("\\").startswith("hub.")
    return named and not (isinstance(data, dict) and data.get("service") == service)
