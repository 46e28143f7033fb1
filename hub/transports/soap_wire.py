"""Stage 9, SOAP: the network under zeep. One place through which WSDLs, schemas and calls go.

zeep's own transport opens files and follows any address that a WSDL names; this one fetches http and https only,
within the deadline of the call it serves, and gives the credentials to no other host than the service's own.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import requests

from hub.errors import ConnectError, FaultError, RejectedError, TimedOutError
from hub.models import Request, Service
from hub.settings import Settings
from hub.transports.base import Deadline, bounded
from hub.transports.masking import without_secrets

_FAULT_STATUS = (200, 202, 400, 500)  # what SOAP 1.1 and 1.2 answer with; anything else is HTTP's own no


@dataclass(slots=True)
class Call:
    """What is under way in this thread. `request` None: only the WSDL is fetched."""

    service: Service
    deadline: Deadline
    request: Request | None
    sent: bool = False
    status: int | None = None
    answer: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer, as much of it as zeep looks at."""

    status_code: int
    content: bytes
    headers: Any
    encoding: str = "utf-8"


class Wire:
    """zeep's transport, duck-typed so that zeep is imported only where it is used. Called from many threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._here = threading.local()
        self._session = requests.Session()
        self._session.trust_env = settings.egress_proxy

    def close(self) -> None:
        self._session.close()

    @contextmanager
    def on(self, call: Call) -> Iterator[None]:
        """What zeep asks for in this block belongs to `call`."""
        self._here.call = call
        try:
            yield
        finally:
            self._here.call = None

    def load(self, url: str) -> bytes:
        """A WSDL or schema, or `RejectedError`; nothing but http and https."""
        call: Call = self._here.call
        if urlsplit(url).scheme not in ("http", "https"):
            raise FaultError(f"the WSDL names {url[:200]!r}: only http and https are fetched")
        answer = self._exchange(call, "GET", url, {}, None)
        if answer.status_code != 200:
            raise self._rejected(call, answer, url)
        return answer.content

    def post_xml(self, address: str, envelope: Any, headers: dict[str, str]) -> Answer:
        """Send an envelope; a status that no SOAP answer has is a `RejectedError`."""
        from lxml import etree

        call: Call = self._here.call
        body = etree.tostring(envelope, xml_declaration=True, encoding="utf-8")
        extra = dict(headers)
        if call.request is not None:
            extra.update(call.request.headers)
            if call.request.idempotency_key:
                extra["Idempotency-Key"] = call.request.idempotency_key
        call.sent = True
        answer = self._exchange(call, "POST", address, extra, body)
        call.status = answer.status_code
        call.answer = without_secrets(answer.content.decode("utf-8", "replace"), call.service)
        if answer.status_code not in _FAULT_STATUS or (answer.status_code >= 300 and b"Fault" not in answer.content):
            raise self._rejected(call, answer, address)
        return answer

    def _rejected(self, call: Call, answer: Answer, url: str) -> RejectedError:
        what = "" if call.sent else " for the WSDL" if url == call.service.base_url else " for what the WSDL imports"
        text = f"HTTP {answer.status_code}{what}"
        if answer.status_code in (401, 403) and not _same_host(url, call.service.base_url):
            text += f" from {urlsplit(url).hostname}; credentials go to the WSDL's host only"
        body = without_secrets(answer.content.decode("utf-8", "replace"), call.service)
        return RejectedError(text, status=answer.status_code, response_body=bounded(body, self._settings.body_limit))

    def _exchange(self, call: Call, method: str, url: str, headers: dict[str, str], body: bytes | None) -> Answer:
        service, deadline = call.service, call.deadline
        place = urlsplit(url).netloc.rpartition("@")[2]
        if deadline.remaining <= 0:
            raise TimedOutError(f"no answer from {place} in time")
        try:
            with self._session.request(
                method, url, data=body, headers=headers, stream=True, allow_redirects=False,
                timeout=(deadline.remaining, deadline.remaining),
            ) as response:  # fmt: skip
                content = b""
                while chunk := response.raw.read1(65536, decode_content=True):
                    content += chunk
                    if len(content) > self._settings.response_limit:
                        raise FaultError(f"the answer has more than {self._settings.response_limit} bytes")
                    if deadline.remaining <= 0:
                        raise TimedOutError(f"no complete answer from {place} in time")
                return Answer(response.status_code, content, response.headers)
        except requests.Timeout:
            raise TimedOutError(f"no answer from {place} in time") from None
        except requests.RequestException as e:
            raise ConnectError(without_secrets(f"cannot reach {place}: {e}", service)) from None


def _same_host(url: str, other: str) -> bool:
    return urlsplit(url).hostname == urlsplit(other).hostname
