"""OAuth2 client credentials of the REST transport."""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest

from hub.errors import (
    ExpiredTokenError,
    RejectedError,
)
from hub.hooks import Hooks
from hub.models import Request, ServiceType
from hub.pipeline.gateway import Gateway
from hub.settings import Settings
from hub.store.breakers import Permit
from hub.transports.base import Deadline
from hub.transports.rest import RestTransport
from tests.integration.rest.calls import PATIENCE, send, service
from tests.support.http_target import HttpTarget, Reply, Seen


class _NoRows:
    """A circuit that is always closed, and no rate limit."""

    def admit(self, *_: Any, **__: Any) -> Permit:
        return Permit(1)

    def _nothing(self, *_: Any) -> None: ...

    acquire = release = failed = succeeded = _nothing


class TestOAuth:
    def fields(self, target: HttpTarget) -> dict[str, Any]:
        oauth2 = {"token_url": f"{target.url}/token", "client_id": "hub", "scope": "read write"}
        return {"auth_type": "oauth2", "secrets": {"client_secret": "s3cr3t-canary"}, "options": {"oauth2": oauth2}}

    def test_one_token_serves_many_requests_and_threads(self, transport: RestTransport, target: HttpTarget) -> None:
        target.on("/token", Reply(200, {"access_token": "t1", "expires_in": 3600, "token_type": "Bearer"}, delay=0.05))
        fixed = service(target.url, **self.fields(target))
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: transport.send(fixed, Request("/users", body="{}"), Deadline(PATIENCE)), range(16)))
        (asked,) = target.at("/token")
        assert asked.body == b"grant_type=client_credentials&scope=read+write"
        assert asked.headers["authorization"] == "Basic aHViOnMzY3IzdC1jYW5hcnk="
        assert {seen.headers["authorization"] for seen in target.at("/users")} == {"Bearer t1"}

    def test_a_token_that_is_no_longer_good_is_renewed_by_the_next_try(
        self, transport: RestTransport, target: HttpTarget
    ) -> None:
        """Servers revoke tokens early. One send reaches the service once, whatever it answers."""
        issued = self.issue(target)
        good = {"Bearer t0"}
        target.on("/users", lambda seen: 204 if seen.headers["authorization"] in good else 401)
        fields, request = self.fields(target), Request("/users", body="{}")
        send(transport, target.url, request, **fields)
        good.clear()
        good.add("Bearer t1")
        with pytest.raises(ExpiredTokenError) as caught:
            send(transport, target.url, request, **fields)
        assert caught.value.retriable and caught.value.sent and len(target.at("/users")) == 2
        assert send(transport, target.url, request, **fields).status == 204
        assert issued == ["t0", "t1"]

    def test_a_service_that_takes_no_token_at_all_costs_few_token_requests(
        self, transport: RestTransport, target: HttpTarget
    ) -> None:
        issued = self.issue(target)
        target.on("/users", 401)
        for _ in range(10):
            with pytest.raises(RejectedError) as caught:
                send(transport, target.url, Request("/users", body="{}"), **self.fields(target))
            assert caught.value.status == 401 and not caught.value.retriable
        assert len(target.at("/users")) == 10 and len(issued) <= 2

    def issue(self, target: HttpTarget) -> list[str]:
        issued: list[str] = []

        def token(_: Seen) -> Reply:
            issued.append(f"t{len(issued)}")
            return Reply(200, {"access_token": issued[-1], "expires_in": 3600})

        target.on("/token", token)
        return issued

    @pytest.mark.parametrize("tries", [1, 3])
    def test_one_attempt_makes_no_more_than_max_retries_requests(self, target: HttpTarget, tries: int) -> None:
        """Also when every token is refused, or was revoked a moment ago."""
        self.issue(target)
        parts: Any = _NoRows()
        rest = RestTransport(Settings())
        gateway = Gateway({ServiceType.REST: rest}, parts, parts, Hooks(), now=lambda: datetime.now(UTC))
        fixed = service(target.url, max_retries=tries, retry_backoff=0, **self.fields(target))
        assert gateway.execute_request(fixed, Request("/users", body="{}")).tries == 1
        target.seen.clear()
        target.on("/users", 401)
        for _ in range(5):
            target.seen.clear()
            with pytest.raises(RejectedError) as caught:
                gateway.execute_request(fixed, Request("/users", body="{}"))
            assert caught.value.tries == len(target.at("/users")) <= tries
        rest.close()

    def test_a_refusal_of_the_token_endpoint_is_remembered(self, transport: RestTransport, target: HttpTarget) -> None:
        """A wrong secret must not cost one token request for each attempt of a burst."""
        target.on("/token", Reply(401, {"error": "invalid_client"}))
        fixed = service(target.url, **self.fields(target))

        def refused(_: int) -> RejectedError:
            with pytest.raises(RejectedError, match="invalid_client") as caught:
                transport.send(fixed, Request("/users", body="{}"), Deadline(PATIENCE))
            return caught.value

        with ThreadPoolExecutor(8) as pool:
            errors = list(pool.map(refused, range(32)))
        assert {(e.status, e.sent, e.retriable) for e in errors} == {(401, False, False)}
        assert len(target.at("/token")) == 2, "once with the secret in the header, once in the form"
        target.on("/token", Reply(200, {"access_token": "t"}))
        assert send(transport, target.url, version=2, **self.fields(target)).status == 204, "a corrected service heals"

    def test_blanks_in_id_and_secret_are_percent_encoded(self, transport: RestTransport, target: HttpTarget) -> None:
        target.on("/token", Reply(200, {"access_token": "t"}))
        oauth2 = {"token_url": f"{target.url}/token", "client_id": "a b"}
        send(transport, target.url, auth_type="oauth2", options={"oauth2": oauth2}, secrets={"client_secret": "c+d e"})
        (asked,) = target.at("/token")
        assert base64.b64decode(asked.headers["authorization"].split()[1]) == b"a%20b:c%2Bd%20e"

    @pytest.mark.parametrize("lifetime", [int("9" * 400), "9" * 400, 1e308, -5, "soon", None, True])
    def test_any_lifetime_is_survived(self, transport: RestTransport, target: HttpTarget, lifetime: Any) -> None:
        target.on("/token", Reply(200, {"access_token": "t", "expires_in": lifetime}))
        assert send(transport, target.url, **self.fields(target)).status == 204

    def test_an_expired_token_is_not_used(self, transport: RestTransport, target: HttpTarget) -> None:
        target.on("/token", lambda seen: Reply(200, {"access_token": f"t{len(target.at('/token'))}", "expires_in": 0}))
        fields = self.fields(target)
        send(transport, target.url, Request("/users", body="{}"), **fields)
        token = transport._clients.get(service(target.url, **fields))._oauth
        assert token is not None
        token._until = 0.0
        send(transport, target.url, Request("/users", body="{}"), **fields)
        assert [seen.headers["authorization"] for seen in target.at("/users")] == ["Bearer t1", "Bearer t2"]

    def test_a_server_that_wants_the_secret_in_the_form_gets_it(
        self, transport: RestTransport, target: HttpTarget
    ) -> None:
        target.on(
            "/token",
            lambda seen: (
                Reply(200, {"access_token": "t"})
                if b"client_secret=" in seen.body
                else Reply(401, {"error": "invalid_client"})
            ),
        )
        assert send(transport, target.url, Request("/users", body="{}"), **self.fields(target)).status == 204

    @pytest.mark.parametrize(
        ("reply", "words"),
        [
            (Reply(400, {"error": "invalid_scope", "error_description": "s3cr3t-canary"}), "400 .invalid_scope"),
            (Reply(503, "down"), "503"),
            (Reply(200, "no json"), "without an access_token"),
        ],
    )
    def test_a_token_endpoint_that_says_no_is_told_apart(
        self, transport: RestTransport, target: HttpTarget, reply: Reply, words: str
    ) -> None:
        target.on("/token", reply)
        with pytest.raises(RejectedError, match=words) as caught:
            send(transport, target.url, Request("/users", body="{}"), **self.fields(target))
        assert "s3cr3t-canary" not in str(caught.value)
        assert not target.at("/users")
