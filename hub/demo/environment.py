"""The environment of the demo: a temporary `HUB_HOME`, everything that `hub up` runs, and the services."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import requests

from hub.app.lifecycle import Hub, build
from hub.codec import loads
from hub.demo.screen import Screen
from hub.demo.target import Target
from hub.domain.events import parse_event
from hub.models import Accepted, Event
from hub.monitoring.prometheus_hooks import PrometheusHooks
from hub.programs.log_lines import redirected
from hub.programs.log_setup import configure_logging
from hub.programs.up import work
from hub.settings import Settings
from hub.store.database import Row
from hub.tasks.ticker import Ticker
from hub.web.server import WebServer

TIMEOUT = 60.0  # seconds for each step, on a slow machine
_POLL = 0.05  # seconds
_THREADS = 4
_LOG_LINES = 40  # last lines of the log, shown if the demo fails
T = TypeVar("T")


class Interrupted(Exception):  # noqa: N818 - not an error
    """SIGINT or SIGTERM."""


class NotObserved(Exception):  # noqa: N818 - a result of the demo, not an error of the hub
    """Something expected did not happen within `TIMEOUT` seconds."""


class _OwnSettings(Settings):
    """Settings that ignore the environment, so that the demo never touches the user's own hub."""

    reads_environment = False


class RecordingHooks(PrometheusHooks):
    """The usual metrics; also records changes of circuits, parked tasks and dead letters."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.moves: list[tuple[str, str, str]] = []
        self.parks: list[str] = []
        self.dead: list[str] = []
        self.replays = 0

    def breaker_changed(self, service: str, from_state: str, to_state: str) -> None:
        super().breaker_changed(service, from_state, to_state)
        self.moves.append((service, from_state, to_state))

    def parked(self, service: str) -> None:
        super().parked(service)
        self.parks.append(service)

    def dead_letter(self, service: str, reason: str) -> None:
        super().dead_letter(service, reason)
        self.dead.append(service)

    def dead_letter_replayed(self, service: str, count: int = 1) -> None:
        super().dead_letter_replayed(service, count)
        self.replays += count


class Environment:
    """A running hub with its services. Made by `open_environment`."""

    def __init__(
        self,
        hub: Hub,
        *,
        recorded: RecordingHooks,
        target: Target,
        web: str,
        screen: Screen,
        stop: threading.Event,
        log_lines: Callable[[], list[str]],
    ) -> None:
        self.hub = hub
        self.recorded = recorded
        self.target = target
        self.web = web
        self.screen = screen
        self.log_lines = log_lines
        self.accepted: list[Accepted] = []
        self._stop = stop
        self._reported: set[int] = set()
        self._moves_reported = self._parks_reported = 0

    def feed(self, events: Sequence[Event]) -> list[Accepted]:
        """Send events to the hub, as `hub emit FILE` does."""
        accepted = self.hub.intake.handle_events(events)
        self.accepted += accepted
        for name, count in Counter(event.name for event in events).items():
            self.screen.happened("→", f"event {name}" + (f" × {count}" if count > 1 else ""), style="cyan")
        return accepted

    def until(self, look: Callable[[], T | None], what: str) -> T:
        """Wait until `look` returns something true, and print meanwhile what happens.

        Raises:
            NotObserved: it did not within `TIMEOUT`.
            Interrupted: the process got a signal to end.
        """
        deadline = time.monotonic() + TIMEOUT
        with self.screen.waiting(what):
            while True:
                found = look()
                self.report()
                if found:
                    return found
                if time.monotonic() > deadline:
                    raise NotObserved(f"{what}: not within {TIMEOUT:.0f} s")
                if self._stop.wait(_POLL):
                    raise Interrupted

    def report(self) -> None:
        """Print deliveries, circuit changes and parked tasks that were not printed yet."""
        new = [row for row in self.deliveries() if row["id"] not in self._reported]
        for row in sorted(new, key=lambda row: row["created_at"]):
            self._reported.add(row["id"])
            mark, text, style = _line(row)
            self.screen.happened(mark, text, style=style)
        for service, before, after in self.recorded.moves[self._moves_reported :]:
            self._moves_reported += 1
            self.screen.happened("⚡", f"circuit of {service}: {before} → {after}", style="bold magenta")
        parked = self.recorded.parks[self._parks_reported :]
        self._parks_reported += len(parked)
        for service in dict.fromkeys(parked):
            count = parked.count(service)
            self.screen.happened(
                "‖", f"{count} task{'s'[: count > 1]} of {service} parked, no attempt counted", style="dim"
            )

    def deliveries(self, task: int | None = None) -> list[Row]:
        """The delivery log, oldest first."""
        return self.hub.views.deliveries.list(task=task, limit=1000)[::-1]

    def metrics(self) -> str:
        """The text of `/metrics`."""
        with requests.Session() as session:
            session.trust_env = False
            return session.get(f"{self.web}/metrics", timeout=TIMEOUT).text

    def delivered(self, task: int) -> Row | None:
        """The successful delivery of a task; None if it was not delivered yet."""
        ended = self.hub.views.tasks.ended(task)
        if not ended or ended["how"] != "delivered":
            return None
        return next((row for row in self.deliveries(task) if row["success"]), None)


@contextmanager
def open_environment(screen: Screen, stop: threading.Event) -> Iterator[Environment]:
    """Start everything; stop and remove it at the end, also after an error."""
    home = Path(tempfile.mkdtemp(prefix="hub-demo-"))
    with ExitStack() as stack:
        stack.callback(_remove, home)
        own: dict[str, Any] = {"home": home, "listen": "127.0.0.1:0", "retry_delays": (1, 2, 3, 4), "threads": _THREADS}
        settings = _OwnSettings(**own)
        log = stack.enter_context(_log_into(settings, home / "demo.log"))
        try:
            with screen.waiting("starting a private PostgreSQL and the hub"):
                target = Target(token="demo-token")  # noqa: S106 - the sample service's
                stack.callback(target.close)
                recorded = RecordingHooks(settings.metrics_folder)
                hub = stack.enter_context(build(settings, role="up", hooks=recorded))
                web = stack.enter_context(WebServer(hub))
                stack.enter_context(work(hub, threads=_THREADS))
                hub.start_heartbeat("web")

                def tick() -> None:
                    hub.tick()
                    hub.heartbeats.beat("scheduler")

                ticker = Ticker(tick, now=hub.clock.now)
                ticker.start()
                stack.callback(ticker.stop)
            yield Environment(
                hub, recorded=recorded, target=target, web=web.url, screen=screen, stop=stop, log_lines=log
            )
        except BaseException as e:
            if not isinstance(e, Interrupted | KeyboardInterrupt):
                screen.raw("".join(log()))
            raise


def sample_events() -> list[Event]:
    """The events of `events.ndjson`."""
    text = files("hub.demo").joinpath("events.ndjson").read_text("utf-8")
    return [parse_event(loads(line), limit=1_048_576) for line in text.splitlines()]


@contextmanager
def _log_into(settings: Settings, path: Path) -> Iterator[Callable[[], list[str]]]:
    """Log into a file; returns a function that returns the last lines."""
    configure_logging(settings)
    with path.open("w", encoding="utf-8") as file, redirected(file.fileno()):

        def log_lines() -> list[str]:
            return list(deque(path.read_text("utf-8").splitlines(keepends=True), _LOG_LINES))

        yield log_lines


def _remove(home: Path) -> None:
    note = home / "postgres" / "socket-folder"  # there is one when the path of `home` is too long for a socket
    if note.exists():
        shutil.rmtree(note.read_text().strip(), ignore_errors=True)
    shutil.rmtree(home, ignore_errors=True)


def _line(row: Row) -> tuple[str, str, str]:
    """A delivery as mark, text and style."""
    if row["direction"] == "inbound":
        return "←", f"response from {row['service']} for task {row['task_id']}: {row['response_body']}", "green"
    what = f"{row['method']} {row['endpoint']}" if row["status"] else f"{row['method']}"
    response = f"{row['status']}" if row["status"] else "confirmed" if row["success"] else str(row["error"])
    tries = f", {row['tries']} tries" if row["tries"] > 1 else ""
    text = f"task {row['task_id']}, attempt {row['attempt']}: {row['service']} {what} → {response}"
    text += f" ({row['latency_ms']:.0f} ms{tries})"
    return ("✔", text, "green") if row["success"] else ("✘", text, "yellow")
