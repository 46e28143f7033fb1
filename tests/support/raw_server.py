"""A TCP server, with or without TLS, that runs one function per connection."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self


class RawServer:
    """A TCP server on 127.0.0.1 that calls `serve` for each connection, in a thread. `closing` is set when it must end.

    Args:
        tls: a server-side context; connections that fail the handshake are only counted.
    """

    def __init__(
        self, serve: Callable[[socket.socket], None] | None = None, *, tls: ssl.SSLContext | None = None, port: int = 0
    ) -> None:
        self._serve = serve
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        self.closing = threading.Event()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def serve(self, sock: socket.socket) -> None:
        """One connection, until it ends."""
        assert self._serve is not None
        self._serve(sock)

    def drop(self) -> None:
        """Close every connection, as a restarted server does; goes on listening."""
        with self._lock:
            for sock in self._open:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.closing.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join(5)
        self._listener.close()
        self.drop()
        for thread in self._threads:
            thread.join(5)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _accept(self) -> None:
        while not self.closing.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self.connections += 1
                self._open.add(sock)
            thread = threading.Thread(target=self._run, args=(sock,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _run(self, plain: socket.socket) -> None:
        sock = plain
        try:
            if self._tls:
                plain.settimeout(5)
                sock = self._tls.wrap_socket(plain, server_side=True)
                sock.settimeout(None)
                with self._lock:
                    self._open.discard(plain)
                    self._open.add(sock)
            self.serve(sock)
        except OSError:
            pass
        finally:
            with self._lock:
                self._open.discard(plain)
                self._open.discard(sock)
                sock.close()
                plain.close()
