"""An open connection whose reads and writes share one deadline.

A socket's own timeout starts again with each read: a service that sends one byte a second would hold a worker
forever.
"""

from __future__ import annotations

import select
import socket
import ssl
from typing import cast

from hub.transports.base import Deadline


class HttpConnection:
    """An open connection, plain or TLS. Not thread-safe.

    The socket is non-blocking: one `poll` with the remaining time precedes each read. That is half the system calls
    of a socket with a timeout.
    """

    __slots__ = ("_poll", "_secure", "sock")

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self._secure = isinstance(sock, ssl.SSLSocket)
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)

    def reusable(self) -> bool:
        """Whether an idle connection may be reused. Received bytes are the end of the stream or not a response."""
        return not self._poll.poll(0)

    def send(self, data: bytes, deadline: Deadline) -> None:
        """Send all bytes; raises `TimeoutError` or another `OSError`."""
        rest: bytes | memoryview = data
        while True:
            try:
                sent = self.sock.send(rest)
                if sent == len(rest):
                    return
                rest = memoryview(rest)[sent:]
            except (BlockingIOError, ssl.SSLWantWriteError):
                self._wait(select.POLLOUT, deadline)
            except ssl.SSLWantReadError:
                self._wait(select.POLLIN, deadline)

    def receive(self, most: int, deadline: Deadline) -> bytes:
        """Receive some bytes, none at the end of the stream; raises `TimeoutError` or another `OSError`."""
        sock = self.sock
        while True:
            if not (self._secure and cast(ssl.SSLSocket, sock).pending()):
                left = deadline.remaining
                if left <= 0 or not self._poll.poll(left * 1000):
                    raise TimeoutError
            try:
                return sock.recv(most)
            except (BlockingIOError, ssl.SSLWantReadError):
                continue
            except ssl.SSLWantWriteError:
                self._wait(select.POLLOUT, deadline)

    def close(self) -> None:
        """Close the connection; unsent and unread bytes are dropped."""
        self.sock.close()

    def _wait(self, events: int, deadline: Deadline) -> None:
        poll = select.poll()
        poll.register(self.sock, events)
        left = deadline.remaining
        if left <= 0 or not poll.poll(left * 1000):
            raise TimeoutError


def reason(error: OSError) -> str:
    """The text of an OS or TLS error, without numbers."""
    if isinstance(error, ssl.SSLError):
        return (error.reason or "protocol error").replace("_", " ").lower()
    return (error.strerror or type(error).__name__).lower()
