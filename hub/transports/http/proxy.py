"""Connect through the HTTP proxy of the environment, only when `HUB_EGRESS_PROXY` is set.

The proxy itself is the operator's choice and not guarded. Addresses given as literals are still judged; which
address a name has is then the proxy's business.
"""

from __future__ import annotations

import base64
import socket
from urllib.parse import unquote, urlsplit

from hub.errors import ConnectError, EgressRefusedError, InvalidPayloadError
from hub.settings import Settings
from hub.transports import egress
from hub.transports.base import Deadline
from hub.transports.http import message as http_message
from hub.transports.http.urls import Base
from hub.transports.http.wire import Wire


def connect(via: str, base: Base, settings: Settings, deadline: Deadline) -> socket.socket:
    """A connection to the proxy `via`; for an https service a tunnel to it.

    Raises:
        ConnectError, TimedOutError: the proxy cannot be reached or does not open the tunnel.
        EgressRefusedError: the service's address is a literal that the guard refuses.
        InvalidPayloadError: the proxy's URL is not of the http scheme.
    """
    if (address := egress.literal(base.host)) and (why := egress.refused(address, settings)):
        raise EgressRefusedError(f"the hub may not connect to {base.host}: {why}")
    parts = urlsplit(via if "://" in via else f"http://{via}")
    if parts.scheme != "http" or not parts.hostname:
        raise InvalidPayloadError("the environment's proxy is not an http:// URL")
    sock = egress.open_first([parts.hostname], parts.hostname, parts.port or 80, deadline)
    if base.scheme == "http":
        return sock
    try:
        host = f"[{base.host}]:{base.port}" if ":" in base.host else f"{base.host}:{base.port}"
        head = http_message.head("CONNECT", host, host, credentials(via), None)
        answer = http_message.exchange(
            Wire(sock), "HEAD", head, None, deadline, 0, "the proxy"
        )  # HEAD: no body follows
        if answer.status != 200:
            raise ConnectError(f"the proxy does not connect to {host}: HTTP {answer.status}")
    except BaseException:
        sock.close()
        raise
    return sock


def credentials(via: str) -> dict[str, str]:
    """The proxy's own authorization, when its URL has a user."""
    parts = urlsplit(via if "://" in via else f"http://{via}")
    if not parts.username:
        return {}
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"Proxy-Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}
