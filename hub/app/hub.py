"""One process of the hub, composed of its parts. `hub.app.modes` chooses the parts that depend on the mode."""

from __future__ import annotations

import os
import socket
import threading
import uuid
from collections.abc import Callable

from hub.app import modes
from hub.app.keys import vault_keys
from hub.app.lifetime import Lifetime
from hub.app.modes import Role
from hub.app.sources import make_lookups
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
from hub.pipeline.attempts import AttemptRecorder
from hub.pipeline.byte_budget import ByteBudget
from hub.pipeline.dead_letters import DeadLetters
from hub.pipeline.dispatch import Dispatcher
from hub.pipeline.gateway import Gateway
from hub.pipeline.intake import Intake, Publisher
from hub.pipeline.operator_events import OperatorEvents
from hub.scheduling.backfill import BackfillRunner
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
from hub.store.backfill_steps import BackfillSteps
from hub.store.backfills import BackfillStore
from hub.store.breakers import Breakers
from hub.store.clock import Clock
from hub.store.database import Database
from hub.store.dead_letters import DeadLetterStore
from hub.store.delivery_log import DeliveryLog
from hub.store.erasures import ErasureStore
from hub.store.heartbeats import Heartbeats
from hub.store.housekeeping import Housekeeping
from hub.store.intake import IntakeStore
from hub.store.leases import Leases
from hub.store.ledger import Ledger
from hub.store.notices import Notices
from hub.store.ordering import OrderingKeys
from hub.store.outbox import Outbox
from hub.store.rate_limits import RateLimits
from hub.store.registry import Registry
from hub.store.resends import ResendStore
from hub.store.responses import Responses
from hub.store.run_log import RunLog
from hub.store.schedules import Schedules
from hub.store.task_admin import TaskAdmin
from hub.store.vault import Vault
from hub.store.views import Views
from hub.store.views.activity import Activity
from hub.store.watch import ServerWatch
from hub.tasks.actors import register
from hub.tasks.broker import (
    queue_names,
)
from hub.tasks.bulkhead import Bulkhead
from hub.tasks.enqueue import Enqueuer
from hub.tasks.lease import Lease
from hub.tasks.publish import BrokerPublisher
from hub.tasks.retries import TaskRetries
from hub.transports.amqp.transport import AmqpTransport
from hub.transports.rest import RestTransport
from hub.transports.smtp.transport import SmtpTransport
from hub.transports.soap.transport import SoapTransport


class Hub:
    """One process of the hub: its parts, put together. Close it when done.

    Nothing runs before `start_worker` or `start_heartbeat` is called.
    """

    def __init__(
        self, settings: Settings, *, role: Role = "cli", hooks: Hooks | None = None, postgres: PrivatePostgres | None
    ) -> None:
        self.settings = settings
        self.role = role
        self.hooks = hooks or modes.make_hooks(settings, role)
        self.instance = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self.vault = Vault(vault_keys(settings))  # a wrong setting is found before anything is opened
        self.broker = modes.make_broker(settings, role, self.hooks)
        self.postgres = postgres
        url = settings.database_url.get_secret_value() if settings.database_url else postgres and postgres.start()
        assert url
        self.db = Database(url, direct_url=settings.direct_url, size=settings.db_pool)
        self.db.open()
        self.watch = ServerWatch(self.db.servers, self.db.connections, self.db.choose_servers)
        self.clock = Clock(self.db)
        self.registry = Registry(self.db, self.vault)
        self.configuration = self.registry.configuration
        self.heartbeats = Heartbeats(self.db, self.instance)
        self.ledger = Ledger(self.db, worker=self.instance, body_limit=settings.body_limit)
        self.ordering = OrderingKeys(self.db)
        self.outbox = Outbox(self.db, max_attempts=settings.max_attempts)
        self.log = DeliveryLog(self.db, body_limit=settings.body_limit)
        self.views = Views(
            self.db,
            max_attempts=settings.max_attempts,
            queue_limit=settings.queue_limit,
            park=settings.circuit_open == "park",
        )
        self.resends = ResendStore(self.db, max_age=settings.task_max_age)
        self.erasures = ErasureStore(self.db)
        self.backfills = BackfillStore(self.db)
        self.backfill_steps = BackfillSteps(self.db, max_age=settings.task_max_age)
        self.backfill_runner = BackfillRunner(self.backfill_steps, self.configuration.rule_by_id)
        self.admin = TaskAdmin(self.db)
        self.accounts = Accounts(self.db, self.hooks)
        self.audit = AuditLog(self.db)
        self.activity = Activity(self.db, self.clock, self.views.deliveries)
        self.breakers = Breakers(self.db, self.hooks)
        self.response_breakers = Breakers(self.db, self.hooks, "responses")
        self.lease = Lease(Leases(self.db, self.instance), seconds=settings.worker_lease)
        self.amqp = AmqpTransport(settings)
        self.gateway = Gateway(
            {
                ServiceType.REST: RestTransport(settings),
                ServiceType.AMQP: self.amqp,
                ServiceType.SOAP: SoapTransport(settings),
                ServiceType.SMTP: SmtpTransport(settings),
            },
            self.breakers,
            RateLimits(self.db),
            self.hooks,
            now=self.clock.now,
            lease=self.lease.check,
            responses=self.response_breakers,
        )
        store = DeadLetterStore(self.db, max_age=settings.task_max_age)
        self.dead_letters = DeadLetters(self.ledger, store, self.hooks)
        self.lookups = make_lookups(self)
        self.dispatcher = Dispatcher(
            self.configuration,
            self.ledger,
            self.gateway,
            self.hooks,
            settings=settings,
            now=self.clock.now,
            budget=ByteBudget(settings.bodies_in_flight),
            lookups=self.lookups,
            wait=role not in ("up", "worker"),
        )
        self.attempts = AttemptRecorder(settings, self.ledger, self.dead_letters, self.hooks)
        self.retries = TaskRetries(self.attempts)
        self.bulkhead = Bulkhead(settings.threads)
        self.broker.add_middleware(self.retries)
        self.queues = queue_names(settings.queue_prefix)
        self.publisher: Publisher = modes.make_publisher(
            settings, role, self.broker, self.queues, self.ledger, self.outbox, self.ordering
        )
        self.enqueuer = Enqueuer(self.publisher) if isinstance(self.publisher, BrokerPublisher) else None
        self.intake = Intake(
            self.configuration,
            IntakeStore(self.db, max_age=settings.task_max_age),
            self.enqueuer or self.publisher,
            self.hooks,
            event_limit=settings.event_limit,
            search_paths=settings.search_keys,
            keep_unmatched=settings.keep_unmatched,
        )
        self.relay = modes.make_relay(
            settings,
            self.db,
            self.outbox,
            self.ordering,
            self.publisher,
            self.broker,
            self.queues,
            self.heartbeats,
            self.hooks,
        )
        self.notices = Notices(self.db, window=settings.operator_event_window)
        self.operator_events = OperatorEvents(self.db, self.notices, self.intake, self.configuration.services)
        self.stopping = threading.Event()
        self.schedules = Schedules(self.db, claimed_by=self.instance)
        self.schedule = Schedule(self.schedules, settings.timezone, now=self.clock.read)
        self.runs = RunLog(self.db)
        self.consumer = ResponseConsumer(
            Responses(self.db),
            self.runs,
            self.schedules,
            settings,
            self.hooks,
            emit=through(self.intake),
            wanted=lambda: wanted_by(self.configuration.rules()),
            stopping=self.stopping.is_set,
            execute=self.gateway.execute_consumption,
            log=self.log.add,
        )
        self.housekeeping = HousekeepingTask(
            Housekeeping(self.db),
            self.runs,
            self.schedules,
            retention=settings.log_retention,
            event_retention=settings.event_retention,
            audit_retention=settings.audit_retention,
            now=self.clock.read,
            stopping=self.stopping.is_set,
        )
        self._lifetime = Lifetime(self)
        self.actors = register(
            self.broker,
            self.queues,
            dispatcher=self.dispatcher,
            retries=self.retries,
            bulkhead=self.bulkhead,
            consume=self.consume,
            run_housekeeping=self.housekeeping.run,
            tick=self.tick,
        )

    def consume(self, service_id: int) -> RunResult | None:
        """One run over a service's response queue; None: it has none, is disabled, or does not exist."""
        service: Service | None = self.configuration.service_by_id(service_id)
        return self.consumer.consume(service) if service and response_services([service]) else None

    def service_type(self, name: str) -> ServiceType:
        """The type of the service of that name; REST for a service that does not exist."""
        return next((s.type for s in self.configuration.services() if s.name == name), ServiceType.REST)

    def tick(self) -> list[Due]:
        """Launch the scheduled tasks that are due in this minute, unless another process has claimed it."""
        self.operator_events.step()  # where no web process runs
        return run_due(
            self.schedule,
            {
                CONSUME_TASK: lambda: fan_out(
                    self.configuration.services(),
                    lambda service_id: self.broker.publish(self.actors.consume.message(service_id)),
                ),
                HOUSEKEEPING: lambda: self.broker.publish(self.actors.housekeeping.message()),
            },
        )

    def heartbeat(self, component: str) -> None:
        """Record one heartbeat of this process as `component`."""
        self._lifetime.heartbeat(component)

    def start_heartbeat(self, component: str) -> None:
        """Record heartbeats as `component` (worker, scheduler, web) until the hub is closed."""
        self._lifetime.start_heartbeat(component)

    def start_worker(self, threads: int) -> None:
        """Start the lease, the listener for configuration changes, and the relay. The caller runs Dramatiq."""
        self._lifetime.start_worker(threads)

    def start_sources(self) -> None:
        """Read event sources in threads until the hub is closed."""
        self._lifetime.start_sources()

    def stop_worker(self) -> None:
        """Stop what `start_worker` started; tasks that wait in memory are released."""
        self._lifetime.stop_worker()

    def on_close(self, act: Callable[[], None]) -> None:
        """Run `act` when the hub is closed."""
        self._lifetime.on_close(act)

    def close(self) -> None:
        """Stop threads, close connections, and end the private database if no other process uses it."""
        self._lifetime.close()

    def __enter__(self) -> Hub:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
