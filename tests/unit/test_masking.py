"""A service that repeats what it was sent tells nobody a secret, however it writes it."""

from __future__ import annotations

import json
from base64 import b64encode
from urllib.parse import quote, quote_plus

import pytest

from hub.models import Service, ServiceType
from hub.transports.masking import without_secrets

SECRET = 'p"ss \\w/ö+rd'
SERVICE = Service(
    1,
    "s",
    ServiceType.REST,
    "http://h",
    options={"username": "us er", "oauth2": {"client_id": "id"}},
    secrets={"password": SECRET, "client_secret": "geheim", "token": "abc"},
)


@pytest.mark.parametrize(
    "told",
    [
        SECRET,
        quote(SECRET, safe=""),
        quote_plus(SECRET),
        json.dumps(SECRET),
        json.dumps(SECRET, ensure_ascii=False),
        b64encode(SECRET.encode()).decode(),
        b64encode(f"us er:{SECRET}".encode()).decode(),
        b64encode(b"id:geheim").decode(),
        "geheim",
    ],
)
def test_a_secret_is_masked_in_every_dress(told: str) -> None:
    shown = without_secrets(f"Authorization: Basic {told}; and more", SERVICE)
    assert told.strip('"=') not in shown and "***" in shown and shown.endswith("and more")


def test_what_is_too_short_to_hide_is_left() -> None:
    assert without_secrets("abc abcd", SERVICE) == "abc abcd"
