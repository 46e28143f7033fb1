"""Processes that the CLI starts: `up` (everything in one), `web`, `worker`, `scheduler`."""

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
_SHUTDOWN_MS = 60_000  # for running attempts, at a stop
_GRACE = 80.0  # seconds before a process is killed; its tasks are claimed again after their lease
_POLL_MS = 100


@contextmanager
def work(hub: Hub, *, threads: int) -> Iterator[None]:
    """Run Dramatiq's worker in this process, with lease and outbox relay; stops them in order at the end."""
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
    """Run everything in one process: web, workers, outbox relay, ticker, `/metrics`. Ends on SIGTERM, SIGINT or `stop`.

    Args:
        announce: called with lines that say how to reach the hub and how to log in for the first time.
    """
    empty(settings.metrics_folder)  # counters of earlier processes: this process is the whole deployment
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
                log.info("stopping: running attempts are finished")
                ticker.stop()
        finally:
            web.stop()
    return 0


def web(settings: Settings, *, announce: Callable[[str], None] = print, stop: threading.Event | None = None) -> int:
    """Run the web server: API, webhooks, console, `/metrics`."""
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
    """Run Dramatiq workers, each in a process that is restarted when it ends. Replaces this process."""
    _needs_broker(settings, "worker")
    build(settings, role="worker", check=True).close()  # reports errors once, before anything starts
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
    """Run periodiq, which sends one tick per minute. Replaces this process."""
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
    """The caller's event, else one that signals set."""
    if given is not None:
        yield given
    else:
        with stop_signals() as stop:
            yield stop


def _welcome(hub: Hub, server: WebServer, announce: Callable[[str], None]) -> None:
    """Announce the address. A login link is printed to a terminal only, since more people can read logs."""
    announce(f"Integration Hub listens on {server.url}")
    if hub.accounts.users.list():
        return
    if sys.stdout.isatty():
        link = f"{server.url}/login/link/{hub.accounts.links.add()}"
        sys.stdout.write(f"create the first administrator (the link works once, for an hour): {link}\n")
        sys.stdout.flush()  # not through `announce`, which may write to the log
    else:
        announce("there is no user yet; `hub user link` prints a link that creates the first administrator")
