"""Sends of the AMQP transport."""

from __future__ import annotations

from urllib.parse import urlsplit

from hub.models import Request, Service, ServiceType

PATIENCE = 120.0  # seconds; for exchanges that are expected to end by themselves
REQUEST = Request(body='{"a":"é"}', idempotency_key="key-1", task_id=7, event_name="\\core\\event\\x")


def service(url: str, **changes: object) -> Service:
    fields: dict[str, object] = {"id": 1, "name": "bus", "type": ServiceType.AMQP, "base_url": url, **changes}
    return Service(**fields)  # type: ignore[arg-type]


def target(broker_url: str) -> tuple[str, int]:
    parts = urlsplit(broker_url)
    return str(parts.hostname), parts.port or 5672
