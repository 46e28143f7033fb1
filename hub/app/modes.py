"""The parts that differ between modes and roles.

* Embedded (no `HUB_DATABASE_URL`): a private PostgreSQL under `HUB_HOME`; Dramatiq's in-process broker.
* Distributed: the given PostgreSQL and RabbitMQ, and any number of processes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from hub.hooks import Hooks
from hub.monitoring.prometheus_hooks import PrometheusHooks
from hub.pipeline.intake import Publisher
from hub.settings import Settings
from hub.store.database import Database
from hub.store.heartbeats import Heartbeats
from hub.store.ledger import Ledger
from hub.store.ordering import OrderingKeys
from hub.store.outbox import Outbox
from hub.tasks.broker import DISPATCH, Broker, HubBroker, InProcessBroker, SchedulerBroker
from hub.tasks.outbox_relay import OutboxRelay
from hub.tasks.publish import BrokerPublisher, NoPublisher

Role = Literal["up", "web", "worker", "scheduler", "exporter", "cli"]


def make_hooks(settings: Settings, role: Role) -> Hooks:
    """Metrics of this process. A command counts only where the metrics folder exists already."""
    if role == "cli" and not settings.metrics_folder.is_dir():
        return Hooks()
    return PrometheusHooks(settings.metrics_folder)


def make_broker(settings: Settings, role: Role, hooks: Hooks) -> Broker:
    """RabbitMQ where the settings name one, else Dramatiq's in-process broker."""
    if settings.broker_url is None:
        return InProcessBroker()
    kind = SchedulerBroker if role == "scheduler" else HubBroker
    return kind(settings.broker_url.get_secret_value(), report_rejected=hooks.message_rejected)


def make_publisher(
    settings: Settings,
    role: Role,
    broker: Broker,
    queues: Mapping[str, str],
    ledger: Ledger,
    outbox: Outbox,
    ordering: OrderingKeys,
) -> Publisher:
    """A process without RabbitMQ that runs no workers leaves tasks to the process that does."""
    if isinstance(broker, InProcessBroker) and role != "up":
        return NoPublisher()
    return BrokerPublisher(broker, queues[DISPATCH], ledger, outbox, ordering, queue_limit=settings.queue_limit)


def make_relay(
    settings: Settings,
    db: Database,
    outbox: Outbox,
    ordering: OrderingKeys,
    publisher: Publisher,
    broker: Broker,
    queues: Mapping[str, str],
    heartbeats: Heartbeats,
    hooks: Hooks,
) -> OutboxRelay | None:
    """The outbox relay; None in a process that does not publish."""
    if not isinstance(publisher, BrokerPublisher):
        return None
    return OutboxRelay(
        db,
        outbox,
        ordering,
        publisher,
        broker,
        queues[DISPATCH],
        heartbeats,
        hooks,
        queue_limit=settings.queue_limit,
        lease=settings.worker_lease,
        republish_after=settings.republish_after,
        park=settings.circuit_open == "park",
    )
