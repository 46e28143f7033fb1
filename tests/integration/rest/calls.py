"""Calls of the REST transport."""

from __future__ import annotations

from typing import Any

from hub.models import Request, Response, Service, ServiceType
from hub.transports.base import Deadline
from hub.transports.rest import RestTransport

SECRET = "tok-canary-51f0a7"  # must appear in no error


PATIENCE = 120.0  # seconds; for exchanges that are expected to end by themselves


def service(url: str, **fields: Any) -> Service:
    return Service(id=1, name="crm", type=ServiceType.REST, base_url=url, **fields)


def send(
    transport: RestTransport, url: str, request: Request | None = None, *, seconds: float = PATIENCE, **fields: Any
) -> Response:
    return transport.send(service(url, **fields), request or Request(body="{}"), Deadline(seconds))
