"""A programmable HTTP server that records what it receives.

::

    with HttpTarget() as target:
        target.on("/users", Reply(201, {"id": 7}))  # or a status, or a function of the request
        ...
        assert target.seen[0].json() == {...}
"""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.support.raw_server import RawServer


@dataclass(frozen=True)
class Seen:
    """One request as it arrived. Header names are in lower case; `connection` numbers the TCP connections from 1."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes
    connection: int
    at: float

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    """What to answer. A body that is neither bytes nor text goes out as JSON; `delay` seconds pass before it."""

    status: int = 200
    body: Any = b""
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    close: bool = False

    def encode(self, method: str) -> bytes:
        body, headers = self.body, dict(self.headers)
        if not isinstance(body, bytes | str):
            body = json.dumps(body)
            headers.setdefault("Content-Type", "application/json")
        raw = body.encode() if isinstance(body, str) else body
        if self.status >= 200 and self.status not in (204, 304):
            headers.setdefault("Content-Length", str(len(raw)))
        if self.close:
            headers["Connection"] = "close"
        lines = [f"HTTP/1.1 {self.status} Whatever", *(f"{k}: {v}" for k, v in headers.items())]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + (b"" if method == "HEAD" else raw)


Answer = Reply | int | Callable[[Seen], "Reply | int"]


class HttpTarget(RawServer):
    """An HTTP/1.1 server with keep-alive. Paths that were not programmed get `default`."""

    def __init__(self, default: Answer = 204, *, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        self.default: Answer = default
        self.answers: dict[str, Answer] = {}
        self.seen: list[Seen] = []
        super().__init__(tls=tls, port=port)

    def on(self, path: str, answer: Answer) -> None:
        """Program one path (without query)."""
        self.answers[path] = answer

    def at(self, path: str) -> list[Seen]:
        """The requests for one path, in order of arrival."""
        return [seen for seen in self.seen if seen.path == path]

    def serve(self, sock: socket.socket) -> None:
        number = self.connections
        with sock.makefile("rb") as file:
            while seen := self._read(file, number):
                self.seen.append(seen)
                answer = self.answers.get(seen.path, self.default)
                answer = answer(seen) if callable(answer) else answer
                reply = Reply(answer) if isinstance(answer, int) else answer
                if reply.delay and self.closing.wait(reply.delay):
                    return
                sock.sendall(reply.encode(seen.method))
                if reply.close or seen.headers.get("connection") == "close":
                    return

    def _read(self, file: Any, number: int) -> Seen | None:
        first = file.readline().decode("latin-1").split()
        if len(first) != 3:
            return None
        method, target, _ = first
        headers: dict[str, str] = {}
        while line := file.readline().decode("utf-8", "replace").rstrip("\r\n"):
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        body = file.read(int(headers.get("content-length", 0)))
        path, _, query = target.partition("?")
        return Seen(method, path, query, headers, body, number, time.monotonic())
