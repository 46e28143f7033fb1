"""SOAP calls on a real server: arguments, responses, faults, WSDL."""

from __future__ import annotations

import sys
import threading
from typing import Any

import pytest

from hub.config.definitions import ServiceSpec, parse_spec
from hub.errors import (
    ConfigError,
    ConnectError,
    FaultError,
    InvalidPayloadError,
    NotSentError,
    RejectedError,
)
from hub.settings import Settings
from hub.transports.base import Deadline
from hub.transports.soap.transport import SoapTransport
from tests.integration.soap.calls import BODY, USER, call, service
from tests.support.proxy import unused_port
from tests.support.soap_server import WebServer


@pytest.mark.parametrize(
    ("endpoint", "kind"),
    [
        ("CreateUser", "text/xml"),
        ("/CreateUser", "text/xml"),
        ("Soap11/CreateUser", "text/xml"),
        ("Soap12/CreateUser", "application/soap+xml"),
        ("UserService.Soap12/CreateUser", "application/soap+xml"),
    ],
)
def test_nested_arguments_arrive_and_the_answer_is_json(
    transport: SoapTransport, server: WebServer, endpoint: str, kind: str
) -> None:
    """SOAP 1.1 unless the endpoint names a port of 1.2; whatever characters a value has."""
    answer = call(transport, server, endpoint, BODY)
    assert answer == {
        "user": {**USER, "address": [{"city": "Graz", "zip": None}, {"city": "Wien", "zip": "1010"}]},
        "created": "2026-11-01T12:00:00+00:00",
        "credit": "12.50",
        "photo": "AAEC",
    }
    sent = server.posts()[-1]
    assert sent.environ["CONTENT_TYPE"].startswith(kind)
    assert b"<ns0:notify>true</ns0:notify>" in sent.body


def test_the_wsdl_is_fetched_once_for_each_version_of_a_service(transport: SoapTransport, server: WebServer) -> None:
    def fetches() -> list[str]:
        return [seen.path for seen in server.seen if seen.method == "GET"]

    for _ in range(3):
        call(transport, server, "CreateUser", BODY)
    assert fetches() == ["/wsdl", "/types.xsd"]
    call(transport, server, "CreateUser", BODY, version=2)
    assert fetches() == ["/wsdl", "/types.xsd"] * 2


def test_a_wsdl_that_could_not_be_fetched_is_fetched_at_the_next_send(
    transport: SoapTransport, server: WebServer
) -> None:
    server.token = "t"
    with pytest.raises(RejectedError, match="401 for the WSDL"):
        call(transport, server, "CreateUser", BODY)
    server.token = None
    assert call(transport, server, "CreateUser", BODY)["credit"] == "12.50"


@pytest.mark.parametrize(("endpoint", "code"), [("Fail", "Server"), ("Soap12/Fail", "Receiver")])
def test_a_fault_is_an_error_with_code_and_text(
    transport: SoapTransport, server: WebServer, endpoint: str, code: str
) -> None:
    """A fault comes with HTTP 500, and is not one: the service is alive and has said no."""
    with pytest.raises(FaultError, match=f"SOAP fault {code}: no such course") as caught:
        call(transport, server, endpoint, '{"text": "no such course"}')
    assert caught.value.status == 500 and caught.value.outcome == "fault"
    assert not caught.value.retriable and not caught.value.counts_against_breaker
    assert "faultstring" in str(caught.value.response_body) or "Reason" in str(caught.value.response_body)


@pytest.mark.parametrize(
    ("endpoint", "body", "says"),
    [
        ("DeleteUser", "{}", "operations: CreateUser, Fail; ports: UserService.Soap11, UserService.Soap12"),
        ("", "{}", "no operation"),
        ("Soap13/CreateUser", BODY, "no operation"),
        ("CreateUser", "[]", "object"),
        ("CreateUser", None, "Missing element user"),
        ("CreateUser", '{"user": {"id": 1}}', "Missing element name"),
        ("CreateUser", '{"who": 1}', "unexpected keyword argument 'who'"),
        ("CreateUser", '{"user": {"id": 1, "name": "\\u0000"}}', "XML"),
    ],
)
def test_a_payload_that_does_not_fit_is_not_sent(
    transport: SoapTransport, server: WebServer, endpoint: str, body: str | None, says: str
) -> None:
    with pytest.raises(InvalidPayloadError) as caught:
        call(transport, server, endpoint, body)
    assert says in str(caught.value)
    assert server.posts() == []


@pytest.mark.parametrize(
    ("status", "retriable", "outcome"),
    [
        ("503 Service Unavailable", False, "http_5xx"),
        ("502 Bad Gateway", False, "http_5xx"),
        ("404 X", False, "http_4xx"),
    ],
)
def test_http_errors_are_no_faults(
    transport: SoapTransport, server: WebServer, status: str, retriable: bool, outcome: str
) -> None:
    server.reject = (status, "text/html", b"<h1>Sorry</h1>")
    server.reject_headers = [("Retry-After", "120")]
    with pytest.raises(RejectedError) as caught:
        call(transport, server, "CreateUser", BODY)
    error = caught.value
    assert (error.status, error.retry_after, error.outcome) == (int(status[:3]), 120, outcome)
    assert error.response_body == "<h1>Sorry</h1>" and error.retriable is retriable


@pytest.mark.parametrize("content", [b"<h1>hello</h1>", b"not XML", b"", b"<e:Envelope xmlns:e='urn:x'/>"])
def test_an_answer_that_is_no_soap_is_an_error(transport: SoapTransport, server: WebServer, content: bytes) -> None:
    server.reject = ("200 OK", "text/html", content)
    with pytest.raises(FaultError, match="response"):
        call(transport, server, "CreateUser", BODY)


def test_an_answer_without_an_end_is_cut_off(server: WebServer) -> None:
    server.reject = ("200 OK", "text/xml", b" " * 50_000)
    transport = SoapTransport(Settings(response_limit=20_000))
    with pytest.raises(FaultError, match="more than 20000 bytes"):
        call(transport, server, "CreateUser", BODY)
    transport.close()


def test_threads_that_come_at_once_fetch_the_wsdl_once(transport: SoapTransport, server: WebServer) -> None:
    failed: list[BaseException] = []

    def work() -> None:
        try:
            call(transport, server, "CreateUser", BODY)
        except BaseException as e:
            failed.append(e)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert [seen.path for seen in server.seen].count("/wsdl") == 1
    assert len(server.posts()) == 6


def test_check_names_the_operations_and_calls_none(transport: SoapTransport, server: WebServer) -> None:
    assert transport.check(service(server), Deadline(5)) == "the WSDL offers 2 operations: CreateUser, Fail"
    assert server.posts() == []
    with pytest.raises(ConnectError):
        transport.check(service(server, base_url=f"http://127.0.0.1:{unused_port()}/wsdl"), Deadline(5))
    with pytest.raises(FaultError, match="cannot be read"):
        transport.check(service(server, base_url=f"{server.url}/rest"), Deadline(5))


def test_without_the_extra_the_error_says_what_to_install(
    transport: SoapTransport, server: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "zeep", None)
    with pytest.raises(NotSentError, match=r"integration-hub\[soap\]"):
        call(transport, server, "CreateUser", BODY)


def test_a_large_wsdl_has_a_limit_of_its_own_that_the_error_names(server: WebServer) -> None:
    """WSDLs of several megabytes are common; a response of that size is not."""
    plain = server.wsdl
    server.wsdl = lambda here: plain(here) + "<!--" + "x" * 2_000_000 + "-->"
    for limit, good in ((Settings().wsdl_limit, True), (1_500_000, False)):
        transport = SoapTransport(Settings(wsdl_limit=limit))
        if good:
            assert call(transport, server, "CreateUser", BODY)["credit"] == "12.50"
        else:
            with pytest.raises(FaultError, match=r"more than 1500000 bytes \(HUB_WSDL_LIMIT\)") as caught:
                call(transport, server, "CreateUser", BODY)
            assert not caught.value.sent
        transport.close()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"type": "rest", "auth": {"type": "wsse", "username": "u", "password": "p"}}, "type soap"),
        ({"auth": {"type": "wsse", "username": "u"}}, "needs 'password'"),
        ({"auth": {"type": "basic", "username": "u", "password": "p", "password_type": "digest"}}, "password_type"),
        ({"credentials_origin": "http://other"}, "https only"),
        ({"credentials_origin": "https://other/path"}, "is an origin"),
        ({"type": "rest", "credentials_origin": "https://other"}, "type soap"),
    ],
)
def test_definitions_that_would_leak_or_do_nothing_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_spec(ServiceSpec, {"name": "s", "type": "soap", "base_url": "https://h/wsdl", **change})
