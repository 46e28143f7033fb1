"""Starts and stops the threads and connections of one process."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import structlog

from hub.app.sources import make_source_threads
from hub.errors import HubError
from hub.inbound.source_threads import SourceThreads
from hub.monitoring.prometheus_hooks import PrometheusHooks
from hub.store.ledger import FLUSH_SECONDS
from hub.tasks.heartbeat import Heartbeat

if TYPE_CHECKING:
    from hub.app.hub import Hub

log = structlog.get_logger("hub.app.lifetime")
_ENQUEUE = 2.0  # seconds that accepted tasks have to reach the broker when a process ends


class Lifetime:
    """The threads of a `Hub`, and the order in which they start and end."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._heartbeats: dict[str, Heartbeat] = {}
        self._closing: list[Callable[[], None]] = []
        self._sources: SourceThreads | None = None

    def heartbeat(self, component: str) -> None:
        """Record a heartbeat and the use of the database pool, and read the deployment's clock."""
        self._hub.hooks.pool(self._hub.role, *self._hub.db.usage())
        if component == "worker":
            self._hub.hooks.worker_threads(self._hub.bulkhead.busy(), self._hub.bulkhead.threads)
        self._hub.clock.sync()
        self._hub.heartbeats.beat(component, self._hub.clock.offset)

    def start_heartbeat(self, component: str) -> None:
        """Record heartbeats as `component` (worker, scheduler, web) in a thread."""
        if not self._hub.settings.embedded:
            self._hub.watch.start()
        heartbeat = Heartbeat(partial(self.heartbeat, component))
        heartbeat.start()
        self._heartbeats[component] = heartbeat
        if component == "web":
            self._hub.operator_events.start()

    def start_worker(self, threads: int) -> None:
        """Start the lease, the listener for configuration changes, and the relay. The caller runs Dramatiq."""
        self._hub.bulkhead.threads = threads
        self._hub.configuration.listen()
        self._hub.lease.start()
        self.start_heartbeat("worker")
        if self._hub.relay is not None:
            self._hub.relay.start()
            self._hub.backfill_runner.start()

    def start_sources(self) -> None:
        """Read event sources in threads; the listener for configuration changes runs, too."""
        self._hub.configuration.listen()
        self._sources = make_source_threads(self._hub)
        self._sources.start()

    def stop_sources(self) -> None:
        """Stop reading event sources, after the current look."""
        if self._sources is not None:
            self._sources.stop()
            self._sources = None

    def stop_worker(self) -> None:
        """Stop what `start_worker` started; tasks that wait in memory are released."""
        self._hub.stopping.set()
        self._hub.backfill_runner.stop()
        if self._hub.relay is not None:
            self._hub.relay.stop()
        self._hub.ledger.drain()
        waiting = self._hub.bulkhead.close()
        if waiting:
            try:
                self._hub.ledger.release_queued(waiting)
            except HubError as e:
                log.warning("tasks not released; the relay republishes them", count=len(waiting), error=str(e))

    def on_close(self, act: Callable[[], None]) -> None:
        """Run `act` when the hub is closed."""
        self._closing.append(act)

    def close(self) -> None:
        """Stop threads, close connections, and end the private database if no other process uses it."""
        for act in reversed(self._closing):
            act()
        self.stop_sources()
        self._hub.stopping.set()
        self._hub.operator_events.stop()
        if self._hub.enqueuer is not None:
            self._hub.enqueuer.close(_ENQUEUE)
        for heartbeat in self._heartbeats.values():
            heartbeat.stop()
        for component in (*self._heartbeats, *(["releaser"] if self._hub.relay and self._heartbeats else [])):
            try:
                self._hub.heartbeats.leave(component)
            except HubError:
                pass  # its row expires
        self._hub.ledger.flush(FLUSH_SECONDS)
        self._hub.ledger.stop()
        self._hub.configuration.close()
        self._hub.lease.stop()
        self._hub.gateway.close()
        self._hub.lookups.close()
        try:
            self._hub.broker.close()
        except Exception:
            log.debug("broker not closed", exc_info=True)
        if self._hub.enqueuer is not None:
            self._hub.enqueuer.join(_ENQUEUE)  # a publish that hung has failed with its connection
        self._hub.watch.stop()
        self._hub.db.close()
        if isinstance(self._hub.hooks, PrometheusHooks):
            self._hub.hooks.close()
        if self._hub.postgres is not None:
            self._hub.postgres.stop()
