"""Secrets that a service's URLs hold: shown nowhere, exported as a reference, kept when what was shown comes back."""

from __future__ import annotations

from typing import Any

import pytest

from hub.config.definitions import ServiceSpec, parse_spec
from hub.config.documents import merge, service_document
from hub.config.yaml_file import Reference
from hub.errors import ConfigError
from hub.models import Service, ServiceType
from hub.transports.masking import masked_url, without_secrets

BASE = "https://h.example/hook?tenant=7&api_key=canary-1&sig=canary%2F2"
TOKEN = "https://id:canary-3@idp.example/token?client_secret=canary-4&v=2"


@pytest.fixture
def service() -> Service:
    spec: ServiceSpec = parse_spec(
        ServiceSpec,
        {
            "name": "s",
            "base_url": BASE,
            "auth": {"type": "oauth2", "token_url": TOKEN, "client_id": "c", "client_secret": "canary-5"},
        },
    )
    columns, secrets = spec.split()
    return Service(id=1, secrets=secrets, type=ServiceType.REST, **{k: v for k, v in columns.items() if k != "type"})


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (BASE, "https://h.example/hook?tenant=7&api_key=***&sig=***"),
        (TOKEN, "https://id:***@idp.example/token?client_secret=***&v=2"),
        ("https://sk_live_1@h/", "https://***@h/"),
        ("http://h/a?b=1#c", "http://h/a?b=1#c"),
        ("amqp://user@h/v?routing_key=a.b", "amqp://user@h/v?routing_key=a.b"),
        ("http://[", "***"),
    ],
)
def test_a_url_is_shown_without_its_secrets(url: str, shown: str) -> None:
    assert masked_url(url) == shown


def test_documents_exports_and_texts_hold_none_of_them(service: Service) -> None:
    shown = service_document(service)
    assert "canary" not in str(shown) and "tenant=7" in shown["base_url"]
    names: list[str] = []

    def reference(key: str) -> Reference:
        names.append(key)
        return Reference(key)

    exported = service_document(service, mask=reference)
    assert "canary" not in str(exported) and {"base_url", "token_url", "client_secret"} == set(names)
    assert "canary" not in without_secrets("echo canary-1 canary/2 canary%2F2 canary-3 canary-4 canary-5", service)


def test_what_was_shown_and_comes_back_keeps_what_is_stored(service: Service) -> None:
    full, shown = service_document(service, secrets=True), service_document(service)
    assert merge(full, shown) == full
    other: dict[str, Any] = {"base_url": shown["base_url"].replace("h.example", "evil.example")}
    with pytest.raises(ConfigError, match="base_url"):
        merge(full, other)
    with pytest.raises(ConfigError, match=r"auth\.token_url"):
        merge(full, {"auth": {"token_url": shown["auth"]["token_url"].replace("idp", "evil")}})
