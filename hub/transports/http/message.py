"""Exchange one HTTP/1.1 request and response on an open connection before a deadline.

Head and body are sent in one write; `response` reads the response.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from hub.errors import ConnectError, InvalidPayloadError, TimedOutError
from hub.transports.base import Deadline
from hub.transports.http.connection import HttpConnection, reason
from hub.transports.http.response import RawResponse, ResponseReader, read_body

_MOST_INTERIM = 20  # 1xx responses before the final one
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FORBIDDEN = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_FRAMING = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "expect"}
)
_PLAIN_NAMES = frozenset(  # headers of the hub, whose names need no check
    {"User-Agent", "Accept", "Accept-Encoding", "Content-Type", "Authorization", "Idempotency-Key", "X-Hub-Event"}
    | {"X-Hub-Task", "webhook-id", "webhook-timestamp", "webhook-signature"}
)
_BODY_EXPECTED = frozenset({"POST", "PUT", "PATCH"})


def check_header(name: str, value: str) -> None:
    """Raise `InvalidPayloadError` for a header that would inject another one or change the message framing."""
    if not _NAME.fullmatch(name) or name.lower() in _FRAMING:
        raise InvalidPayloadError(f"header {name[:100]!r} may not be set")
    if _FORBIDDEN.search(value):
        raise InvalidPayloadError(f"header {name!r} holds a control character")


def head(method: str, target: str, authority: str, headers: Mapping[str, str], body: bytes | None) -> bytes:
    """The request line and headers, with the framing of the body.

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


def exchange(
    connection: HttpConnection,
    method: str,
    request_head: bytes,
    body: bytes | None,
    deadline: Deadline,
    limit: int,
    where: str,
) -> RawResponse:
    """Send a request and read the response.

    Args:
        limit: most bytes of the body that are read; a longer body makes the connection not reusable.
        where: the name of the peer in error texts.

    Raises:
        TimedOutError: no complete response before the deadline.
        ConnectError: the connection was lost, or the response is not HTTP.
    """
    reader = ResponseReader(connection, deadline, where)
    try:
        connection.send(request_head + body if body else request_head, deadline)
    except TimeoutError:
        raise TimedOutError(f"{where} did not receive the request in time") from None
    except (BrokenPipeError, ConnectionResetError):
        pass  # the peer may have responded before it read the whole request
    except OSError as e:
        raise ConnectError(f"connection to {where} lost: {reason(e)}") from None
    for _ in range(_MOST_INTERIM):
        response, version = reader.read_head()
        if response.status >= 200 or response.status == 101:
            read_body(reader, response, method, version, limit)
            return response
    raise reader.lost("too many interim responses")
