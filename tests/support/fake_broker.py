"""An AMQP broker that misbehaves: it announces a message of any size and sends as much of it as is read."""

from __future__ import annotations

import socket
import threading
from typing import Any

from pika import BasicProperties, amqp_object, frame, spec

_REPLIES: dict[type[amqp_object.Method], amqp_object.Method] = {
    spec.Channel.Open: spec.Channel.OpenOk(),
    spec.Queue.Declare: spec.Queue.DeclareOk("q", 1, 0),
    spec.Basic.Qos: spec.Basic.QosOk(),
    spec.Confirm.Select: spec.Confirm.SelectOk(),
    spec.Connection.Open: spec.Connection.OpenOk(),
    spec.Channel.Close: spec.Channel.CloseOk(),
    spec.Connection.Close: spec.Connection.CloseOk(),
}
_PART = b"x" * 100_000


class FakeBroker:
    """Answers one client after the other; a consumer is sent a message that announces `announced` bytes.

    Args:
        frame_size: length that the first body frame announces; None: an honest one.
    """

    def __init__(self, announced: int, *, frame_size: int | None = None) -> None:
        self.announced = announced
        self._frame_size = frame_size
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"amqp://127.0.0.1:{self._listener.getsockname()[1]}/"
        self.sent = 0
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> FakeBroker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client:
                try:
                    self._serve(client)
                except OSError:
                    pass

    def _serve(self, client: socket.socket) -> None:
        client.recv(8)
        capabilities = {"capabilities": {"publisher_confirms": True, "basic.nack": True}}
        self._send(client, 0, spec.Connection.Start(0, 9, capabilities, "PLAIN", "en_US"))
        buffer = b""
        while data := client.recv(65536):
            buffer += data
            while buffer:
                used, value = frame.decode_frame(buffer)
                if value is None:
                    break
                buffer = buffer[used:]
                if isinstance(value, frame.Method):
                    self._answer(client, value)

    def _answer(self, client: socket.socket, value: frame.Method[Any]) -> None:
        kind = type(value.method)
        if kind is spec.Connection.StartOk:
            self._send(client, 0, spec.Connection.Tune(2047, 131_072, 0))
        elif kind is spec.Basic.Consume:
            self._send(client, value.channel_number, spec.Basic.ConsumeOk(value.method.consumer_tag))
            self._flood(client, value.channel_number, value.method.consumer_tag)
        elif kind in _REPLIES:
            self._send(client, value.channel_number, _REPLIES[kind])

    def _flood(self, client: socket.socket, channel: int, tag: str) -> None:
        self._send(client, channel, spec.Basic.Deliver(tag, 1, False, "", "q"))
        client.sendall(frame.Header(channel, self.announced, BasicProperties()).marshal())
        if self._frame_size is not None:
            client.sendall(b"\x03" + channel.to_bytes(2, "big") + self._frame_size.to_bytes(4, "big"))
        part = _PART if self._frame_size is not None else frame.Body(channel, _PART).marshal()
        while self.sent < 400_000_000:
            client.sendall(part)
            self.sent += len(part)

    def _send(self, client: socket.socket, channel: int, method: amqp_object.Method) -> None:
        client.sendall(frame.Method(channel, method).marshal())
