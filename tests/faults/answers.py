"""A service that answers: numbered messages to its response queue, every seventh no JSON, and runs over that queue."""

from __future__ import annotations

import json
import threading

import pika
import pika.exceptions

from hub.app.lifecycle import Hub, build
from hub.errors import HubError
from hub.settings import Settings

QUEUE = "answers"
_EVERY, _RUNS_EVERY = 0.1, 2.0


def body_of(n: int) -> bytes:
    """What message `n` holds; what is no JSON must be kept as it came."""
    return b"\xff\x00no json %d" % n if n % 7 == 0 else json.dumps({"answer": n}).encode()


class Answers:
    """Publishes with confirms until stopped, and asks the workers for runs, as the scheduler does every minute.

    `confirmed` has the numbers that RabbitMQ took for certain; of others it may have taken some.
    """

    def __init__(self, url: str, settings: Settings, service_id: int) -> None:
        self.confirmed: set[int] = set()
        self._url = url
        self._settings = settings
        self._service = service_id
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=t, daemon=True) for t in (self._publish, self._ask)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop_publishing(self) -> None:
        self._stop.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(120)

    def _publish(self) -> None:
        n = 0
        while not self._stop.is_set():
            try:
                parameters = pika.URLParameters(self._url)
                parameters.blocked_connection_timeout = 2
                with pika.BlockingConnection(parameters) as connection:
                    channel = connection.channel()
                    channel.confirm_delivery()
                    channel.queue_declare(QUEUE, durable=True)
                    while not self._stop.wait(_EVERY):
                        n += 1
                        properties = pika.BasicProperties(delivery_mode=2, message_id=str(n))
                        channel.basic_publish("", QUEUE, body_of(n), properties, mandatory=True)
                        self.confirmed.add(n)
            except (pika.exceptions.AMQPError, OSError):
                self._stop.wait(0.3)

    def _ask(self) -> None:
        with build(self._settings, role="cli") as hub:
            while not self._stop.wait(_RUNS_EVERY):
                self._ask_for_a_run(hub)

    def ask_once(self) -> None:
        """One more run."""
        with build(self._settings, role="cli") as hub:
            self._ask_for_a_run(hub)

    def _ask_for_a_run(self, hub: Hub) -> None:
        try:
            hub.broker.publish(hub.actors.consume.message(self._service))
        except HubError:
            pass  # the broker is away: the next one
