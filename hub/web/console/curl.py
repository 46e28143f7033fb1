"""A delivery as a cURL command. It has no secret: credentials are shell variables, stored values are masked."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from hub.config.documents import service_document
from hub.errors import InvalidPayloadError
from hub.models import Service, ServiceType
from hub.transports.http.urls import parse_base, target


def as_curl(service: Service, delivery: Mapping[str, Any]) -> str | None:
    """The command that repeats a request; None unless it is an outbound request to a REST service.

    Uses the service as it is now. The idempotency key is left out: the command is a new request.
    """
    if service.type is not ServiceType.REST or delivery["direction"] != "outbound" or not delivery["method"]:
        return None
    document = service_document(service)
    try:
        base = parse_base(document["base_url"])
        url = f"{base.scheme}://{base.authority}{target(base, delivery['endpoint'] or '')}"
    except InvalidPayloadError:
        return None
    parts = ["curl", "-i", "-X", shlex.quote(delivery["method"]), shlex.quote(url)]
    auth = document["auth"]
    if auth["type"] in ("bearer", "oauth2"):
        parts += ["-H", '"Authorization: Bearer $TOKEN"']
    elif auth["type"] == "apikey":
        parts += ["-H", f'{shlex.quote((auth.get("header") or "X-API-Key") + ": ")}"$TOKEN"']
    elif auth["type"] == "basic":
        parts += ["-u", f'{shlex.quote((auth.get("username") or "") + ":")}"$PASSWORD"']
    body = delivery["request_body"]
    headers = {"Content-Type": "application/json"} if body else {}
    for name, value in (headers | (document.get("headers") or {})).items():
        parts += ["-H", shlex.quote(f"{name}: {value}")]
    if body:
        parts += ["--data-binary", shlex.quote(body)]
    return " ".join(parts)
