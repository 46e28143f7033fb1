"""What `dramatiq hub.worker:broker` imports: one hub per worker process, alive from boot to shutdown."""

from __future__ import annotations

from typing import Any

import dramatiq
import structlog

from hub.app import Hub, build
from hub.errors import HubError
from hub.logs import configure_logging
from hub.processes import die_with_parent
from hub.settings import load_settings

log = structlog.get_logger("hub.worker")


class Life(dramatiq.Middleware):  # type: ignore[misc, unused-ignore]
    """Starts and stops the hub's own threads with Dramatiq's worker."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def before_worker_boot(self, broker: dramatiq.Broker, worker: Any) -> None:
        """The lease comes before the first task."""
        self._hub.start_worker(worker.worker_threads)

    def before_worker_shutdown(self, broker: dramatiq.Broker, worker: Any) -> None:
        """No new hand-overs, nothing waits in memory."""
        self._hub.stop_worker()

    def after_worker_shutdown(self, broker: dramatiq.Broker, worker: Any) -> None:
        """Every task is settled, or its time is up: give the lease up."""
        self._hub.close()


def make_broker() -> dramatiq.Broker:
    """The broker of this process, with a hub behind its actors."""
    die_with_parent()
    settings = load_settings()
    configure_logging(settings)
    hub = build(settings, role="worker")
    hub.broker.add_middleware(Life(hub))
    return hub.broker


def __getattr__(name: str) -> Any:
    """`broker` is made when Dramatiq asks for it, not when somebody imports this module."""
    if name == "broker":
        try:
            globals()["broker"] = value = make_broker()
        except HubError as e:  # in words; Dramatiq would show a traceback
            log.error("not started", error=str(e))
            raise SystemExit(1) from None
        return value
    raise AttributeError(name)
