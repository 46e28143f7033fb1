"""A target that takes its time: `python -m tests.bench.target PORT`, one thread, epoll, answers 204.

`/slow` answers after 100 ms, `/hang` never, everything else at once. It parses as little as it can:
alone it answers far more requests than any row asks of it (`python -m tests.bench --rows target` measures that).
"""

from __future__ import annotations

import heapq
import select
import socket
import sys
import time

DELAY = 0.1
_ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"


def serve(port: int) -> None:
    """Answer until killed."""
    listener = socket.create_server(("127.0.0.1", port), backlog=4096)
    listener.setblocking(False)
    poll = select.epoll()
    poll.register(listener.fileno(), select.EPOLLIN)
    connections: dict[int, socket.socket] = {}
    partial: dict[int, bytes] = {}
    due: list[tuple[float, int, socket.socket]] = []  # answers to come, the earliest first

    def drop(fd: int) -> None:
        partial.pop(fd, None)
        connections.pop(fd).close()

    while True:
        timeout = max(0.0, due[0][0] - time.monotonic()) if due else -1
        for fd, _ in poll.poll(timeout):
            if fd == listener.fileno():
                try:
                    while True:
                        sock, _ = listener.accept()
                        sock.setblocking(False)
                        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                        connections[sock.fileno()] = sock
                        poll.register(sock.fileno(), select.EPOLLIN)
                except BlockingIOError:
                    continue
            sock = connections[fd]
            try:
                data = sock.recv(65536)
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            if not data:
                drop(fd)
                continue
            data = partial.pop(fd, b"") + data
            if not _complete(data):
                partial[fd] = data
                continue
            path = data[: data.index(b"\r\n")].split(b" ")[1]
            if path.startswith(b"/hang"):
                continue
            if path.startswith(b"/slow"):
                heapq.heappush(due, (time.monotonic() + DELAY, fd, sock))
                continue
            _answer(sock)
        now = time.monotonic()
        while due and due[0][0] <= now:
            _, fd, sock = heapq.heappop(due)
            if connections.get(fd) is sock:
                _answer(sock)


def _answer(sock: socket.socket) -> None:
    try:
        sock.send(_ANSWER)
    except OSError:
        pass  # it went away


def _complete(data: bytes) -> bool:
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return False
    head = data[:end].lower()
    at = head.find(b"\r\ncontent-length:")
    if at < 0:
        return True
    return len(data) >= end + 4 + int(head[at + 17 :].split(b"\r\n", 1)[0])


if __name__ == "__main__":
    serve(int(sys.argv[1]))
