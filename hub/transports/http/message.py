"""Exchange one HTTP/1.1 request and response on an open connection before a deadline.

Head and body leave in one packet; `http_answer` reads what comes back.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from hub.errors import ConnectError, InvalidPayloadError, TimedOutError
from hub.transports.base import Deadline
from hub.transports.http.response import Incoming, Reader, read_body
from hub.transports.http.wire import Wire, reason

_MOST_INTERIM = 20  # answers like 100 Continue before the real one
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FORBIDDEN = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_FRAMING = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "expect"}
)
_PLAIN_NAMES = frozenset({  # what the hub itself sends, known to be in order
    "User-Agent", "Accept", "Accept-Encoding", "Content-Type", "Authorization", "Idempotency-Key", "X-Hub-Event",
    "X-Hub-Task", "webhook-id", "webhook-timestamp", "webhook-signature",
})  # fmt: skip
_BODY_EXPECTED = frozenset({"POST", "PUT", "PATCH"})


def check_header(name: str, value: str) -> None:
    """Raises `InvalidPayloadError` when a header would smuggle in another one, or frames the message itself."""
    if not _NAME.fullmatch(name) or name.lower() in _FRAMING:
        raise InvalidPayloadError(f"header {name[:100]!r} may not be set")
    if _FORBIDDEN.search(value):
        raise InvalidPayloadError(f"header {name!r} holds a control character")


def head(method: str, target: str, authority: str, headers: Mapping[str, str], body: bytes | None) -> bytes:
    """Request line and headers, with the framing that fits the body.

    Raises:
        InvalidPayloadError: as `check_header`.
    """
    lines = [f"{method} {target} HTTP/1.1\r\nHost: {authority}"]
    for name, value in headers.items():
        if name not in _PLAIN_NAMES or _FORBIDDEN.search(value):
            check_header(name, value)
        lines.append(f"{name}: {value}")
    if body is not None:
        lines.append(f"Content-Length: {len(body)}\r\n\r\n")
    elif method in _BODY_EXPECTED:
        lines.append("Content-Length: 0\r\n\r\n")
    else:
        lines.append("\r\n")
    return "\r\n".join(lines).encode("utf-8", "replace")


def exchange(wire: Wire, method: str, request_head: bytes, body: bytes | None, deadline: Deadline,
             limit: int, where: str) -> Incoming:  # fmt: skip
    """Send a request and read its answer.

    Args:
        limit: most bytes of the body that are read; the rest is left, and the connection not reusable.
        where: names the peer in error texts.

    Raises:
        TimedOutError: no complete answer before the deadline; ConnectError: the peer broke off or speaks no HTTP.
    """
    reader = Reader(wire, deadline, where)
    try:
        wire.send(request_head + body if body else request_head, deadline)
    except TimeoutError:
        raise TimedOutError(f"{where} did not take the request in time") from None
    except (BrokenPipeError, ConnectionResetError):
        pass  # it may have answered before it had read everything
    except OSError as e:
        raise ConnectError(f"connection to {where} lost: {reason(e)}") from None
    for _ in range(_MOST_INTERIM):
        answer, version = reader.read_head()
        if answer.status >= 200 or answer.status == 101:
            read_body(reader, answer, method, version, limit)
            return answer
    raise reader.lost("interim answers without end")
