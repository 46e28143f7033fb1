"""A delivery as a cURL command."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from hub.models import Service, ServiceType
from hub.web.console.curl import as_curl

ROW: dict[str, Any] = {
    "direction": "outbound",
    "method": "POST",
    "endpoint": "/contacts",
    "request_body": '{"name": "O\'Brien $(reboot)"}',
}


def service(**fields: Any) -> Service:
    return Service(1, "crm", ServiceType.REST, **({"base_url": "https://crm.example.org/api"} | fields))


@pytest.mark.parametrize(
    ("auth_type", "expected"),
    [
        ("none", []),
        ("bearer", ["-H", "Authorization: Bearer $TOKEN"]),
        ("apikey", ["-H", "X-API-Key: $TOKEN"]),
        ("basic", ["-u", "ann:$PASSWORD"]),
    ],
)
def test_the_command_repeats_the_request_without_a_secret(auth_type: str, expected: list[str]) -> None:
    """A shell reads the body as one word, whatever is in it."""
    secrets = {"token": "s3cret", "password": "s3cret", "header:X-Key": "s3cret"}
    options = {"headers": {"X-Tenant": "7"}, "username": "ann"}
    command = as_curl(service(auth_type=auth_type, secrets=secrets, options=options), ROW)
    assert command is not None
    assert "s3cret" not in command
    words = shlex.split(command)
    assert words[:5] == ["curl", "-i", "-X", "POST", "https://crm.example.org/api/contacts"]
    assert words[5 : 5 + len(expected)] == expected
    assert "X-Tenant: 7" in words
    assert words[-2:] == ["--data-binary", ROW["request_body"]]


def test_only_requests_to_rest_services_have_a_command() -> None:
    """A message that came in, or that went to a broker, has none."""
    assert as_curl(service(), ROW | {"direction": "inbound"}) is None
    broker = Service(1, "mq", ServiceType.AMQP, "amqp://mq.example.org/")
    assert as_curl(broker, ROW) is None
