"""Calls of the SOAP transport."""

from __future__ import annotations

import json
from typing import Any

from hub.models import Request, Service, ServiceType
from hub.transports.base import Deadline
from hub.transports.soap.transport import SoapTransport
from tests.support.soap_server import WebServer

USER: dict[str, Any] = {
    "id": 5,
    "name": 'Ann "<&>" Ö',
    "address": [{"city": "Graz"}, {"city": "Wien", "zip": "1010"}],
}


BODY = json.dumps({"user": USER, "notify": True})


def service(server: WebServer, **changes: Any) -> Service:
    return Service(**{"id": 1, "name": "s", "type": ServiceType.SOAP, "base_url": f"{server.url}/wsdl", **changes})


def call(transport: SoapTransport, server: WebServer, endpoint: str, body: str | None, **changes: Any) -> Any:
    response = transport.send(service(server, **changes), Request(endpoint=endpoint, body=body), Deadline(10))
    return json.loads(response.body or "null")


WSU = "{http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-utility-1.0.xsd}"


def wsse(**options: str) -> dict[str, Any]:
    return {"auth_type": "wsse", "options": {"username": "mia & co", **options}, "secrets": {"password": "p<ss&wörd"}}
