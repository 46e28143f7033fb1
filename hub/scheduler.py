"""Entry point of `periodiq hub.scheduler:broker`: publishes one tick a minute to the workers, reads event sources."""

from __future__ import annotations

import atexit
from typing import Any

import dramatiq
import structlog

from hub.app.lifecycle import Hub, build
from hub.errors import ConfigError, HubError
from hub.programs.log_setup import configure_logging
from hub.programs.on_demand import broker_of
from hub.settings import load_settings

log = structlog.get_logger("hub.scheduler")


class SchedulerHeartbeat(dramatiq.Middleware):  # type: ignore[misc, unused-ignore]
    """Records a heartbeat of the scheduler whenever the broker has confirmed a tick."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def after_enqueue(self, broker: dramatiq.Broker, message: Any, delay: Any) -> None:
        """Record the heartbeat."""
        try:
            self._hub.heartbeat("scheduler")
        except HubError as e:
            log.warning("no heartbeat; the next tick reports again", error=str(e))


def make_broker() -> dramatiq.Broker:
    """The broker of this process; only the tick actor is periodic."""
    settings = load_settings()
    configure_logging(settings)
    if settings.broker_url is None:
        raise ConfigError("not set; without a broker `hub up` ticks by itself", field="HUB_BROKER_URL")
    hub = build(settings, role="scheduler")
    hub.broker.add_middleware(SchedulerHeartbeat(hub))
    hub.start_sources()
    atexit.register(hub.close)  # periodiq ends by returning; leases of sources end with it
    return hub.broker


__getattr__ = broker_of(__name__, make_broker)
