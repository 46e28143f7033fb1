"""One scene more where there is a RabbitMQ: a request by AMQP, and the answer that comes back to it."""

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
from hub.demo.scenes import Scene
from hub.demo.stage import Stage
from hub.models import Event

EVENT = "demo.grade_requested"
_SERVICE = "grades-amqp"


class NoBroker(Exception):  # noqa: N818 - the demo goes on without this scene
    """RabbitMQ was named, and cannot be used."""


class Responder:
    """A service that answers: takes a message, replies to its `reply_to` with its `correlation_id`.

    Raises:
        NoBroker: it does not answer, or forbids to declare queues.
    """

    def __init__(self, url: str) -> None:
        self.requests = f"hub-demo-{uuid.uuid4().hex[:12]}"
        self.answers = f"{self.requests}.answers"
        self.seen: list[tuple[str | None, str | None]] = []
        parameters = pika.URLParameters(url)
        parameters.socket_timeout = parameters.stack_timeout = parameters.blocked_connection_timeout = 5
        parameters.connection_attempts = 1
        try:
            self._connection = pika.BlockingConnection(parameters)
            channel = self._connection.channel()
            for queue in (self.requests, self.answers):
                channel.queue_declare(queue, durable=True)
            channel.basic_consume(self.requests, self._answer)
        except (AMQPError, OSError) as e:
            raise NoBroker(str(e) or type(e).__name__) from None
        self._channel = channel
        self._thread = threading.Thread(target=channel.start_consuming, name="hub-demo-responder", daemon=True)
        self._thread.start()

    def _answer(self, channel: BlockingChannel, method: object, properties: pika.BasicProperties, body: bytes) -> None:
        self.seen.append((properties.correlation_id, properties.message_id))
        answer = {"grade": 8.5, "attempt": json.loads(body)["attempt"]}
        channel.basic_publish(
            "",
            properties.reply_to or "",
            json.dumps(answer).encode(),
            pika.BasicProperties(
                content_type="application/json",
                correlation_id=properties.correlation_id,
                message_id=uuid.uuid4().hex,
            ),
        )
        channel.basic_ack(method.delivery_tag)  # type: ignore[attr-defined]

    def close(self) -> None:
        """Delete the queues, close the connection."""

        def end() -> None:
            for queue in (self.requests, self.answers):
                self._channel.queue_delete(queue)
            self._channel.stop_consuming()

        self._connection.add_callback_threadsafe(end)
        self._thread.join(10)
        self._connection.close()


@contextmanager
def responder(url: str) -> Iterator[Responder]:
    """A responder, closed at the end."""
    it = Responder(url)
    try:
        yield it
    finally:
        it.close()


def round_trip(stage: Stage, scene: Scene, url: str, service: Responder) -> None:
    """Publish by a rule, read the response queue, find the answer at its task."""
    hub = stage.hub
    base = urlunsplit(urlsplit(url)._replace(query=f"queue_declare={service.requests}"))
    made = hub.registry.services.add(
        parse_spec(
            ServiceSpec,
            {
                "name": _SERVICE,
                "type": "amqp",
                "base_url": base,
                "response_queue": service.answers,
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
    task = stage.feed([Event(EVENT, {"attempt": 1207})])[0].tasks[0]
    sent = stage.until(lambda: stage.delivered(task), "waiting for the broker's confirm")
    stage.until(lambda: service.seen, "waiting for the service")
    # What the schedule does once a minute, now: one run over this service's response queue.
    hub.broker.publish(hub.actors.consume.message(made.id))
    answer = stage.until(
        lambda: next((row for row in stage.deliveries() if row["direction"] == "inbound"), None),
        "waiting for the response queue to be read",
    )
    scene.attempts = sent["attempt"]
    scene.check("the request was confirmed by the broker", sent["success"])
    scene.check("the service saw the task's id as correlation id", service.seen[0][0], str(task))
    scene.check("the answer is in the log, at the task that asked", answer["task_id"], task)
    scene.check("as it came", json.loads(answer["response_body"] or "null"), {"grade": 8.5, "attempt": 1207})
