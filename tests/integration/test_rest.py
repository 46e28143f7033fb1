"""The REST transport against real HTTP(S) servers, well-behaved and not."""

from __future__ import annotations

import base64
import gzip
import os
import resource
import select
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests
from standardwebhooks import Webhook

from hub.errors import (
    ConnectError,
    DeliveryError,
    EgressRefusedError,
    ExpiredTokenError,
    InvalidPayloadError,
    NotSentError,
    RejectedError,
    TimedOutError,
    UnavailableError,
)
from hub.hooks import Hooks
from hub.models import Request, Response, Service, ServiceType
from hub.pipeline.gateway import Gateway
from hub.settings import Settings
from hub.store.breakers import Permit
from hub.transports.base import Deadline
from hub.transports.http import connection as http_connection
from hub.transports.http import pool as http_pool
from hub.transports.http.adapter import HubAdapter
from hub.transports.rest import RestTransport
from tests.support.certificates import Authority
from tests.support.http_target import HttpTarget, Reply, Seen
from tests.support.raw_server import RawServer
from tests.support.waiting import eventually

SECRET = "tok-canary-51f0a7"  # must appear in no error
PATIENCE = 10.0  # seconds; for exchanges that are expected to end by themselves


@pytest.fixture
def transport() -> Iterator[RestTransport]:
    transport = RestTransport(Settings())
    yield transport
    transport.close()


@pytest.fixture
def target() -> Iterator[HttpTarget]:
    with HttpTarget() as target:
        yield target


class _NoRows:
    """A circuit that is always closed, and no rate limit."""

    def admit(self, *_: Any, **__: Any) -> Permit:
        return Permit(1)

    def _nothing(self, *_: Any) -> None: ...

    acquire = release = failed = succeeded = _nothing


def service(url: str, **fields: Any) -> Service:
    return Service(id=1, name="crm", type=ServiceType.REST, base_url=url, **fields)


def send(
    transport: RestTransport, url: str, request: Request | None = None, *, seconds: float = PATIENCE, **fields: Any
) -> Response:
    return transport.send(service(url, **fields), request or Request(body="{}"), Deadline(seconds))


class TestRequest:
    @pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
    def test_each_method_arrives_as_itself_with_its_body(
        self, transport: RestTransport, target: HttpTarget, method: str
    ) -> None:
        """MIH sends PATCH as GET, and breaks the bodies of PUT and DELETE."""
        send(transport, target.url, Request("/users/5", method, '{"name":"Žofie"}'))
        (seen,) = target.seen
        assert (seen.method, seen.path, seen.json()) == (method, "/users/5", {"name": "Žofie"})
        assert seen.headers["content-type"] == "application/json"

    @pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
    def test_without_a_body_there_is_no_framing(
        self, transport: RestTransport, target: HttpTarget, method: str
    ) -> None:
        send(transport, target.url, Request("/users", method))
        (seen,) = target.seen
        assert seen.method == method
        assert not {"content-length", "content-type", "transfer-encoding"} & seen.headers.keys()

    def test_a_post_without_a_body_says_so(self, transport: RestTransport, target: HttpTarget) -> None:
        send(transport, target.url, Request("/ping", "POST"))
        assert target.seen[0].headers["content-length"] == "0"

    def test_it_says_who_it_is_and_what_for(self, transport: RestTransport, target: HttpTarget) -> None:
        """The key is what lets a service tell a repeat; the trace joins the hub to the sender's."""
        trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        send(transport, f"{target.url}/api/v1", Request(
            "users?full=1", body="{}", idempotency_key="key-1", task_id=42, event_name="\\core\\event\\user_created",
            headers={"traceparent": trace},
        ))  # fmt: skip
        (seen,) = target.seen
        assert (seen.path, seen.query) == ("/api/v1/users", "full=1")
        assert seen.headers["host"] == f"127.0.0.1:{target.port}"
        assert seen.headers["idempotency-key"] == "key-1"
        assert seen.headers["x-hub-task"] == "42"
        assert seen.headers["x-hub-event"] == "\\core\\event\\user_created"
        assert seen.headers["traceparent"] == trace
        assert seen.headers["user-agent"].startswith("integration-hub/")

    def test_a_large_body_arrives_whole(self, transport: RestTransport, target: HttpTarget) -> None:
        body = '"' + "é" * 3_000_000 + '"'
        send(transport, target.url, Request(body=body))
        assert target.seen[0].body == body.encode()

    def test_own_headers_win_over_the_defaults_and_never_over_the_framing(
        self, transport: RestTransport, target: HttpTarget
    ) -> None:
        options = {"headers": {"content-TYPE": "application/vnd.api+json", "X-Tenant": "7"}}
        send(transport, target.url, options=options, secrets={"header:X-Secret": SECRET})
        (seen,) = target.seen
        assert seen.headers["content-type"] == "application/vnd.api+json"
        assert (seen.headers["x-tenant"], seen.headers["x-secret"]) == ("7", SECRET)
        with pytest.raises(InvalidPayloadError, match="Content-Length"):
            send(transport, target.url, options={"headers": {"Content-Length": "1"}})

    @pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nb", "a\rb", "a\x00b"])
    def test_no_value_can_smuggle_in_a_header(self, transport: RestTransport, target: HttpTarget, value: str) -> None:
        with pytest.raises(InvalidPayloadError, match="control character") as caught:
            send(transport, target.url, secrets={"header:X-Secret": value})
        assert value not in str(caught.value)
        with pytest.raises(InvalidPayloadError):
            send(transport, target.url, Request(body="{}", headers={"traceparent": value}))
        with pytest.raises(InvalidPayloadError):
            send(transport, target.url, Request(body="{}", headers={value: "x"}))
        assert not target.seen

    def test_an_event_name_cannot_smuggle_in_a_header(self, transport: RestTransport, target: HttpTarget) -> None:
        """Event names come from outside; a strange one must not cost the delivery either."""
        send(transport, target.url, Request(body="{}", event_name="x\r\nX-Evil: 1 é"))
        (seen,) = target.seen
        assert "x-evil" not in seen.headers
        assert seen.headers["x-hub-event"] == "x%0D%0AX-Evil: 1 %C3%A9"

    def test_an_unknown_method_is_refused(self, transport: RestTransport, target: HttpTarget) -> None:
        with pytest.raises(InvalidPayloadError, match="not one of"):
            send(transport, target.url, Request(method="GET / HTTP/1.1\r\nX: "))


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
        send(transport, target.url, Request(body='{"a":"é"}', idempotency_key="msg-1"),
             secrets={"signing_secret": new, "signing_secret_old": old})  # fmt: skip
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
        target.on("/token", lambda seen: Reply(200, {"access_token": "t"}) if b"client_secret=" in seen.body
                  else Reply(401, {"error": "invalid_client"}))  # fmt: skip
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


class TestAnswer:
    def test_a_success_brings_status_body_and_headers(self, transport: RestTransport, target: HttpTarget) -> None:
        target.default = Reply(201, {"id": 7}, {"Location": "/users/7"})
        response = send(transport, target.url)
        assert (response.status, response.body, response.headers["location"]) == (201, '{"id": 7}', "/users/7")

    @pytest.mark.parametrize("status", [301, 302, 307, 400, 401, 404, 409, 422, 429, 500, 503])
    def test_everything_else_is_a_refusal_with_what_was_answered(
        self, transport: RestTransport, target: HttpTarget, status: int
    ) -> None:
        """MIH throws the body of a failure away, which is where services say why."""
        target.default = Reply(status, '{"error":"field x"}', {"Location": f"{target.url}/elsewhere"})
        with pytest.raises(RejectedError, match=str(status)) as caught:
            send(transport, target.url)
        assert (caught.value.status, caught.value.response_body) == (status, '{"error":"field x"}')
        assert len(target.seen) == 1, "redirects are not followed"

    @pytest.mark.parametrize(("status", "value", "seconds"), [(429, "7", 7.0), (503, "0", 0.0), (400, "junk", None)])
    def test_how_long_to_wait_is_read(
        self, transport: RestTransport, target: HttpTarget, status: int, value: str, seconds: float | None
    ) -> None:
        target.default = Reply(status, headers={"Retry-After": value})
        with pytest.raises(RejectedError) as caught:
            send(transport, target.url)
        assert caught.value.retry_after == seconds

    def test_a_long_answer_is_cut_and_is_still_a_success(self, target: HttpTarget) -> None:
        """The service has done it; failing now would only make it do it again."""
        transport = RestTransport(Settings(response_limit=2048, body_limit=100))
        target.default = Reply(200, "x" * 1_000_000)
        response = send(transport, target.url)
        assert response.status == 200
        assert response.body is not None
        assert response.body.startswith("x" * 100 + "…")
        assert len(response.body) < 200
        send(transport, target.url)
        assert target.connections == 2, "a connection with an unread rest is not used again"
        transport.close()

    def test_a_compressed_bomb_is_cut(self, target: HttpTarget) -> None:
        transport = RestTransport(Settings(response_limit=4096))
        target.default = Reply(200, gzip.compress(b"y" * 50_000_000), {"Content-Encoding": "gzip"})
        response = send(transport, target.url)
        assert response.body is not None
        assert response.body.startswith("yyy")
        assert len(response.body) < 5000
        transport.close()

    def test_text_that_postgresql_could_not_take_is_made_harmless(
        self, transport: RestTransport, target: HttpTarget
    ) -> None:
        target.default = Reply(200, b"a\x00b\xff\xed\xa0\x80", {"Content-Type": "text/plain; charset=zip"})
        body = send(transport, target.url).body
        assert body is not None
        assert "\x00" not in body
        assert body.encode()

    def test_the_named_charset_is_used(self, transport: RestTransport, target: HttpTarget) -> None:
        target.default = Reply(200, "é".encode("latin-1"), {"Content-Type": "text/plain; charset=ISO-8859-1"})
        assert send(transport, target.url).body == "é"


class TestWire:
    """Answers as they come from servers that are old, odd or broken."""

    def answered(
        self, transport: RestTransport, *pieces: bytes, method: str = "POST", seconds: float = PATIENCE
    ) -> Any:
        def serve(sock: socket.socket) -> None:
            sock.recv(65536)
            for piece in pieces:
                sock.sendall(piece)

        with RawServer(serve) as server:
            return send(transport, server.url, Request(method=method), seconds=seconds)

    @pytest.mark.parametrize(
        ("pieces", "body"),
        [
            ((b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
              b"5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nT: 1\r\n\r\n"), "hello world"),
            ((b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r", b"\nhel", b"lo\r\n0\r\n\r\n"), "hello"),
            ((b"HTTP/1.0 200 OK\r\n\r\n", b"until ", b"the end"), "until the end"),
            ((b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n",
              b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"), "ok"),
            ((b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok",), "ok"),
            ((b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",), "ok"),
            ((b"HTTP/1.1 200 OK\r\nX-Folded: a\r\n b\r\nContent-Length: 2, 2\r\n\r\nok",), "ok"),
        ],
        ids=["chunks", "split", "http10", "interim", "no-phrase", "bare-newlines", "folded"],
    )  # fmt: skip
    def test_it_is_understood(self, transport: RestTransport, pieces: tuple[bytes, ...], body: str) -> None:
        assert self.answered(transport, *pieces).body == body

    @pytest.mark.parametrize(
        "framing",
        [
            b"Transfer-Encoding: chunked\r\n\r\n2 \r\nok\r\n0\r\n\r\n",
            b"Transfer-Encoding: chunked\r\n\r\n2\t\r\nok\r\n0\r\n\r\n",
            b"Transfer-Encoding: chunked\r\n\r\n 2\r\nok\r\n0\r\n\r\n",
            b"Transfer-Encoding: chunked\r\n\r\n2 ;x\r\nok\r\n0\r\n\r\n",
            b"Transfer-Encoding: chunked\r\n\r\n2\nok\n0\n\n",
            b"Transfer-Encoding: chunked\r\n\r\n2\r\r\nok\r\n0\r\n\r\n",
            b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\r\n0\r\n\r\n",
            b"Transfer-Encoding: chunked\r\n\r\n0x2\r\nok\r\n0\r\n\r\n",
            b"Transfer-Encoding:\r\nContent-Length: 2\r\n\r\nok",
            b"Transfer-Encoding: ,\r\nContent-Length: 2\r\n\r\nok",
            b"Transfer-Encoding: chunked, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            b"Transfer-Encoding\x0b: chunked\r\nContent-Length: 2\r\n\r\nok",
            b"Content-Length : 2\r\n\r\nok",
            b"Content-Length: 2\xa0\r\n\r\nok",
            b"Content-Length: +2\r\n\r\nok",
            b"Content-Length:\r\n\r\nok",
            b"X: a\rContent-Length: 9\r\nContent-Length: 2\r\n\r\nok",
            b"X: y\r\n" * 2000 + b"Content-Length: 2\r\n\r\nok",
        ],
        ids=repr,
    )
    def test_framing_that_two_readers_may_take_differently_is_refused(
        self, transport: RestTransport, framing: bytes
    ) -> None:
        """What a proxy in between reads otherwise would become the next request's answer."""
        with pytest.raises(ConnectError):
            self.answered(transport, b"HTTP/1.1 200 OK\r\n" + framing)

    def test_an_extension_of_a_chunk_is_skipped(self, transport: RestTransport) -> None:
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert self.answered(transport, head + b"2;x=y\r\nok\r\n0\r\n\r\n").body == "ok"

    def test_too_many_chunks_are_cut(self, transport: RestTransport) -> None:
        """Each costs as much as a long one. The status counts all the same: the service has done its work."""
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        body = self.answered(transport, head + b"1\r\na\r\n" * 200_000 + b"0\r\n\r\n").body
        assert body is not None and "too many chunks" in body and body.count("a") < 20_000

    def test_small_pieces_are_read_together(self, transport: RestTransport, monkeypatch: pytest.MonkeyPatch) -> None:
        """Byte by byte, each read costs as much as one of 64 kB, and the process has only one core for all services."""
        reads, sent = [0], [0]
        receive = http_connection.HttpConnection.receive

        def counted(wire: http_connection.HttpConnection, most: int, deadline: Deadline) -> bytes:
            reads[0] += 1
            return receive(wire, most, deadline)

        def serve(sock: socket.socket) -> None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.recv(65536)
            sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            with suppress(OSError):
                while not server.closing.is_set():
                    sock.send(b"a")
                    sent[0] += 1

        monkeypatch.setattr(http_connection.HttpConnection, "receive", counted)
        with RawServer(serve) as server, pytest.raises(TimedOutError):
            send(transport, server.url, seconds=2)
        assert sent[0] > 5000 and reads[0] < 1000, (sent, reads)

    @pytest.mark.parametrize(
        "pieces",
        [
            (),
            (b"SSH-2.0-OpenSSH_9.2\r\n\r\n",),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",),
            (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nabc",),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello!!\r\n",),
            (b"HTTP/1.1 100 Continue\r\n\r\n" * 1000,),
            (b"HTTP/1.1 200 OK\r\nbroken\r\n\r\n",),
            (b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 100_000,),
        ],
        ids=[
            "nothing",
            "ssh",
            "short",
            "lengths",
            "negative",
            "no-chunk",
            "half-chunk",
            "long-chunk",
            "interim",
            "no-colon",
            "endless-head",
        ],
    )
    def test_a_broken_answer_is_a_lost_connection(self, transport: RestTransport, pieces: tuple[bytes, ...]) -> None:
        with pytest.raises(ConnectError) as caught:
            self.answered(transport, *pieces)
        assert not isinstance(caught.value, TimedOutError)

    def test_a_head_request_waits_for_no_body(self, transport: RestTransport) -> None:
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
        assert self.answered(transport, answer, method="HEAD").status == 200

    def test_an_answer_that_comes_before_the_body_was_read_is_heard(self, transport: RestTransport) -> None:
        """Servers refuse a body that is too large and hang up."""

        def serve(sock: socket.socket) -> None:
            sock.recv(1024)
            sock.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(65536):
                pass

        with RawServer(serve) as server, pytest.raises(RejectedError, match="413"):
            send(transport, server.url, Request(body="x" * 5_000_000))


def _never_read(sock: socket.socket) -> None:
    """Holds the connection, reading nothing, until the other side or the test hangs up."""
    poll = select.poll()
    poll.register(sock, select.POLLHUP | select.POLLRDHUP | select.POLLERR)
    poll.poll(30_000)


class TestDeadline:
    """One deadline for everything: a service that sends a byte now and then must not hold a worker."""

    @pytest.mark.parametrize(
        ("opening", "drip"),
        [
            (b"", b""),
            (b"", b"H"),
            (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"a"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n"),
            (b"HTTP/1.1 200 OK\r\n\r\n", b"a"),
        ],
        ids=["silent", "status", "headers", "body", "chunks", "no-length"],
    )
    @pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
    def test_it_holds_against_slow_answers(self, tmp_path: Path, opening: bytes, drip: bytes, secure: bool) -> None:
        released = threading.Event()

        def serve(sock: socket.socket) -> None:
            sock.recv(65536)
            sock.sendall(opening)
            while not server.closing.wait(0.02):  # each read succeeds within the timeout
                sock.sendall(drip)
            released.set()

        authority = Authority(tmp_path) if secure else None
        transport = RestTransport(Settings())
        with RawServer(serve, tls=authority.server() if authority else None) as server:
            with pytest.raises(TimedOutError) as caught:
                send(transport, server.url, seconds=0.3, options={"ca_file": authority.file} if authority else {})
            assert caught.value.status == (200 if b"\r\n\r\n" in opening else None)
            assert not released.is_set()
        transport.close()

    @pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
    def test_it_holds_against_a_service_that_does_not_read(self, tmp_path: Path, secure: bool) -> None:
        authority = Authority(tmp_path) if secure else None
        transport = RestTransport(Settings())
        options = {"ca_file": authority.file} if authority else {}
        with (
            RawServer(_never_read, tls=authority.server() if authority else None) as server,
            pytest.raises(TimedOutError, match="did not receive"),
        ):
            send(transport, server.url, Request(body="x" * 20_000_000), seconds=0.4, options=options)
        transport.close()

    def test_it_holds_against_a_handshake_that_never_ends(self, transport: RestTransport, tmp_path: Path) -> None:
        options = {"ca_file": Authority(tmp_path).file}
        with RawServer(_never_read) as server, pytest.raises(TimedOutError, match="TLS"):
            send(transport, server.url.replace("http:", "https:"), seconds=0.3, options=options)

    def test_a_deadline_that_has_passed_sends_nothing(self, transport: RestTransport, target: HttpTarget) -> None:
        with pytest.raises(TimedOutError):
            send(transport, target.url, seconds=0.0)
        assert not target.seen


class TestConnections:
    def test_one_serves_many_requests(self, transport: RestTransport, target: HttpTarget) -> None:
        target.default = Reply(200, {"ok": True})
        for _ in range(5):
            send(transport, target.url)
        assert target.connections == 1

    def test_one_that_the_server_closed_meanwhile_is_replaced(
        self, transport: RestTransport, target: HttpTarget
    ) -> None:
        """A restarted service must not cost an attempt."""
        send(transport, target.url)
        target.drop()
        assert send(transport, target.url).status == 204
        assert target.connections == 2

    def test_one_try_is_one_send_even_on_a_used_connection(self, transport: RestTransport) -> None:
        """`max_retries * 5` is the most a service sees: the transport must not retry behind the policy's back."""
        got: list[bytes] = []

        def serve(sock: socket.socket) -> None:
            while data := sock.recv(65536):
                got.append(data)
                if b"/break" in data:
                    return
                sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

        with RawServer(serve) as server:
            send(transport, server.url, Request("/fine"))
            with pytest.raises(ConnectError):
                send(transport, server.url, Request("/break", idempotency_key="k"))
        assert len(got) == 2

    def test_many_threads_share_them_and_get_their_own_answers(
        self, transport: RestTransport, target: HttpTarget
    ) -> None:
        target.default = lambda seen: Reply(200, seen.body)
        fixed = service(target.url)

        def ask(number: int) -> bool:
            return transport.send(fixed, Request(body=str(number)), Deadline(PATIENCE)).body == str(number)

        with ThreadPoolExecutor(16) as pool:
            assert all(pool.map(ask, range(400)))
        assert target.connections <= 17

    def test_a_changed_service_counts_at_once(self, transport: RestTransport, target: HttpTarget) -> None:
        send(transport, target.url, auth_type="bearer", secrets={"token": "one"})
        send(transport, target.url, auth_type="bearer", secrets={"token": "two"}, version=2)
        assert [seen.headers["authorization"] for seen in target.seen] == ["Bearer one", "Bearer two"]

    def test_one_that_was_idle_for_long_is_not_used(
        self, monkeypatch: pytest.MonkeyPatch, transport: RestTransport, target: HttpTarget
    ) -> None:
        """Servers close idle connections; a request that crosses the closing would be lost, and counted as failed."""
        monkeypatch.setattr(http_pool, "IDLE", 0.0)
        send(transport, target.url)
        send(transport, target.url)
        assert target.connections == 2

    def test_failures_leave_no_descriptor_open(self, target: HttpTarget) -> None:
        target.on("/cut", lambda seen: Reply(200, "x" * 5000, close=True))

        def hang_up(sock: socket.socket) -> None:
            sock.recv(10)

        with RawServer(hang_up) as breaking:
            before = len(os.listdir("/proc/self/fd"))
            transport = RestTransport(Settings(response_limit=1024))
            for _ in range(20):
                for url in (breaking.url, "http://127.0.0.1:1", breaking.url.replace("http:", "https:")):
                    with pytest.raises(ConnectError):
                        send(transport, url, seconds=PATIENCE)
                send(transport, target.url, Request("/cut"))
            transport.close()
            target.drop()
            eventually(lambda: len(os.listdir("/proc/self/fd")) <= before, what="closing")

    def test_no_more_descriptors_is_the_hubs_own_fault(self, transport: RestTransport, target: HttpTarget) -> None:
        """It must cost the service no attempt and move no breaker."""
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        url, deadline = service(target.url), Deadline(PATIENCE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            with pytest.raises(UnavailableError, match="no more connections"):
                transport.send(url, Request(), deadline)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    def test_nobody_listening_is_a_connect_error(self, transport: RestTransport) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        with pytest.raises(ConnectError, match=f"127.0.0.1:{port}: connection refused"):
            send(transport, f"http://127.0.0.1:{port}")

    def test_an_unknown_name_is_a_connect_error(self, transport: RestTransport) -> None:
        with pytest.raises(ConnectError, match=r"no address for nowhere\.invalid"):
            send(transport, "http://nowhere.invalid/")

    def test_a_proxy_of_the_environment_is_used_only_when_set_so(
        self, monkeypatch: pytest.MonkeyPatch, target: HttpTarget
    ) -> None:
        with HttpTarget(Reply(200, "by proxy")) as proxy:
            monkeypatch.setenv("http_proxy", proxy.url.replace("//", "//u:p@"))
            monkeypatch.delenv("no_proxy", raising=False)
            monkeypatch.delenv("NO_PROXY", raising=False)
            for settings, body in ((Settings(), None), (Settings(egress_proxy=True), "by proxy")):
                transport = RestTransport(settings)
                assert send(transport, target.url.replace("127.0.0.1", "localhost"), Request("/x")).body == body
                transport.close()
            (seen,) = proxy.seen
            assert seen.path == f"http://localhost:{target.port}/x"
            assert seen.headers["proxy-authorization"] == "Basic dTpw"

    def test_an_https_service_is_reached_through_a_tunnel(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        authority = Authority(tmp_path)
        asked: list[bytes] = []

        secure = HttpTarget(Reply(200, "through"), tls=authority.server())

        def serve(sock: socket.socket) -> None:
            asked.append(sock.recv(4096))
            if len(asked) > 1:
                sock.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
                return
            with socket.create_connection(("127.0.0.1", secure.port)) as far:
                sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                while ready := select.select([sock, far], [], [], 10)[0]:
                    data = ready[0].recv(65536)
                    if not data:
                        return
                    (far if ready[0] is sock else sock).sendall(data)

        with secure, RawServer(serve) as proxy:
            monkeypatch.setenv("https_proxy", proxy.url)
            for name in ("no_proxy", "NO_PROXY"):
                monkeypatch.delenv(name, raising=False)
            transport = RestTransport(Settings(egress_proxy=True))
            url = secure.url.replace("127.0.0.1", "localhost")
            assert send(transport, url, options={"ca_file": authority.file}).body == "through"
            assert asked[0].startswith(f"CONNECT localhost:{secure.port} HTTP/1.1\r\n".encode())
            with pytest.raises(ConnectError, match=r"proxy does not connect .* HTTP 403"):
                send(transport, url, options={"ca_file": authority.file}, version=2)
            with pytest.raises(EgressRefusedError):
                send(transport, "https://169.254.169.254")
            transport.close()


class TestTls:
    def test_a_service_with_its_own_authority(self, transport: RestTransport, tmp_path: Path) -> None:
        authority = Authority(tmp_path)
        with HttpTarget(Reply(200, "secure"), tls=authority.server()) as target:
            for _ in range(3):
                assert send(transport, target.url, options={"ca_file": authority.file}).body == "secure"
            assert target.connections == 1

    def test_one_that_nobody_vouches_for_is_refused(self, transport: RestTransport, tmp_path: Path) -> None:
        with HttpTarget(tls=Authority(tmp_path).server()) as target:
            with pytest.raises(ConnectError, match=r"certificate of .* is not accepted"):
                send(transport, target.url)
            assert not target.seen

    def test_one_for_another_name_is_refused(self, transport: RestTransport, tmp_path: Path) -> None:
        authority = Authority(tmp_path)
        with HttpTarget(tls=authority.server("other.example")) as target, pytest.raises(ConnectError, match="certif"):
            send(transport, target.url, options={"ca_file": authority.file})

    def test_the_client_certificate_is_shown(self, transport: RestTransport, tmp_path: Path) -> None:
        authority = Authority(tmp_path)
        cert, key = authority.issue("client", client=True)
        with HttpTarget(Reply(200, "known"), tls=authority.server(client_ca=True)) as target:
            options = {"ca_file": authority.file, "client_cert": cert, "client_key": key}
            assert send(transport, target.url, options=options).body == "known"
            with pytest.raises(ConnectError):
                send(transport, target.url, options={"ca_file": authority.file})

    @pytest.mark.parametrize("option", ["ca_file", "client_cert"])
    def test_a_file_that_is_not_there_is_named(self, transport: RestTransport, tmp_path: Path, option: str) -> None:
        with pytest.raises(NotSentError, match=f"{option}: .*missing.pem: no such file"):
            send(transport, "https://127.0.0.1:1", options={option: str(tmp_path / "missing.pem")})

    def test_a_renewed_certificate_needs_no_restart(self, transport: RestTransport, tmp_path: Path) -> None:
        old_folder, new_folder = tmp_path / "old", tmp_path / "new"
        old_folder.mkdir()
        new_folder.mkdir()
        old, new = Authority(old_folder), Authority(new_folder)
        with HttpTarget(tls=new.server()) as target:
            with pytest.raises(ConnectError):
                send(transport, target.url, options={"ca_file": old.file})
            Path(old.file).write_bytes(Path(new.file).read_bytes())
            assert send(transport, target.url, options={"ca_file": old.file}).status == 204


class TestEgress:
    def test_metadata_is_refused_before_anything_is_sent(self, transport: RestTransport) -> None:
        with pytest.raises(EgressRefusedError, match="metadata") as caught:
            send(transport, "http://169.254.169.254/latest/meta-data/")
        assert not caught.value.retriable

    def test_private_addresses_by_setting(self, target: HttpTarget) -> None:
        closed = RestTransport(Settings(egress_private="deny"))
        with pytest.raises(EgressRefusedError, match="HUB_EGRESS_PRIVATE"):
            send(closed, target.url)
        with pytest.raises(EgressRefusedError):
            send(closed, target.url.replace("127.0.0.1", "localhost"))
        assert target.connections == 0
        opened = RestTransport(Settings(egress_private="deny", egress_allow="127.0.0.0/8"))
        assert send(opened, target.url).status == 204
        closed.close()
        opened.close()

    def test_the_token_endpoint_is_guarded_too(self, transport: RestTransport, target: HttpTarget) -> None:
        oauth2 = {"token_url": "http://169.254.169.254/token", "client_id": "x"}
        with pytest.raises(EgressRefusedError):
            send(transport, target.url, auth_type="oauth2", options={"oauth2": oauth2}, secrets={"client_secret": "s"})
        assert not target.seen


class TestCheck:
    @pytest.mark.parametrize(
        ("reply", "words"),
        [(Reply(200), "HTTP 200"), (Reply(404), "HTTP 404"), (Reply(500), "HTTP 500"),
         (Reply(302, headers={"Location": "https://x.example/in?token=abc"}), "redirects to https://x.example/in ")],
    )  # fmt: skip
    def test_any_answer_is_reachable(
        self, transport: RestTransport, target: HttpTarget, reply: Reply, words: str
    ) -> None:
        target.default = reply
        assert words in transport.check(service(target.url), Deadline(PATIENCE))
        assert [seen.method for seen in target.seen] == ["HEAD"]

    def test_refused_credentials_are_said(self, transport: RestTransport, target: HttpTarget) -> None:
        target.default = 401
        with pytest.raises(RejectedError, match="refuses the credentials"):
            transport.check(service(target.url, auth_type="bearer", secrets={"token": SECRET}), Deadline(PATIENCE))
        with pytest.raises(RejectedError, match="requires credentials"):
            transport.check(service(target.url), Deadline(PATIENCE))


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


def test_the_adapter_serves_a_session_too(target: HttpTarget) -> None:
    """SOAP's library wants a `requests` session."""
    target.default = Reply(200, "<ok/>", {"Content-Type": "text/xml"})
    with requests.Session() as session:
        session.mount("http://", HubAdapter(Settings()))
        answer = session.post(f"{target.url}/soap?wsdl", data="<é/>".encode(), headers={"SOAPAction": '"x"'}, timeout=5)
    assert (answer.status_code, answer.text, answer.headers["content-type"]) == (200, "<ok/>", "text/xml")
    assert (target.seen[0].body, target.seen[0].query) == ("<é/>".encode(), "wsdl")
