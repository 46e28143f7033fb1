"""Operator events: what happens in the hub is an event that rules can match.

Notices (`hub.store.notices`) are turned into events in one transaction, in web and scheduler processes. The first of a
kind and subject is an event at once; those of the window after it become one event with their count.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

import structlog

from hub.domain.operator_events import DIGEST, NO_WORKERS, SECRETS_UNREADABLE, TASK_DEAD
from hub.errors import UnavailableError
from hub.models import Event, Service
from hub.pipeline.intake import Intake
from hub.store.database import Database
from hub.store.notices import BATCH, Notice, Notices

log = structlog.get_logger("hub.pipeline.operator_events")
_PAUSE = 2.0  # seconds between two steps


class OperatorEvents:
    """Turns notices into events, and finds out what no transaction reports.

    Args:
        services: all services, as this process reads them.
    """

    def __init__(
        self, db: Database, notices: Notices, intake: Intake, services: Callable[[], Iterable[Service]]
    ) -> None:
        self._db = db
        self._notices = notices
        self._intake = intake
        self._services = services
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="hub-operator-events", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop the thread after the current step."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def _run(self) -> None:
        while not self._stop.wait(_PAUSE):
            self.step()

    def step(self) -> int:
        """Look for problems, and write the events of notices that are due. Returns how many; raises nothing."""
        try:
            self._look()
            if not self._notices.waiting():
                return 0
            with self._db.transaction() as conn:
                found = self._notices.take(conn)
                events = [_event(notice) for notice in found]
                _, queued = self._intake.write(events, [0] * len(events), conn)
            self._intake.enqueue(queued)
            return len(events) if len(events) < BATCH else len(events) + self.step()
        except UnavailableError as e:
            log.warning("operator events wait", error=str(e))
        except Exception:
            log.exception("operator events not written; tried again")
        return 0

    def _look(self) -> None:
        alive, last_seen, waiting = self._notices.workers()
        if not alive and waiting and not self._notices.is_known(NO_WORKERS, ""):
            seen = last_seen.astimezone(UTC).isoformat() if last_seen else None
            self._notices.add(NO_WORKERS, "", {"last_seen_at": seen, "waiting": waiting})
        for service in self._services():
            if service.secrets_unreadable and not self._notices.is_known(SECRETS_UNREADABLE, service.name):
                self._notices.add(SECRETS_UNREADABLE, service.name, {"service": service.name})


def _event(notice: Notice) -> Event:
    name = DIGEST if notice.repeated and notice.kind == TASK_DEAD else notice.kind
    data = notice.data | {"count": notice.count, "since": _iso(notice.since), "until": _iso(notice.until)}
    return Event(name, data, f"{name}:{notice.id}", "hub")


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
