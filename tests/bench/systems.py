"""The systems that are compared: how each is started, fed, and asked how far it is."""

from __future__ import annotations

import itertools
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, LiteralString

import dramatiq
import psycopg
from celery import Celery
from cryptography.fernet import Fernet
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from pydantic import SecretStr

from hub.app.lifecycle import Hub, build
from hub.codec import dumps, loads
from hub.config.definitions import RuleSpec, ServiceSpec, parse_spec
from hub.domain.events import parse_event
from hub.settings import Settings
from tests.bench.job import NAME, event
from tests.bench.rig import Rig, cpu, wait_for

TEMPLATE = {
    "source": "moodle",
    "event": "{{event.name}}",
    "id": "{{objectid}}",
    "by": "{{userid}}",
    "user": "{{relateduserid}}",
    "context": {"id": "{{contextid}}", "level": "{{contextlevel}}"},
    "action": "{{component}}/{{action}}",
    "table": "{{objecttable}}",
    "course": "{{courseid}}",
    "details": "{{other}}",
    "at": "{{timecreated}}",
}
SHARE = 0.1  # of the events that are not measured in a drain: workers start up


class System:
    """One system on a database and vhost of its own.

    Args:
        target: URL that events go to.
        processes, threads: of the workers.
    """

    name: ClassVar[str]
    count: ClassVar[LiteralString]
    finished: ClassVar[LiteralString]

    def __init__(self, rig: Rig, target: str, *, processes: int = 2, threads: int = 8) -> None:
        self.rig = rig
        self.target = target
        self.processes, self.threads = processes, threads
        self.database, self.broker = rig.database(), rig.broker()
        self._conn = psycopg.connect(self.database, autocommit=True)

    def commands(self) -> list[list[str]]:
        """The worker processes."""
        raise NotImplementedError

    def env(self) -> dict[str, str]:
        """Their environment."""
        return {"BENCH_TARGET": self.target, "BENCH_DATABASE": self.database, "BENCH_BROKER": self.broker}

    def send(self, numbers: Sequence[int]) -> None:
        """Send these events as fast as the system takes them."""
        raise NotImplementedError

    def done(self) -> int:
        """How many were delivered and logged."""
        row = self._conn.execute(self.count).fetchone()
        return int(row[0]) if row else 0

    def close(self) -> None:
        self._conn.close()

    @contextmanager
    def workers(self, warm_up: int = 100) -> Iterator[list[int]]:
        """Running workers that have done some work; gives their pids."""
        with self.rig.running(self.commands(), self.env()) as pids:
            if warm_up:
                self.send(range(-warm_up, 0))
                self.wait(warm_up, 60)
            yield pids

    def wait(self, count: int, seconds: float) -> None:
        """Until `count` were delivered."""
        try:
            wait_for(lambda: self.done() >= count, seconds, f"{self.name}: {count} deliveries")
        except TimeoutError as e:
            raise TimeoutError(f"{e}; there are {self.done()}\n{self.rig.output()}") from None

    def end_to_end(self, count: int, warm_up: int = 200, seconds: float = 120) -> dict[str, float]:
        """Events per second from the first sent to the last delivered, workers running.

        `cpu_ms`: CPU time per event of sender, workers, PostgreSQL and RabbitMQ together, not of the target.
        """
        with self.workers(warm_up) as workers:
            pids = [*workers, self.rig.postgres.pid, self.rig.rabbit.pid]
            spent = cpu(pids) + time.process_time()
            begun = time.time()
            self.send(range(count))
            sent = time.time()
            self.wait(warm_up + count, seconds)
            spent = cpu(pids) + time.process_time() - spent
            times = self.times()
        return {
            "per_second": count / (times[-1] - begun),
            "sent_per_second": count / (sent - begun),
            "cpu_ms": spent / count * 1000,
        }

    def drain(self, count: int, seconds: float = 120) -> float:
        """Deliveries per second out of a backlog, without the start of the workers."""
        self.send(range(count))
        with self.rig.running(self.commands(), self.env()):
            self.wait(count, seconds)
        times = self.times()
        first = int(count * SHARE)
        return (count - first) / (times[-1] - times[first - 1])

    def times(self) -> list[float]:
        """When each delivery was logged, in order."""
        return [float(row[0]) for row in self._conn.execute(self.finished).fetchall()]


class HubSystem(System):
    """The hub with everything on: rule, template, breaker, idempotency key, ledger, log, metrics, log lines."""

    name = "hub"
    count = "SELECT count(*) FROM deliveries WHERE success"
    finished = "SELECT extract(epoch FROM created_at)::float8 FROM deliveries WHERE success ORDER BY created_at"

    def __init__(self, rig: Rig, target: str, *, processes: int = 2, threads: int = 64, **options: Any) -> None:
        super().__init__(rig, target, processes=processes, threads=threads)
        self.settings = Settings(
            database_url=SecretStr(self.database),
            broker_url=SecretStr(self.broker),
            secret_keys=SecretStr(Fernet.generate_key().decode()),
            home=Path(tempfile.mkdtemp(prefix="home-", dir=rig.folder)),
            processes=processes,
            threads=threads,
            **options,
        )
        self.settings.metrics_folder.mkdir(parents=True)
        self.hub: Hub = build(self.settings)
        self.add_service("crm", target)
        self.add_rule("users-to-crm", "crm", NAME)

    def add_service(self, name: str, url: str, **more: Any) -> None:
        self.hub.registry.services.add(parse_spec(ServiceSpec, {"name": name, "type": "rest", "base_url": url, **more}))

    def add_rule(self, name: str, service: str, event_name: str) -> None:
        spec = {"name": name, "event": event_name, "service": service, "endpoint": "/users", "payload": TEMPLATE}
        self.hub.registry.rules.add(parse_spec(RuleSpec, spec))

    def commands(self) -> list[list[str]]:
        return [
            [
                sys.executable,
                "-m",
                "dramatiq",
                "--processes",
                "1",
                "--threads",
                str(self.threads),
                "--skip-logging",
                "hub.worker:broker",
            ]
        ] * self.processes

    def env(self) -> dict[str, str]:
        values = {}
        for name in self.settings.model_fields_set:
            value = getattr(self.settings, name)
            values[f"HUB_{name.upper()}"] = str(
                value.get_secret_value() if hasattr(value, "get_secret_value") else value
            )
        return values

    def send(self, numbers: Sequence[int]) -> None:
        """As `hub emit FILE.ndjson` does."""
        lines = (dumps(self.event(number)) for number in numbers)
        for batch in batched(lines, 500):
            events = [parse_event(loads(line), limit=self.settings.event_limit) for line in batch]
            self.hub.intake.handle_events(events)

    def event(self, number: int) -> dict[str, Any]:
        """The event of that number."""
        return event(number)

    def close(self) -> None:
        self.hub.close()
        super().close()


class OrderedHubSystem(HubSystem):
    """The hub with an ordering key: tasks of one key are sent one at a time, in order.

    Args:
        keys: how many different keys the events have.
    """

    name = "ordered_hub"

    def __init__(self, rig: Rig, target: str, *, keys: int = 1000, **more: Any) -> None:
        self._keys = keys
        super().__init__(rig, target, **more)

    def add_rule(self, name: str, service: str, event_name: str) -> None:
        super().add_rule(name, service, event_name)
        self.hub.registry.rules.update(name, {"ordering_key": "{{courseid}}"})

    def event(self, number: int) -> dict[str, Any]:
        return event(number) | {"courseid": number % self._keys}


class BareSystem(System):
    """A bare Dramatiq actor."""

    name = "bare_dramatiq"
    count = "SELECT count(*) FROM bench_log"
    finished = "SELECT extract(epoch FROM created_at)::float8 FROM bench_log ORDER BY created_at"
    prefetch = 100

    def __init__(self, rig: Rig, target: str, *, processes: int = 2, threads: int = 8) -> None:
        super().__init__(rig, target, processes=processes, threads=threads)
        self._sender = RabbitmqBroker(url=self.broker, middleware=[])
        self._sender.declare_queue("bare")

    def commands(self) -> list[list[str]]:
        return [
            [
                sys.executable,
                "-m",
                "dramatiq",
                "--processes",
                str(self.processes),
                "--threads",
                str(self.threads),
                "tests.bench.bare:broker",
            ]
        ]

    def env(self) -> dict[str, str]:
        return {**super().env(), "dramatiq_queue_prefetch": str(max(self.prefetch, 2 * self.threads))}

    def send(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self._sender.enqueue(
                dramatiq.Message(
                    queue_name="bare", actor_name="deliver", args=(number, event(number)), kwargs={}, options={}
                )
            )

    def close(self) -> None:
        self._sender.close()
        super().close()


class CelerySystem(System):
    """A Celery task."""

    name = "celery"
    count, finished = BareSystem.count, BareSystem.finished

    def __init__(
        self, rig: Rig, target: str, *, processes: int = 2, threads: int = 8, pool: str = "threads", prefetch: int = 16
    ) -> None:
        super().__init__(rig, target, processes=processes, threads=threads)
        self._pool, self._prefetch = pool, prefetch
        self._app = Celery("bench", broker=self.broker)
        self._app.conf.update(task_default_queue="celery_bench", task_ignore_result=True)

    def commands(self) -> list[list[str]]:
        return [
            [
                sys.executable,
                "-m",
                "celery",
                "-A",
                "tests.bench.celery_app",
                "worker",
                "--pool",
                self._pool,
                "--concurrency",
                str(self.threads),
                "--without-gossip",
                "--without-mingle",
                "--loglevel",
                "WARNING",
                "--hostname",
                f"w{i}@%h",
            ]
            for i in range(self.processes)
        ]

    def env(self) -> dict[str, str]:
        return {**super().env(), "BENCH_PREFETCH": str(self._prefetch)}

    def send(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self._app.send_task("deliver", (number, event(number)))

    def close(self) -> None:
        self._app.close()
        super().close()


def batched(items: Iterable[str], size: int) -> Iterator[list[str]]:
    """Lists of at most `size`."""
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch
