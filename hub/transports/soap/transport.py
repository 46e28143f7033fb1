"""SOAP: call one operation of a WSDL, once.

`base_url` is the URL of the WSDL, the endpoint is `Operation`, `Port/Operation` or `Service.Port/Operation`, and the
keys of the payload are the arguments. zeep implements the protocol. It has no network access of its own: WSDLs, their
imports and calls use the hub's HTTP client with its deadline, TLS, credentials and egress guard.
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from hub.codec import dumps, loads
from hub.domain.text import bounded
from hub.errors import (
    DeliveryError,
    FaultError,
    InvalidPayloadError,
    NotSentError,
    PayloadError,
    RejectedError,
    TimedOutError,
    UnavailableError,
)
from hub.models import Request, Response, Service
from hub.settings import Settings
from hub.transports.base import CONFIG_RECHECK, Deadline
from hub.transports.masking import without_secrets
from hub.transports.per_service import PerService
from hub.transports.soap.zeep_internals import call_operation
from hub.transports.soap.zeep_transport import Call, ZeepTransport

_NAMES = 20  # most operations listed in an error text


class SoapTransport:
    """Sends to SOAP 1.1 and 1.2 services; implements `base.Transport`. Safe to call from many threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._clients: PerService[_Client] = PerService(
            lambda service: _Client(service, settings), _Client.close, _Client.sweep
        )

    def send(self, service: Service, request: Request, deadline: Deadline) -> Response:
        """Call the operation; the body of the response is JSON.

        Raises:
            NotSentError: the extra `soap` is not installed, or a TLS file is unusable.
            InvalidPayloadError: no such operation, or the payload does not match it. Nothing was sent.
            FaultError: the service returned a fault, or a response that does not match the WSDL.
            RejectedError: an HTTP status that is neither a success nor a fault.
            ConnectError, TimedOutError: no complete response was received, also for fetches of the WSDL.
        """
        client = self._clients.get(service)
        client.load(deadline)
        arguments = _arguments(request.body)
        port, operation = client.operation(request.endpoint)
        call = Call(service, deadline, request)
        with client.transport.on(call):
            try:
                result = call_operation(client.zeep, port, operation, arguments)
            except (DeliveryError, UnavailableError) as e:
                if isinstance(e, DeliveryError) and not call.sent:
                    e.sent = False
                raise
            except Exception as e:
                raise self._translate(e, call) from None
        body = without_secrets(dumps(_plain(result)), service)
        return Response(status=call.status, body=bounded(body, self._settings.body_limit))

    def check(self, service: Service, deadline: Deadline) -> str:
        """Fetch the WSDL again; calls no operation."""
        client = _Client(service, self._settings)
        try:
            client.load(deadline)
        finally:
            client.close()
        names = client.names()
        return f"the WSDL offers {len(names)} operations: {', '.join(names[:_NAMES])}"

    def close(self) -> None:
        """Close every connection."""
        self._clients.close()

    def _translate(self, error: Exception, call: Call) -> DeliveryError:
        """Translate an error of zeep, or one that its conversion of values raised."""
        from zeep import exceptions

        message = without_secrets(str(error), call.service)
        body = bounded(call.response, self._settings.body_limit)
        if not call.sent:
            return InvalidPayloadError(f"the payload does not match the operation: {message[:500]}")
        if isinstance(error, exceptions.DTDForbidden | exceptions.EntitiesForbidden):
            return FaultError("the response contains a DTD", status=call.status, response_body=body)
        if isinstance(error, exceptions.Fault):
            if error.code is None and call.status != 200:
                return RejectedError(f"HTTP {call.status}", status=call.status, response_body=body)
            text = f"SOAP fault {_local(error.code)}: {message[:500]}"
            return FaultError(text, status=call.status, response_body=body)
        if call.status and call.status >= 300:
            return RejectedError(f"HTTP {call.status}", status=call.status, response_body=body)
        text = f"the response does not match the WSDL: {message[:200]}"
        return FaultError(text, status=call.status, response_body=body)


@dataclass(slots=True)
class _Port:
    """A port of a WSDL, named `Service.Port`. `bind` returns zeep's proxy for it."""

    name: str
    operations: frozenset[str]
    bind: Callable[[], Any]


class _Client:
    """zeep's client for one version of a service, built at the first use."""

    def __init__(self, service: Service, settings: Settings) -> None:
        self.transport = ZeepTransport(service, settings)
        self.zeep: Any = None
        self._service = service
        self._lock = threading.Lock()
        self._ports: list[_Port] = []

    def load(self, deadline: Deadline) -> None:
        """Fetch and parse the WSDL once. One thread does it; the others wait.

        Raises:
            NotSentError: the extra `soap` is not installed.
            FaultError: the WSDL cannot be parsed.
            TransportError: the WSDL cannot be fetched.
        """
        if self._ports:
            return
        if not self._lock.acquire(timeout=deadline.remaining):
            error = TimedOutError("the WSDL did not arrive in time")
            error.sent = False
            raise error
        try:
            if not self._ports:
                self._load(self._service, deadline)
        finally:
            self._lock.release()

    def sweep(self) -> None:
        """Close connections that have been idle for too long."""
        self.transport.sweep()

    def close(self) -> None:
        """Close every connection."""
        self.transport.close()

    def _load(self, service: Service, deadline: Deadline) -> None:
        try:
            import zeep
        except ImportError:
            text = "SOAP services need an extra: pip install 'integration-hub[soap]'"
            raise NotSentError(text, retry_after=CONFIG_RECHECK) from None
        except OSError as e:  # out of descriptors
            raise NotSentError(f"zeep cannot be loaded: {e.strerror}") from None
        options = zeep.Settings(strict=True, forbid_dtd=True, forbid_entities=True, xml_huge_tree=False)
        with self.transport.on(Call(service, deadline, None)):
            try:
                self.zeep = zeep.Client(  # type: ignore[no-untyped-call]
                    service.base_url, transport=self.transport, settings=options
                )
            except (DeliveryError, UnavailableError) as e:
                if isinstance(e, DeliveryError):
                    e.sent = False  # the service itself was not called
                raise
            except Exception as e:
                message = without_secrets(str(e) or type(e).__name__, service)
                raise _unread(f"the WSDL cannot be read: {message[:500]}") from None
        ports: list[_Port] = []
        for name, found in self.zeep.wsdl.services.items():
            for port_name, port in found.ports.items():
                bind = partial(self.zeep.bind, name, port_name)
                ports.append(_Port(f"{name}.{port_name}", frozenset(port.binding.all()), bind))
        if not ports:
            raise _unread("the WSDL has no SOAP port")
        self._ports = ports

    def names(self) -> list[str]:
        """The operations of all ports, sorted."""
        return sorted({operation for port in self._ports for operation in port.operations})

    def operation(self, endpoint: str) -> tuple[Any, str]:
        """The bound port and the operation that `endpoint` names."""
        where, _, operation = endpoint.strip("/").rpartition("/")
        for port in self._ports:
            if operation in port.operations and where in ("", port.name, port.name.partition(".")[2]):
                return port.bind(), operation
        known = ", ".join(self.names()[:_NAMES])
        ports = ", ".join(port.name for port in self._ports[:_NAMES])
        raise InvalidPayloadError(f"the WSDL has no operation {endpoint!r}; operations: {known}; ports: {ports}")


def _unread(text: str) -> FaultError:
    """The error for an unusable WSDL: the service itself was not called."""
    error = FaultError(text)
    error.sent = False
    return error


def _arguments(body: str | None) -> dict[str, Any]:
    try:
        value = loads(body) if body else {}
    except PayloadError as e:
        raise InvalidPayloadError(str(e)) from None
    if not isinstance(value, dict):
        raise InvalidPayloadError("the payload of a SOAP call is an object: its keys are the operation's arguments")
    return value


def _plain(result: Any) -> Any:
    """Convert zeep's result to JSON values: dates in ISO 8601, decimals and XML as text, bytes in base64."""
    from lxml import etree
    from zeep.helpers import serialize_object

    def simple(value: Any) -> Any:
        if isinstance(value, dict):
            return {str(key): simple(item) for key, item in value.items()}
        if isinstance(value, list | tuple | set):
            return [simple(item) for item in value]
        if value is None or isinstance(value, bool | int | str):
            return value
        if isinstance(value, float):
            return value if value - value == 0 else str(value)
        if isinstance(value, bytes):
            return base64.b64encode(value).decode()
        if hasattr(value, "isoformat"):
            return value.isoformat()
        if isinstance(value, etree._Element):
            return etree.tostring(value, encoding="unicode")
        return str(value)

    return simple(serialize_object(result, dict))  # type: ignore[no-untyped-call]


def _local(code: str | None) -> str:
    """A fault's code without its namespace prefix."""
    return (code or "without a code").rpartition(":")[2]
