"""A TCP proxy between the hub and a real server: it can hold answers back, drip them, cut, refuse, and speak TLS."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time

_HEARTBEAT = b"\x08\x00\x00\x00\x00\x00\x00\xce"  # an AMQP 0-9-1 frame


class Proxy:
    """Forwards `host`:`port` to `target`; `tls` ends TLS here. Use as a context manager.

    `hold(after=n)`: of what the server sends from now on, `n` more bytes pass, then nothing until `release()`.
    `drip()`: what the server sends passes one byte at a time, slower than any sensible deadline allows, faster than
    a timeout per read would notice. `swallow()`: nothing passes in either direction, connections are accepted and
    stay open, until `restore()`, which breaks them. `cut()`: every connection breaks. `refuse()`: the port is closed.
    `heartbeats`: AMQP heartbeat frames that clients have sent.
    """

    def __init__(self, target: tuple[str, int], *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        self._target = target
        self._tls = tls
        self._listener = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        self.port: int = self._listener.getsockname()[1]
        self.accepted = 0
        self.heartbeats = 0
        self._open = threading.Event()
        self._open.set()
        self._quota = 0
        self._drip = self._swallow = False
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Proxy:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self.refuse()
        self.release()
        self.cut()
        for thread in self._threads:
            thread.join(timeout=10)
            assert not thread.is_alive()

    @property
    def open(self) -> int:
        """Connections that are open now."""
        with self._lock:
            return len(self._sockets) // 2

    def hold(self, *, after: int = 0) -> None:
        self._quota = after
        self._open.clear()

    def drip(self) -> None:
        self._drip = True

    def swallow(self) -> None:
        self._swallow = True

    def restore(self) -> None:
        self.cut()  # what was swallowed is missing in their streams
        self._swallow = False

    def release(self) -> None:
        self._drip = False
        self._open.set()

    def cut(self) -> None:
        """Every connection ends, in both directions; returns when the sockets are shut down."""
        with self._lock:
            sockets, self._sockets = self._sockets, []
        _shut(*sockets)

    def refuse(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            self._start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        try:
            if self._tls:
                client = self._tls.wrap_socket(client, server_side=True)
            server = socket.create_connection(self._target)
        except OSError:
            client.close()
            return
        with self._lock:
            self._sockets += [client, server]
        requests = self._start(self._pump, client, server, False)
        self._pump(server, client, True)
        requests.join()
        # Not before: a number that is closed while the other pump still reads it is soon another connection's.
        with self._lock:
            self._sockets = [s for s in self._sockets if s not in (client, server)]
        client.close()
        server.close()

    def _pump(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        try:
            while data := source.recv(65536):
                if not answers:
                    self.heartbeats += data.count(_HEARTBEAT)
                if self._swallow:
                    continue
                while data and answers and not self._open.is_set():
                    allowed, data = data[: self._quota], data[self._quota :]
                    self._quota -= len(allowed)
                    sink.sendall(allowed)
                    if not self._quota:
                        self._open.wait()
                while data and answers and self._drip:
                    sink.sendall(data[:1])
                    data = data[1:]
                    self._done.wait(0.02)
                sink.sendall(data)
        except (OSError, ValueError):
            pass
        _shut(source, sink)

    def _start(self, target: object, *args: object) -> threading.Thread:
        thread = threading.Thread(target=target, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()
        return thread


def _shut(*sockets: socket.socket) -> None:
    """End both directions, so that whoever reads wakes up."""
    for one in sockets:
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)


def unused_port() -> int:
    """A port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as s:
        port: int = s.getsockname()[1]
        return port


class Stopwatch:
    """`took` seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    @property
    def took(self) -> float:
        return time.monotonic() - self._start
