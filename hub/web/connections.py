"""One HTTP connection: uvicorn's protocol with limits on the head of a request and strict parsing."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from hub.web.addresses import client_key
from hub.web.connection_limits import Limits, Phase

COMPLETE = "hub.complete"
"""Key of a request's scope: its whole body has arrived, so that nothing of it must be waited for."""
HEAD_LIMIT = 16 * 1024
"""Bytes: limit of a request's head, and of everything else that is not body (chunk extensions, trailers)."""
_MOST_HEADERS = 100
_TOO_LARGE_TEXT = b"The head of the request is larger than 16 KiB, or has more than 100 headers."
_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"content-length: %d\r\nconnection: close\r\n\r\n%s"
) % (len(_TOO_LARGE_TEXT), _TOO_LARGE_TEXT)
_MOST_PIPELINED = 16


class Connection(HttpToolsProtocol):
    """One connection: uvicorn's protocol on llhttp with `Limits` and strict parsing of requests."""

    def __init__(self, limits: Limits, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._limits = limits
        self._unread = 0  # bytes since the parser last completed a part of the request
        self._in_message = False  # head complete, body not
        self._count = 0  # headers
        self._size = 0  # bytes of the target and the headers
        self._stalled = False
        self._head_too_large = False
        self.address = "?"
        self.trusted = False
        self.phase = Phase.IDLE
        self.since = self.loop.time()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self.client is not None:
            self.trusted = self._limits.trusts(self.client[0])
            self.address = client_key(self.client[0])
        if not self._limits.add(self):
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._limits.remove(self)
        super().connection_lost(exc)
        self._unset_keepalive_if_required()

    def data_received(self, data: bytes) -> None:
        if self.parser is None or self.transport.is_closing():
            return
        self._unread += len(data)
        super().data_received(data)
        if self._unread > HEAD_LIMIT and self.parser is not None and not self.transport.is_closing():
            self._head_too_large = not self._in_message
            self.send_400_response("Too many bytes that are not body.")

    def send_400_response(self, msg: str) -> None:
        """Refuse with 400, or 431 for a head over the limits, and close.

        Closes without a response when the client could take it for the response to another request.
        """
        started = self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete
        if self.pipeline or started:
            self.transport.abort()
            return
        if self._head_too_large:
            self.transport.write(_TOO_LARGE)
            self.transport.close()
        else:
            super().send_400_response(msg)
        self._enter(Phase.CLOSING)

    def _unsupported_upgrade_warning(self) -> None:
        """Ignore an upgrade, as HTTP allows, without a log line: clients must not fill the log."""

    # Callbacks of the parser. An exception refuses the request with 400 or 431.

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._count = self._size = 0

    def on_url(self, url: bytes) -> None:
        self._add(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count += 1
        self._add(len(name) + len(value))
        if not self._in_message:  # a trailer is not a header: authentication is over
            super().on_header(name, value)

    def _add(self, size: int) -> None:
        self._size += size
        if self._count > _MOST_HEADERS or self._size > HEAD_LIMIT:
            self._head_too_large = not self._in_message
            raise ValueError("too many headers")

    def on_headers_complete(self) -> None:
        self._unread = 0
        version = self.parser.get_http_version()
        names = Counter(name for name, _ in self.headers)
        if version not in ("1.1", "1.0") or (version == "1.1" and names[b"host"] != 1) or names[b"host"] > 1:
            raise ValueError("no HTTP/1 request with one Host")
        if b"transfer-encoding" in names:
            coding = [value.lower() for name, value in self.headers if name == b"transfer-encoding"]
            # With a length beside it, or in HTTP/1.0, two parsers may find different ends of the request (smuggling).
            if coding != [b"chunked"] or b"content-length" in names or version == "1.0":
                raise ValueError("only chunked is supported")
        if len(self.pipeline) >= _MOST_PIPELINED:
            raise ValueError("too many requests at once")
        self._in_message = True
        super().on_headers_complete()
        self._enter(Phase.BUSY)

    def on_body(self, body: bytes) -> None:
        self._unread = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unread = 0
        self._in_message = False
        self.scope[COMPLETE] = True  # type: ignore[literal-required]
        super().on_message_complete()
        if self.phase is Phase.CLOSING and not self.transport.is_closing():
            self._enter(Phase.IDLE)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.pipeline and (self.cycle is None or self.cycle.response_complete):
            self._enter(Phase.CLOSING if self._in_message or self.transport.is_closing() else Phase.IDLE)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled = True
        self._enter(self.phase)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stalled = False
        if self.cycle is not None and not self.cycle.response_complete:
            self._enter(Phase.BUSY)
        else:
            self._enter(Phase.CLOSING if self._in_message or self.transport.is_closing() else Phase.IDLE)

    def _enter(self, phase: Phase) -> None:
        self.phase = Phase.STALLED if self._stalled else phase
        self.since = self.loop.time()
