"""Credentials and signatures of the REST transport."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook

from hub.errors import (
    DeliveryError,
    InvalidPayloadError,
    RejectedError,
)
from hub.models import Request
from hub.transports.rest import RestTransport
from tests.integration.rest.calls import SECRET, send
from tests.support.http_target import HttpTarget, Reply


class TestCredentials:
    @pytest.mark.parametrize(
        ("fields", "header", "value"),
        [
            ({"auth_type": "bearer", "secrets": {"token": SECRET}}, "authorization", f"Bearer {SECRET}"),
            ({"auth_type": "apikey", "secrets": {"token": SECRET}}, "x-api-key", SECRET),
            (
                {"auth_type": "apikey", "secrets": {"token": SECRET}, "options": {"apikey_header": "X-Key"}},
                "x-key",
                SECRET,
            ),
            (
                {"auth_type": "basic", "secrets": {"password": "p:ä"}, "options": {"username": "joe"}},
                "authorization",
                "Basic am9lOnA6w6Q=",
            ),
        ],
        ids=["bearer", "apikey", "apikey-header", "basic"],
    )
    def test_the_service_sees_them(
        self, transport: RestTransport, target: HttpTarget, fields: dict[str, Any], header: str, value: str
    ) -> None:
        send(transport, target.url, **fields)
        assert target.seen[0].headers[header] == value

    def test_a_user_in_the_url_is_basic_auth(self, transport: RestTransport, target: HttpTarget) -> None:
        """The registry keeps the password of a URL apart; together they must still log in."""
        send(transport, target.url.replace("//", "//us%40er@"), secrets={"password": "pw"})
        assert target.seen[0].headers["authorization"] == "Basic dXNAZXI6cHc="

    def test_a_service_that_echoes_them_leaks_nothing(self, transport: RestTransport, target: HttpTarget) -> None:
        """What a service answers is kept in the log and shown."""
        target.default = lambda seen: Reply(500, {"you sent": seen.headers})
        with pytest.raises(RejectedError) as caught:
            send(transport, target.url, auth_type="bearer", secrets={"token": SECRET, "header:X-Other": SECRET + "2"})
        assert caught.value.response_body is not None
        assert SECRET not in caught.value.response_body + str(caught.value)
        assert "Bearer ***" in caught.value.response_body

    def test_both_secrets_sign_while_one_is_rotated(self, transport: RestTransport, target: HttpTarget) -> None:
        old, new, other = ("whsec_" + letter * 32 for letter in "ABC")
        send(
            transport,
            target.url,
            Request(body='{"a":"é"}', idempotency_key="msg-1"),
            secrets={"signing_secret": new, "signing_secret_old": old},
        )
        (seen,) = target.seen
        assert seen.headers["webhook-id"] == "msg-1"
        for secret in (old, new):
            assert Webhook(secret).verify(seen.body, seen.headers) == {"a": "é"}
        with pytest.raises(Exception, match="No matching signature"):
            Webhook(other).verify(seen.body, seen.headers)

    def test_a_bad_signing_secret_is_named_not_shown(self, transport: RestTransport, target: HttpTarget) -> None:
        with pytest.raises(InvalidPayloadError, match="signing_secret") as caught:
            send(transport, target.url, secrets={"signing_secret": "whsec_"})
        assert "whsec_ and base64" in str(caught.value)


def test_no_error_text_holds_a_secret(transport: RestTransport, target: HttpTarget, tmp_path: Path) -> None:
    """Error texts go to logs, pages and dead letters."""
    secrets = {"token": SECRET, "password": SECRET, "header:X-S": SECRET, "signing_secret": "whsec_" + "A" * 32}
    failing: list[Callable[[], object]] = [
        lambda: send(transport, "http://127.0.0.1:1", auth_type="bearer", secrets=secrets),
        lambda: send(transport, "http://u@nowhere.invalid", secrets=secrets),
        lambda: send(transport, target.url, Request("/../x"), auth_type="apikey", secrets=secrets),
        lambda: send(transport, target.url, auth_type="bearer", secrets={"token": SECRET + "\n"}),
        lambda: send(transport, target.url, Request("/500"), auth_type="basic", secrets=secrets),
    ]
    target.on("/500", 500)
    for fail in failing:
        with pytest.raises(DeliveryError) as caught:
            fail()
        assert SECRET not in f"{caught.value} {caught.value.response_body} {caught.value.__cause__}"
