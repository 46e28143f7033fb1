"""Connect through the HTTP proxy of the environment, when `HUB_EGRESS_PROXY` is set.

The egress guard does not check the proxy's address. It checks services whose address is a literal; names are
resolved by the proxy.
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
from hub.transports.http.connection import HttpConnection
from hub.transports.http.urls import Base


def connect(via: str, base: Base, settings: Settings, deadline: Deadline) -> socket.socket:
    """Open a connection to the proxy `via`; for an https service, a tunnel through it.

    Raises:
        ConnectError, TimedOutError: the proxy cannot be reached or does not open the tunnel.
        EgressRefusedError: the service's address is a literal that is not allowed.
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
        response = http_message.exchange(
            HttpConnection(sock), "HEAD", head, None, deadline, 0, "the proxy"
        )  # HEAD: no body follows
        if response.status != 200:
            raise ConnectError(f"the proxy does not connect to {host}: HTTP {response.status}")
    except BaseException:
        sock.close()
        raise
    return sock


def credentials(via: str) -> dict[str, str]:
    """The `Proxy-Authorization` header; empty when the proxy's URL has no user."""
    parts = urlsplit(via if "://" in via else f"http://{via}")
    if not parts.username:
        return {}
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"Proxy-Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}
