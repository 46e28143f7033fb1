"""Credentials of SOAP services: where they go, WS-Security, masking."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from standardwebhooks import Webhook

from hub.config.definitions import ServiceSpec, parse_spec
from hub.config.documents import service_document
from hub.errors import (
    ConnectError,
    ExpiredTokenError,
    RejectedError,
)
from hub.models import Request, Service, ServiceType
from hub.settings import Settings
from hub.transports.base import Deadline
from hub.transports.soap.transport import SoapTransport
from tests.integration.soap.calls import BODY, call, service, wsse
from tests.support.certificates import Authority
from tests.support.http_target import HttpTarget, Reply
from tests.support.soap_server import WebServer


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


WSSE = "{http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd}"


def username_token(body: bytes) -> dict[str, tuple[str, str]]:
    token = ElementTree.fromstring(body).find(f".//{WSSE}UsernameToken")
    assert token is not None, body
    return {e.tag.rpartition("}")[2]: (e.text or "", e.get("Type", "").rpartition("#")[2]) for e in token}


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


def test_a_username_token_service_is_stored_and_shown_as_it_was_written() -> None:
    auth = {"type": "wsse", "username": "u", "password": "p", "password_type": "digest"}
    written = {
        "name": "s",
        "type": "soap",
        "base_url": "https://h/wsdl",
        "auth": auth,
        "credentials_origin": "https://h:8443",
    }
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
