"""Entry point of `dramatiq hub.worker:broker`: one hub per worker process."""

from __future__ import annotations

from typing import Any

import dramatiq
import structlog

from hub.app.lifecycle import Hub, build
from hub.errors import HubError
from hub.programs.log_setup import configure_logging
from hub.programs.on_demand import broker_of
from hub.programs.supervisor import die_with_parent
from hub.settings import load_settings

log = structlog.get_logger("hub.worker")


class WorkerLifecycle(dramatiq.Middleware):  # type: ignore[misc, unused-ignore]
    """Starts and stops the hub's own threads with Dramatiq's worker."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def before_worker_boot(self, broker: dramatiq.Broker, worker: Any) -> None:
        """Take the lease before the first task. Without it the process exits, and its supervisor starts it again."""
        try:
            self._hub.start_worker(worker.worker_threads)
        except HubError as e:
            log.error("not started", error=str(e))
            raise SystemExit(1) from None

    def before_worker_shutdown(self, broker: dramatiq.Broker, worker: Any) -> None:
        """Stop the relay and release the tasks that wait in memory."""
        self._hub.stop_worker()

    def after_worker_shutdown(self, broker: dramatiq.Broker, worker: Any) -> None:
        """Release the lease: every attempt is recorded, or the time to shut down is over."""
        self._hub.close()


def make_broker() -> dramatiq.Broker:
    """The broker of this process, with a hub behind its actors."""
    die_with_parent()
    settings = load_settings()
    configure_logging(settings)
    hub = build(settings, role="worker")
    hub.broker.add_middleware(WorkerLifecycle(hub))
    return hub.broker


__getattr__ = broker_of(__name__, make_broker)
