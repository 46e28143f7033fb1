"""What a deployed hub goes through before its eyes are tested, and what they must then show."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pika

from hub.app.lifecycle import Hub, build
from hub.settings import Settings
from tests.monitoring.conftest import Samples, of, parse
from tests.support.http_target import HttpTarget
from tests.support.hubs import add_rule, add_service, add_source, count, emit, emit_many
from tests.support.rabbit import free_ports
from tests.support.site import Site
from tests.support.waiting import eventually

TICK = "from hub.scheduler import broker; broker.actors['tick_task'].send()"


class Deployment:
    """Worker processes, web and exporter; `hub` is an application beside them that emits events.

    Services: `crm` answers, `billing` refuses, `erp` is away, `lms` has a response queue.
    """

    def __init__(self, site: Site, hub: Hub, target: HttpTarget) -> None:
        self.site, self.hub, self.target = site, hub, target
        self.answers = f"{site.settings.queue_prefix}.answers"
        self.away = 0  # attempts at `erp` in the log at the end of `live`; other tests make more later

    def shown(self) -> Samples:
        """`/metrics` now."""
        return parse(self.site.metrics())

    def services(self) -> None:
        """Four services, and a rule for each."""
        assert self.site.settings.broker_url
        away = f"http://127.0.0.1:{free_ports(1)[0]}"
        self.target.on("/refused", 422)
        add_service(self.hub, self.target.url, "crm")
        add_service(self.hub, self.target.url, "billing", cb_failure_threshold=0)
        add_service(self.hub, away, "erp", cb_failure_threshold=2, cb_cooldown=600)
        add_service(
            self.hub, self.site.settings.broker_url.get_secret_value(), "lms", type="amqp", response_queue=self.answers
        )
        for service, event, endpoint in (
            ("crm", "ok", "/ok"),
            ("billing", "refused", "/refused"),
            ("erp", "away", "/x"),
            ("lms", "course", f"{self.site.settings.queue_prefix}.courses"),
        ):
            add_rule(self.hub, f"to-{service}", event, service, endpoint=endpoint)

    def answer(self, *bodies: str) -> None:
        """Messages in the response queue of `lms`."""
        assert self.site.settings.broker_url
        with pika.BlockingConnection(pika.URLParameters(self.site.settings.broker_url.get_secret_value())) as broker:
            channel = broker.channel()
            for queue in (self.answers, f"{self.site.settings.queue_prefix}.courses"):
                channel.queue_declare(queue, durable=True)
            for body in bodies:
                channel.basic_publish("", self.answers, body.encode())

    def tick(self) -> None:
        """What periodiq does at the full minute, now: a scheduler process sends the tick."""
        subprocess.run([sys.executable, "-c", TICK], env=self.site.env, check=True, timeout=120)

    def live(self) -> None:
        """Deliveries, dead letters, an open circuit, a replay, a cancelled task, a drained response queue."""
        hub = self.hub
        add_source(hub)
        emit_many(hub, 20, "ok")
        for _ in range(2):
            emit(hub, "ok", key="the same")
        emit(hub, "nobody listens")
        emit_many(hub, 3, "refused")
        emit_many(hub, 30, "away")
        self.answer(json.dumps({"a": 1}), json.dumps({"b": 2}), "no JSON")
        emit_many(hub, 2, "course")
        self.tick()
        eventually(lambda: count(hub, "dead_letters") == 3, what="three dead letters")
        self.target.on("/refused", 200)
        dead = hub.views.dead_letters.list(limit=1)[0]["id"]
        self.site.run("dlq", "replay", "--id", str(dead), "--yes")
        (task,) = hub.views.tasks.list(service="erp", limit=1)
        self.site.run("tasks", "delete", str(task["id"]), "--yes")
        eventually(lambda: count(hub, "tasks") == 29, what="all that can be delivered")
        eventually(lambda: of(self.shown(), "hub_consumer_runs_total", service="lms", outcome="ok"), what="a run")
        self.away = len(hub.views.deliveries.list(service="erp"))


@contextmanager
def deployment(settings: Settings, folder: Path, *roles: str, processes: int = 2) -> Iterator[Deployment]:
    """Started: `hub` of each role."""
    with Site(settings, folder) as site, HttpTarget() as target, build(site.settings, role="cli") as hub:
        for role in roles:
            site.start(role, *(("--processes", str(processes), "--threads", "4") if role == "worker" else ()))
        yield Deployment(site, hub, target)
