"""The scenario that needs RabbitMQ: a request by AMQP and its response from a response queue."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError

from hub.config.definitions import RuleSpec, ServiceSpec, parse_spec
from hub.demo.environment import Environment
from hub.demo.scenarios import Scenario
from hub.models import Event

EVENT = "demo.grade_requested"
_SERVICE = "grades-amqp"


class NoBroker(Exception):  # noqa: N818 - the demo continues without this scenario
    """The broker cannot be used."""


class Responder:
    """A service that consumes messages and publishes responses to `reply_to` with the same `correlation_id`.

    Raises:
        NoBroker: the broker is unreachable or refuses to declare queues.
    """

    def __init__(self, url: str) -> None:
        self.requests = f"hub-demo-{uuid.uuid4().hex[:12]}"
        self.responses = f"{self.requests}.responses"
        self.seen: list[tuple[str | None, str | None]] = []
        parameters = pika.URLParameters(url)
        parameters.socket_timeout = parameters.stack_timeout = parameters.blocked_connection_timeout = 5
        parameters.connection_attempts = 1
        try:
            self._connection = pika.BlockingConnection(parameters)
            channel = self._connection.channel()
            for queue in (self.requests, self.responses):
                channel.queue_declare(queue, durable=True)
            channel.basic_consume(self.requests, self._respond)
        except (AMQPError, OSError) as e:
            raise NoBroker(str(e) or type(e).__name__) from None
        self._channel = channel
        self._thread = threading.Thread(target=channel.start_consuming, name="hub-demo-responder", daemon=True)
        self._thread.start()

    def _respond(self, channel: BlockingChannel, method: object, properties: pika.BasicProperties, body: bytes) -> None:
        self.seen.append((properties.correlation_id, properties.message_id))
        response = {"grade": 8.5, "attempt": json.loads(body)["attempt"]}
        channel.basic_publish(
            "",
            properties.reply_to or "",
            json.dumps(response).encode(),
            pika.BasicProperties(
                content_type="application/json",
                correlation_id=properties.correlation_id,
                message_id=uuid.uuid4().hex,
            ),
        )
        channel.basic_ack(method.delivery_tag)  # type: ignore[attr-defined]

    def close(self) -> None:
        """Delete the queues and close the connection."""

        def end() -> None:
            for queue in (self.requests, self.responses):
                self._channel.queue_delete(queue)
            self._channel.stop_consuming()

        self._connection.add_callback_threadsafe(end)
        self._thread.join(10)
        self._connection.close()


@contextmanager
def responder(url: str) -> Iterator[Responder]:
    """A responder that is closed at the end."""
    it = Responder(url)
    try:
        yield it
    finally:
        it.close()


def round_trip(env: Environment, scenario: Scenario, url: str, service: Responder) -> None:
    """Publish by a rule, read the response queue, and find the response at its task."""
    hub = env.hub
    base = urlunsplit(urlsplit(url)._replace(query=f"queue_declare={service.requests}"))
    made = hub.registry.services.add(
        parse_spec(
            ServiceSpec,
            {
                "name": _SERVICE,
                "type": "amqp",
                "base_url": base,
                "response_queue": service.responses,
            },
        )
    )
    hub.registry.rules.add(
        parse_spec(
            RuleSpec,
            {
                "name": "grade-requests",
                "event": EVENT,
                "service": _SERVICE,
                "payload": {"attempt": "{{attempt}}"},
            },
        )
    )
    task = env.feed([Event(EVENT, {"attempt": 1207})])[0].tasks[0]
    sent = env.until(lambda: env.delivered(task), "waiting for the broker's confirm")
    env.until(lambda: service.seen, "waiting for the service")
    # The schedule does this once a minute: one run over the response queue of this service.
    hub.broker.publish(hub.actors.consume.message(made.id))
    response = env.until(
        lambda: next((row for row in env.deliveries() if row["direction"] == "inbound"), None),
        "waiting for the response queue to be read",
    )
    scenario.attempts = sent["attempt"]
    scenario.check("the request was confirmed by the broker", sent["success"])
    scenario.check("the service saw the task's id as correlation id", service.seen[0][0], str(task))
    scenario.check("the response is in the log, at its task", response["task_id"], task)
    scenario.check(
        "the response is complete", json.loads(response["response_body"] or "null"), {"grade": 8.5, "attempt": 1207}
    )
