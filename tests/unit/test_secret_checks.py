"""Which values may be stored as a service's secrets."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from hub.config.definitions import ServiceSpec, parse_spec
from hub.config.documents import check_service
from hub.errors import ConfigError


def check(stored: dict[str, str] | None = None, **fields: Any) -> None:
    document = {"name": "s", "base_url": "http://h/"} | fields
    check_service(parse_spec(ServiceSpec, document), stored)


def secret(size: int) -> str:
    return "whsec_" + base64.b64encode(b"x" * size).decode()


@pytest.mark.parametrize("field", ["signing_secret", "signing_secret_old", "inbound.signing_secret"])
@pytest.mark.parametrize(("size", "good"), [(5, False), (23, False), (24, True), (64, True), (65, False)])
def test_a_signing_secret_has_24_to_64_bytes(field: str, size: int, good: bool) -> None:
    outer, _, inner = field.partition(".")
    fields: dict[str, Any] = {outer: {inner: secret(size)} if inner else secret(size)}
    if good:
        check(**fields)
        return
    with pytest.raises(ConfigError, match=f"{field}: has {size} bytes.*24 to 64") as caught:
        check(**fields)
    assert secret(size) not in str(caught.value)


@pytest.mark.parametrize("value", ["whsec_", "%%", "whsec_not base64!", "whsec_" + "é" * 40])
def test_a_signing_secret_is_base64(value: str) -> None:
    if value == "whsec_":
        with pytest.raises(ConfigError, match="has 0 bytes"):
            check(signing_secret=value)
        return
    with pytest.raises(ConfigError, match="signing_secret: must be whsec_ and base64"):
        check(signing_secret=value)


def test_a_stored_secret_that_is_too_short_does_not_forbid_other_changes() -> None:
    check({"signing_secret": secret(5)}, signing_secret=secret(5))
    with pytest.raises(ConfigError, match="has 6 bytes"):
        check({"signing_secret": secret(5)}, signing_secret=secret(6))


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("auth.token", {"auth": {"type": "bearer", "token": "***new"}}),
        ("auth.token", {"auth": {"type": "apikey", "token": "***"}}),
        ("auth.password", {"auth": {"type": "basic", "username": "u", "password": "***x"}}),
        (
            "auth.client_secret",
            {"auth": {"type": "oauth2", "token_url": "http://h", "client_id": "c", "client_secret": "***x"}},
        ),
        ("inbound.token", {"inbound": {"token": "***x"}}),
        ("inbound.signing_secret", {"inbound": {"signing_secret": "***x"}}),
        ("signing_secret", {"signing_secret": "***"}),
        ("secret_headers.X-A", {"secret_headers": {"X-A": "***x"}}),
        ("base_url", {"type": "amqp", "base_url": "amqp://u:***x@h/"}),
    ],
)
def test_what_begins_as_a_mask_is_no_secret(field: str, fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"{field}: begins with \*\*\*"):
        check(**fields)


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("base_url", {"base_url": "https://h/?key=***"}),
        ("base_url", {"base_url": "https://***@h/"}),
        (
            "auth.token_url",
            {"auth": {"type": "oauth2", "token_url": "https://h/?token=***", "client_id": "c", "client_secret": "x"}},
        ),
    ],
)
def test_a_url_as_it_is_shown_is_no_url_to_store(field: str, fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"{field}: holds \*\*\*"):
        check(**fields)
