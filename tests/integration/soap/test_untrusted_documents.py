"""WSDLs and responses are untrusted: no DTD, no files, no refused address."""

from __future__ import annotations

from pathlib import Path

import pytest

from hub.errors import (
    EgressRefusedError,
    TransportError,
)
from hub.transports.soap.transport import SoapTransport
from tests.integration.soap.calls import BODY, call
from tests.support.soap_server import WebServer

XXE = '<!DOCTYPE x [<!ENTITY secret SYSTEM "file://{path}">]>'


LAUGHS = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;"><!ENTITY c "&b;&b;">]>'


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
