"""The parts of one process, put together. What differs between the modes differs here.

* Embedded (no `HUB_DATABASE_URL`): a private PostgreSQL under `HUB_HOME`; Dramatiq's in-process broker.
* Distributed: PostgreSQL and RabbitMQ as given; as many processes as wanted.
"""

from __future__ import annotations

import os
import socket
import threading
import uuid
from typing import Literal

from hub.app.keys import vault_keys
from hub.embedded import PrivatePostgres
from hub.hooks import Hooks
from hub.inbound.consumer import (
    ResponseConsumer,
    RunResult,
    fan_out,
    response_services,
)
from hub.inbound.events import through, wanted_by
from hub.models import Service, ServiceType
from hub.monitoring.prometheus_hooks import PrometheusHooks
from hub.pipeline.attempts import AttemptRecorder
from hub.pipeline.byte_budget import ByteBudget
from hub.pipeline.dead_letters import DeadLetters
from hub.pipeline.dispatch import Dispatcher
from hub.pipeline.gateway import Gateway
from hub.pipeline.intake import Intake, Publisher
from hub.scheduling.housekeeping import HousekeepingTask
from hub.scheduling.schedule import CONSUME as CONSUME_TASK
from hub.scheduling.schedule import (
    HOUSEKEEPING,
    Due,
    Schedule,
    run_due,
)
from hub.settings import Settings
from hub.store.accounts import Accounts
from hub.store.audit import AuditLog
from hub.store.breakers import Breakers
from hub.store.clock import Clock
from hub.store.database import Database
from hub.store.dead_letters import Graves
from hub.store.delivery_log import DeliveryLog
from hub.store.heartbeats import Beats
from hub.store.housekeeping import Housekeeping
from hub.store.intake import IntakeStore
from hub.store.ledger import Ledger
from hub.store.outbox import Releases
from hub.store.rate_limits import Flow
from hub.store.registry import Registry
from hub.store.responses import Responses
from hub.store.run_log import RunLog
from hub.store.schedules import Schedules
from hub.store.statistics import Activity
from hub.store.task_admin import TaskAdmin
from hub.store.vault import Vault
from hub.store.views import Views
from hub.tasks.actors import register
from hub.tasks.broker import (
    DISPATCH,
    Broker,
    HubBroker,
    InProcessBroker,
    SchedulerBroker,
    queue_names,
)
from hub.tasks.bulkhead import Bulkhead
from hub.tasks.enqueue import Enqueuer
from hub.tasks.lease import Lease
from hub.tasks.outbox_relay import OutboxRelay
from hub.tasks.publish import BrokerPublisher, NoPublisher
from hub.tasks.retries import TaskRetries
from hub.transports.amqp.transport import AmqpTransport
from hub.transports.rest import RestTransport
from hub.transports.smtp.transport import SmtpTransport
from hub.transports.soap.transport import SoapTransport

Role = Literal["up", "web", "worker", "scheduler", "exporter", "cli"]


class Parts:
    """Everything a process of the hub is made of. Nothing runs yet."""

    def __init__(
        self, settings: Settings, *, role: Role = "cli", hooks: Hooks | None = None, postgres: PrivatePostgres | None
    ) -> None:
        self.settings = settings
        self.role = role
        self.hooks = hooks or _hooks(settings, role)
        self.instance = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self.vault = Vault(vault_keys(settings))  # what may be wrong in the settings comes before what must be closed
        self.broker = self._make_broker()
        self._postgres = postgres
        url = settings.database_url.get_secret_value() if settings.database_url else postgres and postgres.start()
        assert url
        self.db = Database(url, size=settings.db_pool)
        self.db.open()
        self.clock = Clock(self.db)
        self.registry = Registry(self.db, self.vault)
        self.heartbeats = Beats(self.db, self.instance)
        self.ledger = Ledger(self.db, worker=self.instance, body_limit=settings.body_limit)
        self.releases = Releases(self.db, max_attempts=settings.max_attempts)
        self.log = DeliveryLog(self.db, body_limit=settings.body_limit)
        self.views = Views(self.db)
        self.admin = TaskAdmin(self.db)
        self.accounts = Accounts(self.db, self.hooks)
        self.audit = AuditLog(self.db)
        self.activity = Activity(self.db, self.clock)
        self.breakers = Breakers(self.db, self.hooks)
        self.response_breakers = Breakers(self.db, self.hooks, "responses")
        self.lease = Lease(self.ledger, seconds=settings.worker_lease)
        self.amqp = AmqpTransport(settings)
        self.gateway = Gateway(
            {
                ServiceType.REST: RestTransport(settings),
                ServiceType.AMQP: self.amqp,
                ServiceType.SOAP: SoapTransport(settings),
                ServiceType.SMTP: SmtpTransport(settings),
            },
            self.breakers,
            Flow(self.db),
            self.hooks,
            now=self.clock.now,
            lease=self.lease.check,
            responses=self.response_breakers,
        )
        graves = Graves(self.db, max_age=settings.task_max_age)
        self.dead_letters = DeadLetters(self.ledger, graves, self.hooks)
        self.dispatcher = Dispatcher(
            self.registry,
            self.ledger,
            self.gateway,
            self.hooks,
            settings=settings,
            now=self.clock.now,
            budget=ByteBudget(settings.bodies_in_flight),
            wait=role not in ("up", "worker"),
        )
        self.attempts = AttemptRecorder(settings, self.ledger, self.dead_letters, self.hooks)
        self.retries = TaskRetries(self.attempts)
        self.bulkhead = Bulkhead(settings.threads)
        self.broker.add_middleware(self.retries)
        self.queues = queue_names(settings.queue_prefix)
        self.publisher: Publisher = self._make_publisher()
        self.enqueuer = Enqueuer(self.publisher) if isinstance(self.publisher, BrokerPublisher) else None
        self.intake = Intake(
            self.registry,
            IntakeStore(self.db, max_age=settings.task_max_age),
            self.enqueuer or self.publisher,
            self.hooks,
            event_limit=settings.event_limit,
        )
        self.relay = self._make_relay()
        self.stopping = threading.Event()
        self.schedules = Schedules(self.db, claimed_by=self.instance)
        self.schedule = Schedule(self.schedules, settings.timezone, now=self.clock.read)
        self.runs = RunLog(self.db)
        self.consumer = ResponseConsumer(
            Responses(self.db), self.runs, self.schedules, settings, self.hooks,
            emit=through(self.intake), wanted=lambda: wanted_by(self.registry.rules()),
            stopping=self.stopping.is_set, execute=self.gateway.execute_consumption, log=self.log.add,
        )  # fmt: skip
        self.housekeeping = HousekeepingTask(
            Housekeeping(self.db), self.runs, self.schedules,
            retention=settings.log_retention, audit_retention=settings.audit_retention,
            now=self.clock.read, stopping=self.stopping.is_set,
        )  # fmt: skip
        self.actors = register(
            self.broker, self.queues, dispatcher=self.dispatcher, retries=self.retries, bulkhead=self.bulkhead,
            consume=self.consume, run_housekeeping=self.housekeeping.run, tick=self.tick,
        )  # fmt: skip

    def _make_broker(self) -> Broker:
        url = self.settings.broker_url
        if url is None:
            return InProcessBroker()
        kind = SchedulerBroker if self.role == "scheduler" else HubBroker
        return kind(url.get_secret_value(), report_rejected=self.hooks.message_rejected)

    def _make_publisher(self) -> Publisher:
        """A process without RabbitMQ that runs no workers leaves tasks to the process that does."""
        if isinstance(self.broker, InProcessBroker) and self.role != "up":
            return NoPublisher()
        return BrokerPublisher(
            self.broker, self.queues[DISPATCH], self.ledger, self.releases, window=self.settings.queue_limit
        )

    def _make_relay(self) -> OutboxRelay | None:
        if not isinstance(self.publisher, BrokerPublisher):
            return None
        s = self.settings
        return OutboxRelay(
            self.db, self.releases, self.publisher, self.broker, self.queues[DISPATCH], self.heartbeats, self.hooks,
            window=s.queue_limit, lease=s.worker_lease, grace=s.republish_after, park=s.circuit_open == "park",
        )  # fmt: skip

    def consume(self, service_id: int) -> RunResult | None:
        """One run over a service's response queue; None: it has none, or is disabled or gone."""
        service: Service | None = self.registry.service_by_id(service_id)
        return self.consumer.consume(service) if service and response_services([service]) else None

    def service_type(self, name: str) -> ServiceType:
        """The type of the service of that name; REST for a service that does not exist."""
        return next((s.type for s in self.registry.services() if s.name == name), ServiceType.REST)

    def tick(self) -> list[Due]:
        """Start what the schedule says is due in this minute, if nobody else has."""
        return run_due(
            self.schedule,
            {
                CONSUME_TASK: lambda: fan_out(
                    self.registry.services(),
                    lambda service_id: self.broker.publish(self.actors.consume.message(service_id)),
                ),
                HOUSEKEEPING: lambda: self.broker.publish(self.actors.housekeeping.message()),
            },
        )


def _hooks(settings: Settings, role: Role) -> Hooks:
    """A command counts where a hub counts already; it makes no folder of its own."""
    if role == "cli" and not settings.metrics_folder.is_dir():
        return Hooks()
    return PrometheusHooks(settings.metrics_folder)
