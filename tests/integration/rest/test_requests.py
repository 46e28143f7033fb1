"""What the REST transport sends: method, headers, body, and no header from a value."""

from __future__ import annotations

import re

import pytest

from hub.errors import (
    InvalidPayloadError,
)
from hub.models import Request
from hub.transports.rest import RestTransport
from tests.integration.rest.calls import SECRET, send
from tests.support.http_target import HttpTarget


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
        send(
            transport,
            f"{target.url}/api/v1",
            Request(
                "users?full=1",
                body="{}",
                idempotency_key="key-1",
                task_id=42,
                event_name="\\core\\event\\user_created",
                headers={"traceparent": trace},
            ),
        )
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

    @pytest.mark.parametrize("bad", ["a\r\nX-Evil: 1", "a\nb", "a\rb", "a\x00b"])
    @pytest.mark.parametrize("place", ["secret", "value", "name"])
    def test_a_header_with_a_control_character_is_refused_and_the_same_one_without_it_arrives(
        self, transport: RestTransport, target: HttpTarget, place: str, bad: str
    ) -> None:
        def send_with(text: str) -> None:
            if place == "secret":
                send(transport, target.url, secrets={"header:X-Probe": text})
            elif place == "value":
                send(transport, target.url, Request(body="{}", headers={"X-Probe": text}))
            else:
                send(transport, target.url, Request(body="{}", headers={text: "probe"}))

        with pytest.raises(InvalidPayloadError) as caught:
            send_with(bad)
        assert not target.seen and (place != "secret" or bad not in str(caught.value))
        good = re.sub(r"[^a-z]", "", bad.lower())
        send_with(good)
        (seen,) = target.seen
        assert (seen.headers[good] == "probe") if place == "name" else (seen.headers["x-probe"] == good)

    def test_an_event_name_cannot_smuggle_in_a_header(self, transport: RestTransport, target: HttpTarget) -> None:
        """Event names come from outside; a strange one must not cost the delivery either."""
        send(transport, target.url, Request(body="{}", event_name="x\r\nX-Evil: 1 é"))
        (seen,) = target.seen
        assert "x-evil" not in seen.headers
        assert seen.headers["x-hub-event"] == "x%0D%0AX-Evil: 1 %C3%A9"

    def test_an_unknown_method_is_refused(self, transport: RestTransport, target: HttpTarget) -> None:
        with pytest.raises(InvalidPayloadError, match="not one of"):
            send(transport, target.url, Request(method="GET / HTTP/1.1\r\nX: "))
