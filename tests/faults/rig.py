"""The hub under test: private servers, real worker processes, a source of events, and links that break."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pika
import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row

from hub.app.lifecycle import Hub, build
from hub.settings import Settings
from tests.faults.answers import QUEUE, Answers
from tests.faults.links import Link, Links
from tests.faults.plan import ALL, FAN_OUT, PROFILES, THREADS
from tests.faults.targets import Target, Tide
from tests.support import clocks
from tests.support.clocks import WallClock
from tests.support.databases import PostgresServer
from tests.support.hubs import add_rule, add_service
from tests.support.rabbit import RabbitNode
from tests.support.waiting import eventually

LEASE = 3.0
OUT_QUEUE = "out"
_LOOK = 0.1
_WORKER = [
    sys.executable,
    "-m",
    "dramatiq",
    "--processes",
    "1",
    "--threads",
    str(THREADS),
    "--worker-shutdown-timeout",
    "20000",
    "--skip-logging",
    "hub.worker:broker",
]
_WEB = [sys.executable, "-c", "from hub.cli import main; main()", "web"]
_SCHEDULER = [sys.executable, "-c", "import periodiq; periodiq.entrypoint()", "hub.scheduler:broker"]


class Process:
    """A process that is started again when it ends, as a supervisor does.

    Args:
        make: its command line, asked before each start.
        clock: its wall clock; None: it cannot be moved.
        told: is told of every end that nobody asked for.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[], list[str]],
        env: dict[str, str],
        log: Path,
        told: Callable[[str, int], None],
        clock: WallClock | None,
    ) -> None:
        self.name = name
        self.clock = clock
        self._make = make
        self._env = env
        self.log = log
        self._written: list[tuple[int, float]] = []  # how long the log was, and when
        self._told = told
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._due = 0.0
        self._wanted = False
        self._asked = False  # its end was asked for
        self.paused = False

    def start(self) -> None:
        self._wanted = True
        self.look()

    def look(self) -> None:
        """Start it if it should run and does not."""
        if self.log.exists() and (size := self.log.stat().st_size) > (self._written or [(0, 0.0)])[-1][0]:
            self._written.append((size, time.time()))
        with self._lock:
            if self._process is not None and (code := self._process.poll()) is not None:
                if not self._asked:
                    self._told(self.name, code)
                self._process, self._due = None, time.monotonic() + 0.3
            if self._wanted and self._process is None and time.monotonic() >= self._due:
                with self.log.open("ab") as out:
                    self._process = subprocess.Popen(
                        self._make(),
                        env=self._env,
                        stdin=subprocess.DEVNULL,
                        stdout=out,
                        stderr=out,
                        start_new_session=True,
                    )
                self._asked = False

    def lines(self) -> Iterator[tuple[float, str]]:
        """What it wrote, and when by our clock, a moment late: its own is not to be trusted."""
        written = [*self._written, (sys.maxsize, time.time())]
        place = 0
        for line in self.log.read_bytes().splitlines(keepends=True):
            place += len(line)
            at = written[bisect_left(written, place, key=lambda seen: seen[0])][1]
            yield at, line.decode(errors="replace").rstrip("\r\n")

    @property
    def pid(self) -> int | None:
        """The process that does the work: Dramatiq's own only watches over it."""
        process = self._process
        if process is None or process.poll() is not None:
            return None
        if "dramatiq" not in process.args:  # type: ignore[operator]
            return process.pid
        for entry in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
            with contextlib.suppress(OSError):
                if b"resource_tracker" not in Path(f"/proc/{entry}/cmdline").read_bytes():
                    return int(entry)
        return None

    def signal(self, number: int) -> int | None:
        """Send a signal to the process that works; its pid."""
        try:
            if (pid := self.pid) is not None:
                self._asked = number in (signal.SIGKILL, signal.SIGTERM)
                os.kill(pid, number)
        except OSError:
            return None
        return pid

    def terminate(self) -> None:
        """SIGTERM to all of it, as a supervisor does; it is started again."""
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                self._asked = True
                self._process.terminate()

    def stop(self, seconds: float = 40) -> bool:
        """End it for good; False: it had to be killed."""
        with self._lock:
            self._wanted = False
            process, self._process = self._process, None
        if process is None:
            return True
        process.terminate()
        try:
            process.wait(seconds)
            return True
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return False


class Rig:
    """Everything of one run. Use as a context manager.

    Args:
        rate: events per second.
        witness: whether a third worker runs that no fault kills.
    """

    def __init__(self, folder: Path, *, seed: int, rate: float, witness: bool = False, scheduler: bool = False) -> None:
        self.folder = folder
        self.seed = seed
        self.run = f"r{seed}"
        self._rate = rate
        self._stack = contextlib.ExitStack()
        self._witness = witness
        self._with_scheduler = scheduler
        self.targets: dict[str, Target] = {}
        self.tide = Tide(4.0, 4.0)
        self.ends: list[dict[str, Any]] = []
        self.workers: list[Process] = []
        self.db_links: list[Link] = []
        self.broker_links: list[Link] = []
        self.journal = folder / "producer.jsonl"
        self._stopping = threading.Event()

    def __enter__(self) -> Self:
        try:
            self._enter()
        except BaseException:
            self._stack.close()
            raise
        return self

    def _enter(self) -> None:
        self.postgres = PostgresServer(durable=True)
        self._stack.callback(self.postgres.close)
        self.postgres.start()
        self.rabbit = RabbitNode()
        self._stack.callback(self.rabbit.close)
        self.rabbit.start()
        self.links = self._stack.enter_context(Links())
        parts = conninfo_to_dict(self.postgres.url)
        self._socket = f"{parts['host']}/.s.PGSQL.5432"
        self._user, self._name = parts["user"], parts["dbname"]
        self.settings = Settings(
            database_url=self.postgres.url,
            broker_url=self.rabbit.url,
            home=self.folder / "home",
            secret_keys="MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
            retry_delays="0.2,0.3,0.4,0.5",
            worker_lease=f"{LEASE}s",
            republish_after="1s",
            threads=THREADS,
            log_format="json",
        )
        with socket.create_server(("127.0.0.1", 0)) as s:
            self._web_port = s.getsockname()[1]
        self._make_services()
        names = ["a", "b", *(["witness"] if self._witness else [])]
        for name in names:
            self.workers.append(self._process(f"worker-{name}", lambda: _WORKER))
        self.producer = self._process("producer", self._producer)
        self.web = self._process("web", lambda: _WEB)
        self.scheduler = self._process("scheduler", lambda: _SCHEDULER) if self._with_scheduler else None
        watch = threading.Thread(target=self._watch, daemon=True)
        self._stack.callback(watch.join, 10)
        self._stack.callback(self._stopping.set)
        service = self.number("SELECT id FROM services WHERE name = 'queue'")
        self.answers = Answers(self.rabbit.url + "%2F", self.settings, service)
        self._stack.callback(self.answers.stop_publishing)
        for process in [*self.workers, self.web]:
            process.start()
        if self.scheduler:
            self.scheduler.start()
        watch.start()
        eventually(self.live_workers_registered, "the workers' start")

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # Set-up

    def _make_services(self) -> None:
        with build(self.settings, role="cli") as hub:
            for profile in PROFILES:
                fields: dict[str, Any] = {"cb_cooldown": 1.0} | profile.fields
                add_service(hub, self._url(profile.name, hub), profile.name, **fields)
                rule = {"endpoint": "" if profile.name == "queue" else "/x"} | profile.rule
                add_rule(hub, f"to-{profile.name}", f"e.{profile.name}", profile.name, **rule)
            for name in FAN_OUT:
                add_rule(hub, f"all-to-{name}", ALL, name)
            self._token = hub.accounts.tokens.add("source", "ingest")[1]

    def _url(self, name: str, hub: Hub) -> str:
        if name == "queue":
            link = self.links.add(("127.0.0.1", self.rabbit.port))
            return f"amqp://guest:guest@127.0.0.1:{link.port}/%2F?queue_declare={OUT_QUEUE}"
        if name == "gone":
            with socket.create_server(("127.0.0.1", 0)) as s:
                return f"http://127.0.0.1:{s.getsockname()[1]}"
        behave = self.tide if name == "tide" else next(p.behave for p in PROFILES if p.name == name)
        assert behave is not None
        target = self._stack.enter_context(Target(name, behave, seed=self.seed))
        self.targets[name] = target
        return target.url

    def _process(self, name: str, make: Callable[[], list[str]]) -> Process:
        db, broker = self.links.add(self._socket), self.links.add(("127.0.0.1", self.rabbit.port))
        self.db_links.append(db)
        self.broker_links.append(broker)
        env = {k: v for k, v in os.environ.items() if not k.startswith("HUB_")}
        for field in self.settings.model_fields_set:
            value = getattr(self.settings, field)
            text = value.get_secret_value() if hasattr(value, "get_secret_value") else value
            env[f"HUB_{field.upper()}"] = ",".join(map(str, text)) if isinstance(text, tuple) else str(text)
        env["HUB_DATABASE_URL"] = (
            f"postgresql://{self._user}@127.0.0.1:{db.port}/{self._name}?sslmode=disable&gssencmode=disable"
        )
        env["HUB_LISTEN"] = f"127.0.0.1:{self._web_port}"
        env["HUB_BROKER_URL"] = f"amqp://guest:guest@127.0.0.1:{broker.port}/"
        clock = WallClock(self.folder / f"{name}.clock") if clocks.library() else None
        env |= clock.environment if clock else {}
        process = Process(name, make, env, self.folder / f"{name}.log", self._ended, clock)
        self._stack.callback(process.stop)
        return process

    def _producer(self) -> list[str]:
        begin = max((n for line in self.journal_lines() if line["result"] != "failed" for n in line["n"]), default=-1)
        return [
            sys.executable,
            "-m",
            "tests.faults.producer",
            self.run,
            str(self.seed),
            str(begin + 1),
            str(self._rate),
            str(self.journal),
            f"http://127.0.0.1:{self._web_port}",
            self._token,
        ]

    # While it runs

    def _ended(self, name: str, code: int) -> None:
        self.ends.append({"t": time.time(), "process": name, "code": code})

    def _watch(self) -> None:
        while not self._stopping.wait(_LOOK):
            for process in self.processes():
                process.look()

    def journal_lines(self) -> list[dict[str, Any]]:
        """What the source wrote down; a line that a kill cut short is none."""
        found = []
        with contextlib.suppress(FileNotFoundError):
            for line in self.journal.read_text().splitlines():
                with contextlib.suppress(ValueError):
                    found.append(json.loads(line))
        return found

    @contextlib.contextmanager
    def connection(self) -> Iterator[psycopg.Connection[dict[str, Any]]]:
        """Straight to PostgreSQL, past the links."""
        with psycopg.connect(self.postgres.url, autocommit=True, row_factory=dict_row, connect_timeout=10) as conn:
            yield conn

    def rows(self, sql: str, params: Any = ()) -> list[dict[str, Any]]:
        with self.connection() as conn:
            return conn.execute(sql.encode(), params).fetchall()

    def number(self, sql: str) -> int:
        return int(next(iter(self.rows(sql)[0].values())))

    def live_workers_registered(self) -> bool:
        """Whether every worker has started, and holds its lease."""
        alive = {row["pid"] for row in self.rows("SELECT pid FROM workers WHERE lease_until > now()")}
        return all(worker.pid in alive for worker in self.workers)

    def leader(self) -> Process | None:
        """The worker that leads now."""
        try:
            rows = self.rows("SELECT instance FROM heartbeats WHERE component = 'releaser' ORDER BY at DESC LIMIT 1")
        except psycopg.Error:
            return None
        pids = {int(row["instance"].split(":")[1]) for row in rows}
        return next((w for w in self.workers if w.pid in pids), None)

    def victims(self) -> list[Process]:
        return self.workers[:2]

    def processes(self) -> list[Process]:
        """All of the hub's, and the source."""
        return [*self.workers, self.producer, self.web, *([self.scheduler] if self.scheduler else [])]

    @contextlib.contextmanager
    def channel(self) -> Iterator[Any]:
        """Straight to RabbitMQ, past the links."""
        connection = pika.BlockingConnection(pika.URLParameters(self.rabbit.url + "%2F"))
        try:
            yield connection.channel()
        finally:
            connection.close()

    def left(self) -> int:
        """Tasks that are not over yet."""
        return self.number("SELECT count(*) FROM tasks")

    def drained(self) -> bool:
        try:
            return self.left() == 0
        except psycopg.Error:
            return False

    def answers_read(self) -> bool:
        """Whether the response queue is empty; asks for a run over it if not."""
        with self.channel() as channel:
            left = channel.queue_declare(QUEUE, passive=True).method.message_count
        if left or self.number(
            "SELECT count(*) FROM task_runs WHERE ended_at IS NULL AND started_at > now() - interval '5 s'"
        ):
            self.answers.ask_once()
            time.sleep(0.5)
            return False
        return True

    def footprint(self) -> dict[str, dict[str, int]]:
        """Open files and threads of each worker, now."""
        found: dict[str, dict[str, int]] = {}
        for worker in self.workers:
            if (pid := worker.pid) is not None:
                found[worker.name] = {
                    "pid": pid,
                    "fds": len(os.listdir(f"/proc/{pid}/fd")),
                    "threads": len(os.listdir(f"/proc/{pid}/task")),
                }
        return found
