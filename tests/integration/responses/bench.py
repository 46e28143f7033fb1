"""A response consumer on real servers, and what it stored."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pika

from hub.config.definitions import ServiceSpec, parse_spec
from hub.hooks import Hooks
from hub.inbound.consumer import ResponseConsumer
from hub.inbound.events import through, wanted_by
from hub.models import Service
from hub.pipeline.intake import Intake
from hub.settings import Settings
from hub.store.database import Database, Row
from hub.store.intake import IntakeStore
from hub.store.registry import Registry
from hub.store.responses import Responses
from hub.store.run_log import RunLog
from hub.store.schedules import Schedules


class Recorded:
    """A publisher that records tasks instead of publishing them."""

    def __init__(self) -> None:
        self.tasks: list[tuple[int, int]] = []

    def admits(self, *_: Any) -> bool:
        return True

    def publish(self, tasks: Any) -> None:
        self.tasks += tasks

    def open_keys(self, keys: Any) -> None:
        """The bench has no rules with an ordering key."""


class Counts(Hooks):
    """Adds up what is reported."""

    def __init__(self) -> None:
        self.runs: list[tuple[str, str]] = []
        self.messages: dict[str, int] = {}
        self.accepted: dict[str, int] = {}

    def consumer_run(self, service: str, outcome: str, seconds: float) -> None:
        self.runs.append((service, outcome))

    def consumer_messages(self, service: str, outcome: str, count: int) -> None:
        self.messages[outcome] = self.messages.get(outcome, 0) + count

    def event_accepted(self, result: str, count: int = 1) -> None:
        self.accepted[result] = self.accepted.get(result, 0) + count


@dataclass
class Bench:
    """A hub's inbound side and one service, `erp`, with a response queue."""

    settings: Settings
    db: Database
    url: str
    queue: str
    registry: Registry
    hooks: Counts = field(default_factory=Counts)
    enqueued: Recorded = field(default_factory=Recorded)

    def intake(self) -> Intake:
        return Intake(
            self.registry.configuration,
            IntakeStore(self.db, max_age=3600),
            self.enqueued,
            self.hooks,
            event_limit=self.settings.event_limit,
        )

    def consumer(self, emit: Any = None, **options: Any) -> ResponseConsumer:
        settings = self.settings.model_copy(update=options)
        return ResponseConsumer(
            Responses(self.db),
            RunLog(self.db),
            Schedules(self.db, claimed_by="t"),
            settings,
            self.hooks,
            emit=emit or through(self.intake()),
            wanted=lambda: bool(emit) or wanted_by(self.registry.configuration.rules()),
        )

    def service(self, name: str = "erp", queue: str | None = None, url: str | None = None) -> Service:
        spec: ServiceSpec = parse_spec(
            ServiceSpec,
            {"name": name, "type": "amqp", "base_url": url or self.url, "response_queue": queue or self.queue},
        )
        return self.registry.services.add(spec)

    def publish(self, *bodies: bytes | str, queue: str | None = None, **properties: Any) -> None:
        self.send([(b, pika.BasicProperties(**properties)) for b in bodies], queue)

    def send(self, messages: list[tuple[bytes | str, pika.BasicProperties]], queue: str | None = None) -> None:
        with pika.BlockingConnection(pika.URLParameters(self.url)) as connection:
            channel = connection.channel()
            channel.queue_declare(queue or self.queue, durable=True)
            channel.confirm_delivery()
            for body, properties in messages:
                raw = body if isinstance(body, bytes) else body.encode()
                channel.basic_publish("", queue or self.queue, raw, properties)

    def left(self, queue: str | None = None) -> int:
        with pika.BlockingConnection(pika.URLParameters(self.url)) as connection:
            return int(connection.channel().queue_declare(queue or self.queue, passive=True).method.message_count)

    def rows(self) -> list[Row]:
        return self.db.all("SELECT * FROM deliveries WHERE direction = 'inbound' ORDER BY id")

    def bodies(self) -> list[str | None]:
        return [row["response_body"] for row in self.rows()]

    def state(self, service: Service) -> Row:
        row = self.db.one("SELECT * FROM consumer_state WHERE service_id = %s", [service.id])
        assert row is not None
        return row
