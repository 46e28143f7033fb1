"""A RabbitMQ cluster of two nodes: one is killed while events arrive; the hub continues on the other."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from hub.app.lifecycle import Hub, build
from hub.models import Event
from hub.settings import Settings
from tests.support.http_target import HttpTarget
from tests.support.hubs import add_rule, add_service, count
from tests.support.rabbit import RabbitNode
from tests.support.waiting import eventually
from tests.support.workers import workers

pytestmark = pytest.mark.fault
_EVENTS = 40  # accepted before, during and after the loss of a node


@pytest.fixture
def cluster(rabbitmq: RabbitNode) -> Iterator[tuple[RabbitNode, RabbitNode]]:
    """Two nodes of a RabbitMQ that can mirror queues."""
    if int(rabbitmq.ctl("version").strip().partition(".")[0]) >= 4:
        pytest.skip("RabbitMQ 4 mirrors no queues: a cluster of two nodes survives no loss")
    other = RabbitNode(beside=rabbitmq)
    try:
        other.start()
        other.join(rabbitmq)
        yield rabbitmq, other
    finally:
        other.close()


class Emitter:
    """Accepts events until it is stopped."""

    def __init__(self, hub: Hub) -> None:
        self.accepted = 0
        self._hub = hub
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Emitter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)

    def _run(self) -> None:
        while not self._stop.wait(0.02):
            self._hub.intake.handle_event(Event("e", {"n": self.accepted}))
            self.accepted += 1


def test_events_are_delivered_while_one_node_is_lost_and_none_is_lost(
    cluster: tuple[RabbitNode, RabbitNode], settings: Settings
) -> None:
    lost, other = cluster
    vhost = lost.new_vhost().rpartition("/")[2]
    lost.ctl("set_policy", "-p", vhost, "mirrored", ".*", '{"ha-mode": "all", "ha-sync-mode": "automatic"}')
    urls = ";".join(f"{node.url}{vhost}" for node in (lost, other))
    settings = settings.model_copy(update={"broker_url": SecretStr(urls)})
    with HttpTarget() as target, build(settings, role="web") as hub, workers(settings):
        add_service(hub, target.url)
        add_rule(hub)
        with Emitter(hub) as emitter:
            eventually(lambda: len(target.seen) >= _EVENTS, what="events are delivered")
            lost.kill()
            during = emitter.accepted
            eventually(lambda: delivered(target) >= set(range(during, during + _EVENTS)), what="the other node is used")
            lost.start()
            after = emitter.accepted
            eventually(lambda: delivered(target) >= set(range(after, after + _EVENTS)), what="deliveries go on")
        eventually(lambda: delivered(target) == set(range(emitter.accepted)), what="all events are delivered")
        eventually(lambda: count(hub, "tasks") == 0, what="no task is left")
        assert max(Counter(seen.json()["n"] for seen in target.seen).values()) <= 5


def delivered(target: HttpTarget) -> set[int]:
    return {seen.json()["n"] for seen in target.seen}
