"""The releaser: a thread in every worker process; one of them at a time, chosen by an advisory lock, works.

Once a second (more often while there is a backlog) it makes due tasks pending, recovers those of lost
workers, buries those that are too old, finds strays, and hands over what the broker has room for: to each
service no more than its window, so no service can fill the queue.
"""

from __future__ import annotations

import math
import threading
import time

import structlog

from hub.errors import UnavailableError
from hub.hooks import Hooks
from hub.store.database import Database
from hub.store.heartbeats import Beats
from hub.store.locks import Leadership
from hub.store.outbox import Demand, Releases
from hub.tasks.broker import Broker, InProcessBroker
from hub.tasks.groups import GROUP
from hub.tasks.publish import BrokerPublisher

log = structlog.get_logger("hub.tasks.outbox_relay")
_LOCK = 0x48554222
_IDLE, _BUSY = 1.0, 0.05  # seconds between two looks
_STRAY_CHECK = 2.0
_FORCED = 60  # a queued task this many graces old is handed over again whatever the queue holds


class OutboxRelay:
    """Hands due tasks to the broker.

    Args:
        lease: seconds a worker lives without a sign; a new leader waits as long before it judges.
        grace: seconds after which a queued task may be a stray.
        park: whether tasks wait for an open circuit to cool down; False: they go on, and it costs attempts.
    """

    def __init__(
        self,
        db: Database,
        releases: Releases,
        publisher: BrokerPublisher,
        broker: Broker,
        queue: str,
        beats: Beats,
        hooks: Hooks,
        *,
        window: int,
        lease: float,
        grace: float,
        park: bool = True,
    ) -> None:
        self._leadership = Leadership(db, _LOCK)
        self._releases = releases
        self._publisher = publisher
        self._broker = broker
        self._queue = queue
        self._beats = beats
        self._hooks = hooks
        self._window = window
        self._lease = lease
        self._grace = grace
        self._park = park
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._leading_since: float | None = None
        self._strays_at = self._beat_at = float("-inf")

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="hub-relay", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread and give up the lead."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def _run(self) -> None:
        while not self._stop.is_set():
            pause = _IDLE
            try:
                if self._lead():
                    pause = _BUSY if self.tick() else _IDLE
            except UnavailableError as e:
                log.warning("relay waits", error=str(e))
                self._resign()
            except Exception:
                log.exception("relay failed; it continues")
            self._stop.wait(pause)
        self._resign()

    def _lead(self) -> bool:
        """Whether this process is the one that works."""
        if not self._leadership.hold():
            return False
        if self._leading_since is None:
            self._leading_since = time.monotonic()
            if isinstance(self._broker, InProcessBroker):
                self._releases.unhand_all()  # what was handed over was in the memory of a process that is gone
            log.info("relay leads")
        return True

    def _resign(self) -> None:
        self._leadership.resign()
        self._leading_since = None

    def tick(self) -> bool:
        """One look at the ledger; whether there is more to do at once."""
        if time.monotonic() - self._beat_at >= _IDLE:
            self._beats.beat("releaser")
            self._beat_at = time.monotonic()
        promoted = self._releases.promote()
        if self._leading_since is not None and time.monotonic() - self._leading_since >= self._lease:
            self._recover()
        for service in self._releases.expire():
            self._hooks.dead_letter(service, "expired")
            self._hooks.task_finished(service, "dead")
        if time.monotonic() - self._strays_at >= _STRAY_CHECK and not self._publisher.down:
            self._strays_at = time.monotonic()
            self._republish_lost()
        more = self._fill_queue()
        self._releases.fold()
        return more or promoted > 0

    def _recover(self) -> None:
        for service, dead in self._releases.recover():
            log.warning("a worker was lost in mid-attempt", service=service, dead=dead)
            if dead:
                self._hooks.dead_letter(service, "worker_lost")
                self._hooks.task_finished(service, "dead")

    def _republish_lost(self) -> None:
        """Queued tasks that the broker does not hold: it was wiped, or the publisher died.

        A queue message holds up to `GROUP` tasks, so `ready * GROUP` of the newest may be in the queue;
        the rest are in some worker's memory or lost. A second message for a task is harmless.
        """
        queued = self._releases.queued()
        if not queued:
            return
        ready = self._broker.ready(self._queue) or 0
        missing = queued - ready * GROUP
        found = self._releases.strays(missing, grace=self._grace) if missing > 0 else []
        found += self._releases.strays(GROUP, grace=self._grace * _FORCED)
        if found:
            log.warning("handing over again what the queue does not hold", count=len(found))
            self._publisher.publish(found)

    def _fill_queue(self) -> bool:
        """Fill each service's window; whether some service has more pending than fitted."""
        if self._publisher.down:
            return False
        limits: dict[int, int] = {}
        more = False
        for demand in self._releases.demand():
            room = self._room(demand)
            more = more or (demand.pending > room > 0)
            for i, rule_id in enumerate(demand.rules):
                share = math.ceil(room / (len(demand.rules) - i))
                if share > 0:
                    limits[rule_id] = share
                    room -= share
        if limits and (taken := self._releases.take(limits)):
            self._publisher.publish(taken)
            return True
        return more and bool(limits)

    def _room(self, demand: Demand) -> int:
        if self._park and demand.breaker != "closed":
            probe_free = demand.cooled and demand.queued == 0 and demand.running == 0
            return 1 if probe_free else 0
        window = self._window
        if demand.rate_limit:
            window = min(window, max(1, math.ceil(demand.rate_limit)))
        return max(0, window - demand.queued)
