"""The fields of JSON log lines (`HUB_LOG_FORMAT=json`): names, types, meaning. The reference page is made from it."""

from __future__ import annotations

from typing import Any

_STRING, _INTEGER, _NUMBER = "string", "integer", "number"

COMMON: dict[str, tuple[str, str]] = {
    "timestamp": (_STRING, "Time in ISO 8601, UTC, by the clock of the machine."),
    "level": (_STRING, "debug, info, warning, error or critical."),
    "logger": (_STRING, "Dotted name of the module, or of a library."),
    "message": (_STRING, "What happened. The texts of the hub are constant; values are in other fields."),
    "host": (_STRING, "Host name of the machine or container."),
    "pid": (_INTEGER, "Process id."),
    "version": (_STRING, "Version of the hub."),
}
ATTEMPT: dict[str, tuple[str | tuple[str, ...], str]] = {
    "task": (_INTEGER, "Id of the task."),
    "event": (_STRING, "Name of the event."),
    "event_id": (_STRING, "Id of the event, as `POST /api/v1/events` returned it."),
    "key": (_STRING, "Idempotency key that the service receives."),
    "attempt": (_INTEGER, "Number of the attempt, from 1."),
    "rule": (_STRING, "Name of the rule."),
    "service": (_STRING, "Name of the service."),
    "status": ((_INTEGER, "null"), "HTTP status of the response."),
    "latency_ms": (_NUMBER, "Duration of the attempt in milliseconds."),
    "sample_rate": (_NUMBER, "Share of deliveries that are logged, if not all are (`HUB_LOG_SUCCESSES`)."),
    "outcome": (_STRING, "Kind of failure, as the label of `hub_dispatch_failures_total`."),
    "error": (("string", "null"), "The error, without secrets."),
    "next_in": ((_NUMBER, "null"), "Seconds until the next attempt."),
    "why": (("string", "null"), "Why a task was released without an attempt."),
    "retry_after": ((_NUMBER, "null"), "Seconds until a released task is tried again."),
}
OTHER: dict[str, tuple[str | tuple[str, ...], str]] = {
    "exception": (_STRING, "Traceback of an unexpected error."),
    "stack": (_STRING, "Stack, where a library asks for it."),
    "action": (_STRING, "Security events: login, link, user, session or token."),
    "result": (_STRING, "Security events: what became of it, such as ok, failed or locked."),
    "actor": (("string", "null"), "Security events: name of who acted."),
    "actor_kind": (("string", "null"), "Security events: user, token, cli and so on."),
    "origin": (("string", "null"), "Security events: address of the client."),
    "user": (("string", "integer", "null"), "Security events: the user concerned."),
    "role": (("string", "null"), "Security events: role of the user concerned."),
    "token": (("string", "integer", "null"), "Security events: name of the API token concerned, not its value."),
    "scope": (("string", "null"), "Security events: scope of the API token concerned."),
    "circuit": (_STRING, "Circuit changes: dispatch or responses."),
    "was": (_STRING, "Circuit changes: the state before."),
    "now": (_STRING, "Circuit changes: the state after."),
    "summary": (_STRING, "Response queues: messages read, stored, malformed."),
    "queue": (("string", "null"), "Name of a queue."),
    "reason": (_STRING, "Rejected messages: why; other lines: the cause."),
    "count": (_INTEGER, "How many tasks, events or chains the line is about."),
    "at": (_STRING, "Address where a server listens, or file and line of a warning."),
}


def json_schema() -> dict[str, Any]:
    """Return a JSON Schema (2020-12) of one line.

    Lines of other events may have fields that are not listed; those listed always have the given type.
    """
    properties = {
        name: {"type": list(kind) if isinstance(kind, tuple) else kind, "description": text}
        for group in (COMMON, ATTEMPT, OTHER)
        for name, (kind, text) in group.items()
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Log line of Integration Hub",
        "type": "object",
        "required": list(COMMON),
        "properties": properties,
    }
