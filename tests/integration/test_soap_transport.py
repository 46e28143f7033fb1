"""The SOAP transport against a real SOAP server: what is called, what comes back, and what is never fetched."""

from __future__ import annotations

import base64
import hashlib
import json
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from standardwebhooks import Webhook

from hub.config.definitions import ServiceSpec, parse_spec
from hub.config.documents import service_document
from hub.errors import (
    ConfigError,
    ConnectError,
    EgressRefusedError,
    ExpiredTokenError,
    FaultError,
    InvalidPayloadError,
    NotSentError,
    RejectedError,
    TransportError,
)
from hub.models import Request, Service, ServiceType
from hub.settings import Settings
from hub.transports.base import Deadline
from hub.transports.soap.transport import SoapTransport
from tests.support.certificates import Authority
from tests.support.http_target import HttpTarget, Reply
from tests.support.proxy import unused_port
from tests.support.soap_server import WebServer

USER: dict[str, Any] = {
    "id": 5,
    "name": 'Ann "<&>" Ö',
    "address": [{"city": "Graz"}, {"city": "Wien", "zip": "1010"}],
}
BODY = json.dumps({"user": USER, "notify": True})
XXE = '<!DOCTYPE x [<!ENTITY secret SYSTEM "file://{path}">]>'
LAUGHS = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;"><!ENTITY c "&b;&b;">]>'


@pytest.fixture
def server() -> Iterator[WebServer]:
    with WebServer() as made:
        yield made


@pytest.fixture
def transport() -> Iterator[SoapTransport]:
    made = SoapTransport(Settings())
    yield made
    made.close()


def service(server: WebServer, **changes: Any) -> Service:
    return Service(**{"id": 1, "name": "s", "type": ServiceType.SOAP, "base_url": f"{server.url}/wsdl", **changes})


def call(transport: SoapTransport, server: WebServer, endpoint: str, body: str | None, **changes: Any) -> Any:
    response = transport.send(service(server, **changes), Request(endpoint=endpoint, body=body), Deadline(10))
    return json.loads(response.body or "null")


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


@pytest.mark.parametrize("kind", ["entity", "laughs", "external dtd"])
@pytest.mark.parametrize("where", ["WSDL", "answer"])
def test_no_dtd_or_entity_is_ever_resolved(
    transport: SoapTransport, server: WebServer, tmp_path: Path, kind: str, where: str
) -> None:
    """Files of the machine and addresses of the inner network are what such documents are made for."""
    secret = tmp_path / "secret"
    secret.write_text("hunter22")
    doctype = {
        "entity": XXE.format(path=secret),
        "laughs": LAUGHS,
        "external dtd": f'<!DOCTYPE x SYSTEM "{server.url}/evil.dtd">',
    }[kind]
    if where == "WSDL":
        plain = server.wsdl
        server.wsdl = lambda here: plain(here).replace('<?xml version="1.0"?>', f'<?xml version="1.0"?>{doctype}')
    else:
        namespace = "http://schemas.xmlsoap.org/soap/envelope/"
        entity = {"entity": "&secret;", "laughs": "&c;"}.get(kind, "")
        text = (
            f'<?xml version="1.0"?>{doctype}<e:Envelope xmlns:e="{namespace}"><e:Body><e:Fault>'
            f"<faultcode>e:Server</faultcode><faultstring>{entity}</faultstring></e:Fault></e:Body></e:Envelope>"
        )
        server.reject = ("500 X", "text/xml", text.encode())
    with pytest.raises(TransportError) as caught:
        call(transport, server, "CreateUser", BODY)
    assert "DTD" in str(caught.value)
    assert "hunter22" not in str(caught.value)
    assert not [seen for seen in server.seen if seen.path == "/evil.dtd"]


@pytest.mark.parametrize("schema", ["file:///etc/passwd", "/etc/passwd", "ftp://127.0.0.1/x"])
def test_a_wsdl_cannot_make_the_hub_open_files(transport: SoapTransport, server: WebServer, schema: str) -> None:
    plain = server.wsdl
    server.wsdl = lambda here: plain(here).replace("types.xsd", schema)
    with pytest.raises(TransportError) as caught:
        call(transport, server, "CreateUser", BODY)
    assert "root:" not in str(caught.value)
    if "://" in schema:
        assert "only http and https" in str(caught.value)


def test_the_egress_guard_holds_for_everything_a_wsdl_names(transport: SoapTransport, server: WebServer) -> None:
    plain = server.wsdl
    server.wsdl = lambda here: plain(here).replace("types.xsd", "http://169.254.169.254/latest")
    with pytest.raises(EgressRefusedError):
        call(transport, server, "CreateUser", BODY)
    server.wsdl = lambda here: plain("http://169.254.169.254")
    with pytest.raises(EgressRefusedError):
        call(transport, server, "CreateUser", BODY, version=2)


def test_credentials_go_to_the_host_of_the_service_only(transport: SoapTransport, server: WebServer) -> None:
    """A WSDL that names another host must not be able to collect the token."""
    plain = server.wsdl
    with WebServer() as other:
        other_host = other.url.replace("127.0.0.1", "localhost")
        server.wsdl = lambda here: plain(other_host)
        secrets = {"token": "hunter22", "header:X-Own": "hunter23"}
        call(transport, server, "CreateUser", BODY, auth_type="bearer", secrets=secrets)
        assert server.seen[0].header("Authorization") == "Bearer hunter22"
        assert server.seen[0].header("X-Own") == "hunter23"
        assert "hunter2" not in str(other.seen[0].environ)
        other.token = "hunter22"
        with pytest.raises(RejectedError, match=r"401 from http://localhost:\d+; credentials go to http://127"):
            call(transport, server, "CreateUser", BODY, auth_type="bearer", secrets=secrets)


def test_a_signing_secret_signs_the_envelope(transport: SoapTransport, server: WebServer) -> None:
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    call(transport, server, "CreateUser", BODY, secrets={"signing_secret": secret})
    sent = server.posts()[-1]
    names = ("webhook-id", "webhook-timestamp", "webhook-signature")
    headers = {name: str(sent.header(name)) for name in names}
    Webhook(secret).verify(sent.body, headers, json_parse=False)  # raises when no signature fits


def test_secrets_that_the_service_repeats_are_masked(transport: SoapTransport, server: WebServer) -> None:
    user = {"id": 1, "name": "hunter22"}
    answer = call(
        transport, server, "CreateUser", json.dumps({"user": user}), auth_type="bearer", secrets={"token": "hunter22"}
    )
    assert answer["user"]["name"] == "***"


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


WSSE = "{http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd}"
WSU = "{http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-utility-1.0.xsd}"


def username_token(body: bytes) -> dict[str, tuple[str, str]]:
    token = ElementTree.fromstring(body).find(f".//{WSSE}UsernameToken")
    assert token is not None, body
    return {e.tag.rpartition("}")[2]: (e.text or "", e.get("Type", "").rpartition("#")[2]) for e in token}


def wsse(**options: str) -> dict[str, Any]:
    return {"auth_type": "wsse", "options": {"username": "mia & co", **options}, "secrets": {"password": "p<ss&wörd"}}


@pytest.mark.parametrize("endpoint", ["Soap11/CreateUser", "Soap12/CreateUser"])
def test_a_username_token_carries_the_password_as_text(
    transport: SoapTransport, server: WebServer, endpoint: str
) -> None:
    call(transport, server, endpoint, BODY, **wsse())
    token = username_token(server.posts()[-1].body)
    assert token["Username"][0] == "mia & co" and token["Password"] == ("p<ss&wörd", "PasswordText")


def test_a_username_token_carries_the_password_as_a_digest(transport: SoapTransport, server: WebServer) -> None:
    """A new nonce for every send, the time of the deployment's clock."""
    at, nonces = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), set()
    for _ in range(2):
        fixed = service(server, **wsse(password_type="digest"))
        transport.send(fixed, Request(endpoint="CreateUser", body=BODY, at=at), Deadline(10))
        body = server.posts()[-1].body
        token = username_token(body)
        nonce, created = base64.b64decode(token["Nonce"][0]), token["Created"][0]
        digest = hashlib.sha1(nonce + created.encode() + "p<ss&wörd".encode()).digest()
        assert token["Password"] == (base64.b64encode(digest).decode(), "PasswordDigest")
        assert created == "2026-01-02T03:04:05Z" and "p&lt;ss" not in body.decode()
        nonces.add(nonce)
    assert len(nonces) == 2


@pytest.mark.parametrize("auth", ["bearer", "wsse"])
def test_credentials_go_to_no_other_port_of_the_host(transport: SoapTransport, server: WebServer, auth: str) -> None:
    """Another port is another server, whoever runs it."""
    fields: dict[str, Any] = {"auth_type": "bearer", "secrets": {"token": "canary-1"}}
    if auth == "wsse":
        fields = wsse()
    with WebServer() as other:
        plain = server.wsdl
        server.wsdl = lambda here: plain(here).replace(f'location="{here}/soap"', f'location="{other.url}/soap"')
        call(transport, server, "CreateUser", BODY, **fields)
        (sent,) = other.posts()
        assert sent.header("Authorization") is None and b"UsernameToken" not in sent.body
        fields = {**fields, "options": {**fields.get("options", {}), "credentials_origin": other.url}}
        call(transport, server, "CreateUser", BODY, version=2, **fields)
        sent = other.posts()[-1]
        assert sent.header("Authorization") == "Bearer canary-1" or username_token(sent.body)


def test_a_call_that_an_https_wsdl_sends_to_http_goes_to_https(server: WebServer, tmp_path: Path) -> None:
    """Not even `credentials_origin` lets it leave in the clear: neither credentials nor payload."""
    authority = Authority(tmp_path)
    wsdl = server.wsdl(server.url).replace("types.xsd", f"{server.url}/types.xsd")
    with HttpTarget(Reply(200, wsdl, {"Content-Type": "text/xml"}), tls=authority.server()) as secure:
        transport = SoapTransport(Settings())
        options = {"ca_file": authority.file, "credentials_origin": server.url}
        fields = {"auth_type": "bearer", "secrets": {"token": "canary-1"}, "options": options}
        try:
            with pytest.raises(ConnectError, match=f"no TLS with 127.0.0.1:{server.address[1]}"):
                call(transport, server, "CreateUser", BODY, base_url=f"{secure.url}/wsdl", **fields)
        finally:
            transport.close()
        assert secure.seen[0].headers["authorization"] == "Bearer canary-1"
        assert [(seen.method, seen.header("Authorization")) for seen in server.seen] == [("GET", None)]


def test_an_expired_token_is_renewed_by_the_next_try(transport: SoapTransport, server: WebServer) -> None:
    with HttpTarget(lambda _: Reply(200, {"access_token": server.token})) as tokens:
        oauth2 = {"token_url": tokens.url, "client_id": "hub"}
        fields = {"auth_type": "oauth2", "options": {"oauth2": oauth2}, "secrets": {"client_secret": "s3cr3t"}}
        server.token = "t1"
        call(transport, server, "CreateUser", BODY, **fields)
        server.token = "t2"
        with pytest.raises(ExpiredTokenError):
            call(transport, server, "CreateUser", BODY, **fields)
        assert len(server.posts()) == 2
        call(transport, server, "CreateUser", BODY, **fields)


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


def test_a_username_token_service_is_stored_and_shown_as_it_was_written() -> None:
    auth = {"type": "wsse", "username": "u", "password": "p", "password_type": "digest"}
    written = {"name": "s", "type": "soap", "base_url": "https://h/wsdl", "auth": auth,
               "credentials_origin": "https://h:8443"}  # fmt: skip
    columns, secrets = parse_spec(ServiceSpec, written).split()
    columns["type"] = ServiceType(columns["type"])
    shown = service_document(Service(id=1, secrets=secrets, **columns))
    assert shown["auth"] == {**auth, "password": "***"} and shown["credentials_origin"] == "https://h:8443"
    assert shown["base_url"] == "https://h/wsdl" and "password" not in str(columns["options"].get("password"))


def test_a_password_that_the_service_repeats_as_xml_is_masked(transport: SoapTransport, server: WebServer) -> None:
    """A fault that quotes the request holds the token as XML writes it."""
    server.reject = ("500 Internal Server Error", "text/plain", b"you sent p&lt;ss&amp;w\xc3\xb6rd")
    with pytest.raises(RejectedError) as caught:
        call(transport, server, "CreateUser", BODY, **wsse())
    assert caught.value.response_body == "you sent ***"
