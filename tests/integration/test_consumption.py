"""Reading a response queue goes through the gateway: a circuit of its own, tries, a delivery row."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from hub.app.lifecycle import Hub, build
from hub.config.definitions import ServiceSpec
from hub.models import Service
from hub.settings import Settings
from tests.support.proxy import unused_port

HUB = str(Path(sys.executable).with_name("hub"))


def add(hub: Hub, url: str, queue: str) -> Service:
    fields = {"name": "bus", "type": "amqp", "base_url": url, "response_queue": queue, "max_retries": 2}
    limits = {"retry_backoff": 0, "cb_failure_threshold": 2, "cb_cooldown": 3600}
    return hub.registry.services.add(ServiceSpec.model_validate({**fields, **limits}))


def inbound(hub: Hub) -> list[tuple[object, ...]]:
    rows = hub.views.deliveries.list(direction="inbound")
    return [(row["success"], row["tries"], row["endpoint"]) for row in rows]


def test_a_dead_broker_opens_the_circuit_of_responses_only(
    settings: Settings, hub_env: dict[str, str], queue_prefix: str
) -> None:
    """Each failed run is logged once; an open circuit reads nothing, and dispatches are not parked."""
    with build(settings) as hub:
        bus = add(hub, f"amqp://guest:guest@127.0.0.1:{unused_port()}/?routing_key=x", f"{queue_prefix}.answers")
        assert [hub.consumer.consume(bus).outcome for _ in range(2)] == ["error", "error"]
        assert inbound(hub) == [(False, 2, bus.response_queue)] * 2
        assert "refused" in hub.views.deliveries.list(direction="inbound")[0]["error"]
        skipped = hub.consumer.consume(bus)
        assert skipped.outcome == "skipped" and "circuit" in str(skipped.error)
        assert len(inbound(hub)) == 2
        circuit = hub.views.overview.breaker("bus")
        assert (circuit["state"], circuit["responses"]) == ("closed", "open")
        assert circuit["responses_retry_at"] is not None and circuit["retry_at"] is None
    reset = [HUB, "breaker", "reset", "bus", "--json"]
    done = subprocess.run(reset, env=hub_env, capture_output=True, text=True, timeout=120, check=True)
    assert json.loads(done.stdout) == {"reset": ["bus"]}
    with build(settings) as hub:
        assert hub.views.overview.breaker("bus")["responses"] == "closed"


def test_an_open_circuit_of_dispatches_does_not_stop_reading(
    settings: Settings, broker_url: str, queue_prefix: str
) -> None:
    """And a run that works closes the circuit of responses after its cooldown."""
    with build(settings) as hub:
        bus = add(hub, f"{broker_url}?routing_key=x", f"{queue_prefix}.answers")
        hub.db.run("UPDATE breakers SET state = 'open', retry_at = now() + interval '1 hour'")
        assert hub.consumer.consume(bus).outcome == "ok"
        hub.db.run(
            "UPDATE response_breakers SET state = 'open', retry_at = now() - interval '1 second', epoch = epoch + 1"
        )
        assert hub.views.overview.breaker("bus")["responses"] == "open"
        assert hub.consumer.consume(bus).outcome == "ok"
        circuit = hub.views.overview.breaker("bus")
        assert (circuit["state"], circuit["responses"]) == ("open", "closed")
        assert inbound(hub) == []
