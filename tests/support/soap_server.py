"""A small SOAP server: a WSDL with an imported schema, SOAP 1.1 and 1.2, nested types, faults. And a REST one.

Both are one WSGI application, so that both meet the same obstacles. It remembers every request.
"""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from xml.etree import ElementTree
from xml.sax.saxutils import escape

TYPES = "urn:test:types"
ENVELOPES = {
    "http://schemas.xmlsoap.org/soap/envelope/": "text/xml; charset=utf-8",
    "http://www.w3.org/2003/05/soap-envelope": "application/soap+xml; charset=utf-8",
}

SCHEMA = f"""<?xml version="1.0"?>
<xsd:schema xmlns:xsd="http://www.w3.org/2001/XMLSchema" xmlns:t="{TYPES}" targetNamespace="{TYPES}"
            elementFormDefault="qualified">
  <xsd:complexType name="Address"><xsd:sequence>
    <xsd:element name="city" type="xsd:string"/>
    <xsd:element name="zip" type="xsd:string" minOccurs="0"/>
  </xsd:sequence></xsd:complexType>
  <xsd:complexType name="User"><xsd:sequence>
    <xsd:element name="id" type="xsd:int"/>
    <xsd:element name="name" type="xsd:string"/>
    <xsd:element name="address" type="t:Address" minOccurs="0" maxOccurs="unbounded"/>
  </xsd:sequence></xsd:complexType>
  <xsd:element name="CreateUser"><xsd:complexType><xsd:sequence>
    <xsd:element name="user" type="t:User"/>
    <xsd:element name="notify" type="xsd:boolean" minOccurs="0"/>
  </xsd:sequence></xsd:complexType></xsd:element>
  <xsd:element name="CreateUserResponse"><xsd:complexType><xsd:sequence>
    <xsd:element name="user" type="t:User"/>
    <xsd:element name="created" type="xsd:dateTime"/>
    <xsd:element name="credit" type="xsd:decimal"/>
    <xsd:element name="photo" type="xsd:base64Binary"/>
  </xsd:sequence></xsd:complexType></xsd:element>
  <xsd:element name="Fail"><xsd:complexType><xsd:sequence>
    <xsd:element name="text" type="xsd:string"/>
  </xsd:sequence></xsd:complexType></xsd:element>
  <xsd:element name="FailResponse"><xsd:complexType><xsd:sequence/></xsd:complexType></xsd:element>
</xsd:schema>"""


def _wsdl(here: str, *, schema: str = "types.xsd", doctype: str = "") -> str:
    def binding(name: str, prefix: str) -> str:
        operations = "".join(
            f'<wsdl:operation name="{op}"><{prefix}:operation soapAction="urn:{op}"/>'
            f'<wsdl:input><{prefix}:body use="literal"/></wsdl:input>'
            f'<wsdl:output><{prefix}:body use="literal"/></wsdl:output></wsdl:operation>'
            for op in ("CreateUser", "Fail")
        )
        return (
            f'<wsdl:binding name="{name}" type="w:Users">'
            f'<{prefix}:binding style="document" transport="http://schemas.xmlsoap.org/soap/http"/>'
            f"{operations}</wsdl:binding>"
        )

    messages = "".join(
        f'<wsdl:message name="{m}"><wsdl:part name="parameters" element="t:{m}"/></wsdl:message>'
        for m in ("CreateUser", "CreateUserResponse", "Fail", "FailResponse")
    )
    operations = "".join(
        f'<wsdl:operation name="{op}"><wsdl:input message="w:{op}"/><wsdl:output message="w:{op}Response"/>'
        "</wsdl:operation>"
        for op in ("CreateUser", "Fail")
    )
    return f"""<?xml version="1.0"?>{doctype}
<wsdl:definitions xmlns:wsdl="http://schemas.xmlsoap.org/wsdl/" xmlns:xsd="http://www.w3.org/2001/XMLSchema"
    xmlns:soap="http://schemas.xmlsoap.org/wsdl/soap/" xmlns:soap12="http://schemas.xmlsoap.org/wsdl/soap12/"
    xmlns:t="{TYPES}" xmlns:w="urn:test:wsdl" targetNamespace="urn:test:wsdl">
  <wsdl:types><xsd:schema><xsd:import namespace="{TYPES}" schemaLocation="{schema}"/></xsd:schema></wsdl:types>
  {messages}
  <wsdl:portType name="Users">{operations}</wsdl:portType>
  {binding("Users11", "soap")}{binding("Users12", "soap12")}
  <wsdl:service name="UserService">
    <wsdl:port name="Soap11" binding="w:Users11"><soap:address location="{here}/soap"/></wsdl:port>
    <wsdl:port name="Soap12" binding="w:Users12"><soap12:address location="{here}/soap"/></wsdl:port>
  </wsdl:service>
</wsdl:definitions>"""


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as it came in; header names as WSGI has them (`HTTP_IDEMPOTENCY_KEY`)."""

    method: str
    path: str
    environ: dict[str, Any]
    body: bytes

    def header(self, name: str) -> str | None:
        return self.environ.get(f"HTTP_{name.upper().replace('-', '_')}")


Answer = tuple[str, str, bytes]  # status line, content type, body


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 50

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is what many tests are about."""


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


class WebServer:
    """`url`/wsdl is the SOAP service, `url`/rest answers any JSON. `token`: the bearer token it insists on.

    `reject` is what every POST is answered with instead, `wsdl` replaces the WSDL's text.
    """

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.token: str | None = None
        self.reject: Answer | None = None
        self.reject_headers: list[tuple[str, str]] = []
        self.wsdl: Callable[[str], str] = _wsdl
        self._server = make_server("127.0.0.1", 0, self._app, _Server, _Quiet)
        self.address: tuple[str, int] = ("127.0.0.1", self._server.server_port)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> WebServer:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def posts(self) -> list[Seen]:
        return [seen for seen in self.seen if seen.method == "POST"]

    def _app(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        request = Seen(environ["REQUEST_METHOD"], environ["PATH_INFO"], environ, body)
        self.seen.append(request)
        status, kind, content = self._answer(request)
        headers = [("Content-Type", kind), ("Content-Length", str(len(content)))]
        start(status, headers + (self.reject_headers if self.reject else []))
        return [content]

    def _answer(self, request: Seen) -> Answer:
        if self.token is not None and request.header("Authorization") != f"Bearer {self.token}":
            return "401 Unauthorized", "text/plain", b"who are you?"
        if request.method == "POST" and self.reject:
            return self.reject
        here = f"http://{request.environ['HTTP_HOST']}"
        if request.path == "/wsdl":
            return "200 OK", "text/xml", self.wsdl(here).encode()
        if request.path == "/types.xsd":
            return "200 OK", "text/xml", SCHEMA.encode()
        if request.path == "/soap":
            return _call(request.body)
        if request.path.startswith("/rest"):
            return "200 OK", "application/json", b'{"ok":true,"padding":"' + b"x" * 500 + b'"}'
        return "404 Not Found", "text/plain", b"nothing here"


def _call(body: bytes) -> Answer:
    envelope = ElementTree.fromstring(body)
    namespace = envelope.tag[1:].partition("}")[0]
    call = envelope.find(f"{{{namespace}}}Body")[0]  # type: ignore[index]
    status = "200 OK"
    if call.tag == f"{{{TYPES}}}CreateUser":
        user = ElementTree.tostring(call.find(f"{{{TYPES}}}user"), encoding="unicode")  # type: ignore[arg-type]
        answer = (
            f'<t:CreateUserResponse xmlns:t="{TYPES}">{user}<t:created>2026-11-01T12:00:00Z</t:created>'
            "<t:credit>12.50</t:credit><t:photo>AAEC</t:photo></t:CreateUserResponse>"
        )
    else:
        status = "500 Internal Server Error"
        text = escape(call.findtext(f"{{{TYPES}}}text") or "")
        if namespace.endswith("soap-envelope"):
            answer = (
                "<e:Fault><e:Code><e:Value>e:Receiver</e:Value></e:Code>"
                f'<e:Reason><e:Text xml:lang="en">{text}</e:Text></e:Reason></e:Fault>'
            )
        else:
            answer = f"<e:Fault><faultcode>e:Server</faultcode><faultstring>{text}</faultstring></e:Fault>"
    document = f'<e:Envelope xmlns:e="{namespace}"><e:Body>{answer}</e:Body></e:Envelope>'
    return status, ENVELOPES[namespace], document.encode()
