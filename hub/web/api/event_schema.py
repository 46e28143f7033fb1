"""OpenAPI schema of the body and headers of `POST /api/v1/events`."""

from __future__ import annotations

MOST = 1000  # events of one array
KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "The sender's id of the event, accepted once per 24 h, token and event name. For an array or a"
    " stream, the item's index is appended. An event's own `id` has precedence.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 200, "pattern": "^[!-~]+$"},
}
_NAME = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"}
_EVENT = {
    "title": "Event",
    "oneOf": [
        {
            "type": "object",
            "properties": {
                "name": _NAME,
                "data": {},
                "id": {"type": ["string", "null"], "minLength": 1, "maxLength": 255},
            },
            "required": ["name"],
            "additionalProperties": False,
        },
        {
            "description": "A Moodle event; its data is the whole object without `token`.",
            "type": "object",
            "properties": {"eventname": _NAME},
            "required": ["eventname"],
            "not": {"anyOf": [{"required": ["name"]}, {"required": ["data"]}]},
        },
    ],
    "examples": [
        {"name": "order.paid", "data": {"order": 7}, "id": "order-7-paid"},
        {"eventname": "\\core\\event\\user_loggedin", "userid": 5, "other": {"username": "student1"}},
    ],
}
BODY = {
    "required": True,
    "content": {
        "application/json": {"schema": {"anyOf": [_EVENT, {"type": "array", "items": _EVENT, "maxItems": MOST}]}},
        "application/x-ndjson": {"schema": {"type": "string", "description": "One event per line."}},
    },
}
