"""Access to names of pika that are not public. No other module of the hub uses one, except `tables`.

pika has no public way to limit the memory that a broker makes it use, to interrupt a blocking call, or to drive a
connection from a dedicated thread. `check_names()` reports names that an upgrade of pika has moved.

pika assembles a message before its size can be checked, and waits for a frame of any announced length. Here the
length of a frame is compared with the negotiated maximum when its seven header bytes are read, and the size of a
message when its header frame arrives, before the first byte of its body.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Sequence
from typing import Any

import pika
from pika import exceptions, frame, spec
from pika.adapters import blocking_connection, select_connection
from pika.channel import Channel
from pika.connection import Connection

MAX_MESSAGE = 512 * 1024 * 1024  # bytes; the maximum of RabbitMQ's `max_message_size`
_FRAME_MAX = 131_072  # bytes; pika's own proposal, valid until a smaller one is negotiated

# Owner and name of each private name that is used below.
_NAMES: tuple[tuple[Any, str], ...] = (
    (Connection, "_create_channel"),
    (Connection, "_read_frame"),
    (Connection, "_terminate_stream"),
    (blocking_connection.BlockingConnection, "_create_connection"),
    (select_connection.IOLoop, "poll"),
    (select_connection.IOLoop, "process_timeouts"),
    (Channel, "_handle_content_frame"),
)


class MessageTooLargeError(exceptions.AMQPConnectionError):
    """The broker announced a message or frame that is larger than the connection accepts."""


class CutBody(bytes):
    """The first bytes of a body that was larger than `keep`.

    Attributes:
        size: bytes of the whole body.
        sha256: hex digest of the whole body.
    """

    size: int
    sha256: str


class _Assembler:
    """Replaces pika's `ContentFrameAssembler`: keeps at most `keep` bytes of a body, refuses one over `ceiling`."""

    def __init__(self, keep: int, ceiling: int) -> None:
        self._keep = keep
        self._ceiling = ceiling
        self._method: Any = None
        self._header: Any = None
        self._parts: list[bytes] = []
        self._kept = 0
        self._seen = 0
        self._hash: Any = None

    def process(self, value: Any) -> tuple[Any, Any, bytes] | None:
        """Add one frame of a message; returns (method, header, body) with the last one."""
        if isinstance(value, frame.Method) and spec.has_content(value.method.INDEX):
            self._method = value
            return None
        if isinstance(value, frame.Header):
            if value.body_size > self._ceiling:
                raise MessageTooLargeError(
                    f"the broker announced a message of {value.body_size} bytes; at most {self._ceiling} are accepted"
                )
            self._header = value
            self._parts, self._kept, self._seen = [], 0, 0
            self._hash = hashlib.sha256() if value.body_size > self._keep else None
            return self._finish() if value.body_size == 0 else None
        if not isinstance(value, frame.Body) or self._header is None:
            raise exceptions.UnexpectedFrameError(value)
        return self._body(value.fragment)

    def _body(self, fragment: bytes) -> tuple[Any, Any, bytes] | None:
        self._seen += len(fragment)
        if self._seen > self._header.body_size:
            raise exceptions.BodyTooLongError(self._seen, self._header.body_size)
        if self._hash is not None:
            self._hash.update(fragment)
        if self._kept < self._keep:
            part = fragment[: self._keep - self._kept]
            self._parts.append(part)
            self._kept += len(part)
        return self._finish() if self._seen == self._header.body_size else None

    def _finish(self) -> tuple[Any, Any, bytes]:
        body = b"".join(self._parts)
        if self._hash is not None:
            body = CutBody(body)
            body.size, body.sha256 = self._seen, self._hash.hexdigest()
        found = self._method, self._header, body
        self._method = self._header = self._hash = None
        self._parts = []
        return found


class _BoundedConnection(select_connection.SelectConnection):
    """pika's connection with the limits of this module."""

    keep = 0
    ceiling = 0

    def _create_channel(self, channel_number: int, on_open_callback: Any) -> Any:
        channel = super()._create_channel(channel_number, on_open_callback)
        channel._content_assembler = _Assembler(self.keep, self.ceiling)  # type: ignore[assignment]
        return channel

    def _read_frame(self) -> Any:
        data = self._frame_buffer
        if len(data) >= spec.FRAME_HEADER_SIZE and data[:4] != b"AMQP":
            length = struct.unpack_from(">L", data, 3)[0]
            most = self.params.frame_max or _FRAME_MAX
            if length > most:
                text = f"the broker announced a frame of {length} bytes; the negotiated maximum is {most}"
                raise MessageTooLargeError(text)
        return super()._read_frame()


def open_blocking(
    parameters: pika.ConnectionParameters | Sequence[pika.ConnectionParameters],
    *,
    keep: int,
    ceiling: int = MAX_MESSAGE,
) -> pika.BlockingConnection:
    """Connect to a broker.

    Args:
        parameters: of one broker, or of several that are tried in turn.
        keep: bytes of a received body to keep; a longer one arrives as `CutBody`.
        ceiling: a message announced with more bytes ends the connection.
    """
    bounded = type("BoundedConnection", (_BoundedConnection,), {"keep": keep, "ceiling": ceiling})
    return pika.BlockingConnection(parameters, _impl_class=bounded)  # type: ignore[arg-type]


def implementation(connection: pika.BlockingConnection) -> select_connection.SelectConnection:
    """The asynchronous connection inside a blocking one."""
    return connection._impl


def asynchronous(channel: blocking_connection.BlockingChannel) -> Channel:
    """The asynchronous channel inside a blocking one."""
    return channel._impl


def cut(connection: pika.BlockingConnection, error: Exception) -> None:
    """End the connection at once; calls in progress raise `error`. Call only from the thread that drives it."""
    impl = connection._impl
    if not impl.is_closed:
        impl._terminate_stream(error)


def drive(connection: pika.BlockingConnection, until: Callable[[], bool]) -> None:
    """Run the connection in this thread: read, write, heartbeats, callbacks. Returns when `until()` is true."""
    while not until():
        poll(connection)


def poll(connection: pika.BlockingConnection) -> None:
    """Wait for the next event or timer of the connection, and handle it."""
    loop = connection._impl.ioloop
    loop.poll()
    loop.process_timeouts()


def release(connection: pika.BlockingConnection) -> None:
    """Run the remaining callbacks of a closed connection, then release its poller and wake-up sockets."""
    loop = connection._impl.ioloop
    loop.process_timeouts()
    loop.deactivate_poller()
    loop.close()


def check_names() -> list[str]:
    """The names used here that this version of pika does not have."""
    missing = [f"{owner.__name__}.{name}" for owner, name in _NAMES if not hasattr(owner, name)]
    if "_impl_class" not in blocking_connection.BlockingConnection.__init__.__code__.co_varnames:
        missing.append("BlockingConnection(_impl_class=)")
    return missing
