"""The composition root: `build(settings)` makes a hub of its parts, and here is how it lives and ends."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import structlog

from hub.app.parts import Parts, Role
from hub.app.records import check_schema
from hub.embedded import PrivatePostgres
from hub.errors import HubError
from hub.hooks import Hooks
from hub.monitoring.prometheus_hooks import PrometheusHooks
from hub.settings import Settings
from hub.tasks.heartbeat import Heartbeat

log = structlog.get_logger("hub.app.lifecycle")
_ENQUEUE = 2.0  # seconds that accepted tasks have to reach the broker when a process ends
_FLUSH = 10.0  # seconds that successes have to reach the ledger when a process ends


class Hub(Parts):
    """One process of the hub. Close it when done."""

    def __init__(
        self, settings: Settings, *, role: Role = "cli", hooks: Hooks | None = None, postgres: PrivatePostgres | None
    ) -> None:
        super().__init__(settings, role=role, hooks=hooks, postgres=postgres)
        self._heartbeats: dict[str, Heartbeat] = {}
        self._closing: list[Callable[[], None]] = []

    def heartbeat(self, component: str) -> None:
        """One sign of life of this process as `component`; says how busy its database pool is, and reads the clock."""
        self.hooks.pool(self.role, *self.db.usage())
        self.heartbeats.beat(component)
        self.clock.sync()

    def start_heartbeat(self, component: str) -> None:
        """Report signs of life of this process as `component` (worker, scheduler, web)."""

        heartbeat = Heartbeat(partial(self.heartbeat, component))
        heartbeat.start()
        self._heartbeats[component] = heartbeat

    def start_worker(self, threads: int) -> None:
        """Begin to live as a worker: lease, configuration changes, releaser. The caller runs Dramatiq."""
        self.bulkhead.threads = threads
        self.registry.listen()
        self.lease.start()
        self.start_heartbeat("worker")
        if self.relay is not None:
            self.relay.start()

    def stop_worker(self) -> None:
        """Stop what `start_worker` began; tasks that waited in memory go back to the ledger."""
        self.stopping.set()
        if self.relay is not None:
            self.relay.stop()
        self.ledger.drain()
        waiting = self.bulkhead.close()
        if waiting:
            try:
                self.ledger.unhand(waiting)
            except HubError as e:
                log.warning("tasks will be found as strays", count=len(waiting), error=str(e))

    def on_close(self, act: Callable[[], None]) -> None:
        """Run `act` when the hub is closed."""
        self._closing.append(act)

    def close(self) -> None:
        """Stop threads, close connections, and end the private database if nobody else uses it."""
        for act in reversed(self._closing):
            act()
        self.stopping.set()
        if self.enqueuer is not None:
            self.enqueuer.close(_ENQUEUE)
        for component, heartbeat in self._heartbeats.items():
            heartbeat.stop()
            try:
                self.heartbeats.leave(component)
            except HubError:
                pass  # it ends by itself, a minute later
        self.ledger.flush(_FLUSH)
        self.ledger.stop()
        self.registry.close()
        self.lease.stop()
        self.gateway.close()
        try:
            self.broker.close()
        except Exception:
            log.debug("broker not closed", exc_info=True)
        if self.enqueuer is not None:
            self.enqueuer.join(_ENQUEUE)  # a publish that hung has failed with its connection
        self.db.close()
        if isinstance(self.hooks, PrometheusHooks):
            self.hooks.close()
        if self._postgres is not None:
            self._postgres.stop()

    def __enter__(self) -> Hub:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


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
        hub.db.connect().close()  # says at once, and why, that there is no database
        hub.clock.sync()
        check_schema(hub.db, embedded=settings.embedded)
    except BaseException:
        hub.close()
        raise
    return hub
