"""What the REST transport makes of a response."""

from __future__ import annotations

import gzip

import pytest

from hub.errors import (
    RejectedError,
)
from hub.settings import Settings
from hub.transports.base import Deadline
from hub.transports.rest import RestTransport
from tests.integration.rest.calls import PATIENCE, SECRET, send, service
from tests.support.http_target import HttpTarget, Reply


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


class TestCheck:
    @pytest.mark.parametrize(
        ("reply", "words"),
        [
            (Reply(200), "HTTP 200"),
            (Reply(404), "HTTP 404"),
            (Reply(500), "HTTP 500"),
            (Reply(302, headers={"Location": "https://x.example/in?token=abc"}), "redirects to https://x.example/in "),
        ],
    )
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
