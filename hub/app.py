"""The composition root: `build(settings)` puts the hub together. What differs between the modes differs here.

* Embedded (no `HUB_DATABASE_URL`): a private PostgreSQL under `HUB_HOME`; Dramatiq's in-process broker.
* Distributed: PostgreSQL and RabbitMQ as given; as many processes as wanted.
"""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Callable
from typing import Literal

import dramatiq
import structlog

from hub.dead_letters import DeadLetters
from hub.dispatch import Dispatcher
from hub.embedded import PrivatePostgres, load_or_create_key
from hub.errors import ConfigError
from hub.gateway import Gateway
from hub.hooks import Hooks
from hub.models import ServiceType
from hub.observer import HandOver, Observer
from hub.settings import Settings
from hub.store.admin import TaskAdmin
from hub.store.beats import Beats
from hub.store.breakers import Breakers
from hub.store.database import Database
from hub.store.flow import Flow
from hub.store.graves import Graves
from hub.store.intake import Intake
from hub.store.ledger import Ledger
from hub.store.log import DeliveryLog
from hub.store.migrate import migrate, pending
from hub.store.registry import Registry
from hub.store.releases import Releases
from hub.store.vault import Vault
from hub.store.views import Views
from hub.tasks.actors import register_dispatch
from hub.tasks.broker import DISPATCH, Broker, HubBroker, InProcessBroker, queue_names
from hub.tasks.bulkhead import Bulkhead
from hub.tasks.handover import BrokerHandOver, NoHandOver
from hub.tasks.lease import Lease
from hub.tasks.releaser import Releaser
from hub.tasks.retries import TaskRetries
from hub.transports.amqp import AmqpTransport
from hub.transports.rest import RestTransport
from hub.transports.soap import SoapTransport

log = structlog.get_logger("hub.app")
Role = Literal["up", "web", "worker", "scheduler", "exporter", "cli"]


class Hub:
    """All parts of one process, put together. Close it when done."""

    def __init__(
        self, settings: Settings, *, role: Role = "cli", hooks: Hooks | None = None, postgres: PrivatePostgres | None
    ) -> None:
        self.settings = settings
        self.role = role
        self.hooks = hooks or Hooks()
        self.instance = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._postgres = postgres
        url = settings.database_url.get_secret_value() if settings.database_url else postgres and postgres.start()
        assert url
        self.db = Database(url, size=settings.db_pool)
        self.db.open()
        self.vault = Vault(_keys(settings))
        self.registry = Registry(self.db, self.vault)
        self.beats = Beats(self.db, self.instance)
        self.ledger = Ledger(self.db, worker=self.instance, body_limit=settings.body_limit)
        self.releases = Releases(self.db, max_attempts=settings.max_attempts)
        self.log = DeliveryLog(self.db, body_limit=settings.body_limit)
        self.views = Views(self.db)
        self.admin = TaskAdmin(self.db)
        self.breakers = Breakers(self.db, self.hooks)
        self.lease = Lease(self.ledger, self.beats, seconds=settings.worker_lease)
        self.gateway = Gateway(
            {
                ServiceType.REST: RestTransport(settings),
                ServiceType.AMQP: AmqpTransport(settings),
                ServiceType.SOAP: SoapTransport(settings),
            },
            self.breakers,
            Flow(self.db),
            self.hooks,
            lease=self.lease.check if role in ("up", "worker") else lambda: None,
        )
        graves = Graves(self.db, max_age=settings.task_max_age)
        self.dead_letters = DeadLetters(self.ledger, graves, self.hooks)
        self.dispatcher = Dispatcher(
            self.registry, self.ledger, self.gateway, self.hooks, circuit_open=settings.circuit_open
        )
        self.retries = TaskRetries(settings, self.ledger, self.dead_letters, self.hooks)
        self.bulkhead = Bulkhead(settings.threads)
        self.broker = self._make_broker()
        self.broker.add_middleware(dramatiq.middleware.AgeLimit())
        self.broker.add_middleware(self.retries)
        self.queues = queue_names(settings.queue_prefix)
        register_dispatch(self.broker, settings.queue_prefix, self.dispatcher, self.retries, self.bulkhead)
        self.handover: HandOver = self._make_handover()
        self.observer = Observer(
            self.registry,
            Intake(self.db, max_age=settings.task_max_age),
            self.handover,
            self.hooks,
            event_limit=settings.event_limit,
        )
        self.releaser = self._make_releaser()
        self._closing: list[Callable[[], None]] = []

    def _make_broker(self) -> Broker:
        url = self.settings.broker_url
        return HubBroker(url.get_secret_value()) if url else InProcessBroker()

    def _make_handover(self) -> HandOver:
        """A process without RabbitMQ that runs no workers leaves tasks to the process that does."""
        if isinstance(self.broker, InProcessBroker) and self.role != "up":
            return NoHandOver()
        return BrokerHandOver(
            self.broker, self.queues[DISPATCH], self.ledger, self.releases, window=self.settings.window
        )

    def _make_releaser(self) -> Releaser | None:
        if not isinstance(self.handover, BrokerHandOver):
            return None
        s = self.settings
        return Releaser(
            self.db, self.releases, self.handover, self.broker, self.queues[DISPATCH], self.beats, self.hooks,
            window=s.window, lease=s.worker_lease, grace=s.stray_grace,
        )  # fmt: skip

    def start_worker(self, threads: int) -> None:
        """Begin to live as a worker: lease, configuration changes, releaser. The caller runs Dramatiq."""
        self.bulkhead.threads = threads
        self.registry.listen()
        self.lease.start()
        if self.releaser is not None:
            self.releaser.start()

    def stop_worker(self) -> None:
        """Stop what `start_worker` began; tasks that waited in memory go back to the ledger."""
        if self.releaser is not None:
            self.releaser.stop()
        waiting = self.bulkhead.close()
        if waiting:
            self.ledger.unhand(waiting)

    def on_close(self, act: Callable[[], None]) -> None:
        """Run `act` when the hub is closed."""
        self._closing.append(act)

    def close(self) -> None:
        """Stop threads, close connections, and end the private database if nobody else uses it."""
        for act in reversed(self._closing):
            act()
        self.ledger.stop()
        self.registry.close()
        self.lease.stop()
        self.gateway.close()
        try:
            self.broker.close()
        except Exception:
            log.debug("broker not closed", exc_info=True)
        self.db.close()
        if self._postgres is not None:
            self._postgres.stop()

    def __enter__(self) -> Hub:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _keys(settings: Settings) -> list[str]:
    if settings.secret_keys:
        return [key.strip() for key in settings.secret_keys.get_secret_value().split(",") if key.strip()]
    return [load_or_create_key(settings.home)]


def build(settings: Settings, *, role: Role = "cli", hooks: Hooks | None = None, check: bool = True) -> Hub:
    """Put a hub together.

    Args:
        role: what this process is.
        check: whether the database's schema is checked (an empty one is made).

    Raises:
        ConfigError: a setting is wrong, or the database needs `hub migrate`.
        UnavailableError: the database does not answer.
    """
    postgres = PrivatePostgres(settings.home) if settings.embedded else None
    hub = Hub(settings, role=role, hooks=hooks, postgres=postgres)
    if not check:
        return hub
    try:
        missing = pending(hub.db)
        fresh = hub.db.one("SELECT to_regclass('hub_migrations') AS t")
        if missing and (settings.embedded or not (fresh and fresh["t"])):
            migrate(hub.db)
        elif missing:
            raise ConfigError(f"the database lacks {len(missing)} migration(s), first {missing[0]}: run `hub migrate`")
    except BaseException:
        hub.close()
        raise
    return hub
