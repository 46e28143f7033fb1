"""The hub's processes, as the CLI starts them: `up` (all in one), `web`, `worker`, `scheduler`."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import dramatiq
import structlog

from hub.app.lifecycle import Hub, build
from hub.errors import ConfigError
from hub.monitoring.value_files import empty
from hub.programs.supervisor import replace_process, stop_signals
from hub.settings import Settings
from hub.store.ledger import FLUSH_SECONDS
from hub.tasks.ticker import Ticker
from hub.web.server import WebServer

log = structlog.get_logger("hub.programs.up")
_SHUTDOWN_MS = 60_000  # how long attempts under way may take to end
_GRACE = 80.0  # seconds; after that processes are killed, and their tasks taken up by others
_POLL_MS = 100


@contextmanager
def work(hub: Hub, *, threads: int) -> Iterator[None]:
    """Run Dramatiq's worker in this process: lease, releaser, threads; on leaving all of it ends in order."""
    worker = dramatiq.Worker(hub.broker, worker_threads=threads, worker_timeout=_POLL_MS)
    hub.start_worker(threads)
    worker.start()
    try:
        yield
    finally:
        hub.stop_worker()
        worker.stop(timeout=_SHUTDOWN_MS)
        hub.ledger.flush(FLUSH_SECONDS)


def up(settings: Settings, *, announce: Callable[[str], None] = print, stop: threading.Event | None = None) -> int:
    """Everything in one process: web, workers, releaser, ticker, `/metrics`. Ends on SIGTERM, SIGINT or `stop`.

    Args:
        announce: is told, line by line, where the hub is reached and how to log in the first time.
    """
    empty(settings.metrics_folder)  # this process is the deployment, and it starts now
    with _stop(stop) as stop, build(settings, role="up") as hub:
        web = WebServer(hub)

        def tick() -> None:
            hub.tick()
            hub.heartbeat("scheduler")

        ticker = Ticker(tick, now=hub.clock.now)
        web.start()
        try:
            with work(hub, threads=settings.threads):
                hub.start_heartbeat("web")
                ticker.start()
                hub.start_sources()
                _welcome(hub, web, announce)
                stop.wait()
                log.info("stopping: attempts under way are finished")
                ticker.stop()
        finally:
            web.stop()
    return 0


def web(settings: Settings, *, announce: Callable[[str], None] = print, stop: threading.Event | None = None) -> int:
    """The web server: API, webhooks, console, `/metrics`."""
    with _stop(stop) as stop, build(settings, role="web") as hub:
        hub.configuration.listen()
        hub.start_heartbeat("web")
        server = WebServer(hub)
        server.start()
        try:
            _welcome(hub, server, announce)
            stop.wait()
        finally:
            server.stop()
    return 0


def worker(settings: Settings, *, processes: int | None = None, threads: int | None = None) -> NoReturn:
    """Run Dramatiq workers, each a process of its own that is restarted when it ends. Replaces this process."""
    _needs_broker(settings, "worker")
    build(settings, role="worker", check=True).close()  # what is wrong is said once, before anything starts
    command = [
        sys.executable,
        "-m",
        "hub.programs.child",
        "dramatiq",
        "--processes",
        "1",
        "--threads",
        str(threads or settings.threads),
        "--worker-shutdown-timeout",
        str(_SHUTDOWN_MS),
        "--skip-logging",
        "hub.worker:broker",
    ]
    replace_process(command, count=processes or settings.processes, grace=_GRACE)


def scheduler(settings: Settings) -> NoReturn:
    """Run periodiq, which sends one tick a minute. Replaces this process."""
    _needs_broker(settings, "scheduler")
    build(settings, role="scheduler", check=True).close()
    command = [sys.executable, "-m", "hub.programs.child", "periodiq", "hub.scheduler:broker"]
    replace_process(command, count=1, grace=5.0)


def _needs_broker(settings: Settings, what: str) -> None:
    if settings.broker_url is None:
        raise ConfigError(
            f"not set: `hub {what}` needs RabbitMQ and HUB_DATABASE_URL; without them `hub up` runs everything",
            field="HUB_BROKER_URL",
        )


@contextmanager
def _stop(given: threading.Event | None) -> Iterator[threading.Event]:
    """The caller's way to stop, else signals."""
    if given is not None:
        yield given
    else:
        with stop_signals() as stop:
            yield stop


def _welcome(hub: Hub, server: WebServer, announce: Callable[[str], None]) -> None:
    """Say where the hub is reached. A login link goes to a terminal only: logs are read by more people."""
    announce(f"Integration Hub listens on {server.url}")
    if hub.accounts.users.list():
        return
    if sys.stdout.isatty():
        link = f"{server.url}/login/link/{hub.accounts.links.add()}"
        sys.stdout.write(f"first administrator (this link works once, for an hour): {link}\n")
        sys.stdout.flush()  # never through `announce`: it may write to the log
    else:
        announce("first administrator: there is no user yet; `hub user link` prints a link that makes one")
