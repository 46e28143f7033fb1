"""The outbox relay: publishes due tasks from the ledger to the broker.

Every worker process has a relay thread; an advisory lock elects the one that works. Once a second (more often
while there is a backlog) it makes due tasks pending, recovers tasks of lost workers, moves expired tasks to the
dead-letter queue, republishes lost messages, and publishes pending tasks up to the queue limit of each service.

Tasks of the bulk lane (backfills, bulk replays) come last: only those of services without a pending live task, and
few at a time, so that a live task never waits behind more than `BULK_QUEUED` of them.
"""

from __future__ import annotations

import math
import threading
import time

import structlog

from hub.errors import UnavailableError
from hub.hooks import Hooks
from hub.store.database import Database
from hub.store.heartbeats import Heartbeats
from hub.store.locks import Leadership
from hub.store.ordering import OrderingKeys
from hub.store.outbox import Demand, Outbox
from hub.tasks.broker import Broker, InProcessBroker
from hub.tasks.groups import GROUP
from hub.tasks.publish import BrokerPublisher

log = structlog.get_logger("hub.tasks.outbox_relay")
_LOCK = 0x48554222
_IDLE, _BUSY = 1.0, 0.05  # seconds between two rounds
_SWEEP = 1.0  # seconds between two searches for ordering keys that nobody holds
_LOST_CHECK = 2.0  # seconds between two searches for lost messages
BULK_QUEUED = 16
"""Most tasks of the bulk lane that are published and not claimed, of all services together."""
_FORCED = 60  # times `republish_after`: a queued task that old is republished whatever the queue holds


class OutboxRelay:
    """Publishes due tasks.

    Args:
        lease: seconds a worker's lease lasts; a new leader waits as long before it recovers tasks.
        queue_limit: most tasks of one service in the broker.
        republish_after: seconds after which the message of a queued task may be lost.
        park: whether tasks wait until an open circuit has cooled down; False: they are published and count attempts.
    """

    def __init__(
        self,
        db: Database,
        outbox: Outbox,
        ordering: OrderingKeys,
        publisher: BrokerPublisher,
        broker: Broker,
        queue: str,
        beats: Heartbeats,
        hooks: Hooks,
        *,
        queue_limit: int,
        lease: float,
        republish_after: float,
        park: bool = True,
    ) -> None:
        self._leadership = Leadership(db, _LOCK)
        self._outbox = outbox
        self._ordering = ordering
        self._publisher = publisher
        self._broker = broker
        self._queue = queue
        self._beats = beats
        self._hooks = hooks
        self._queue_limit = queue_limit
        self._lease = lease
        self._republish_after = republish_after
        self._park = park
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._leading_since: float | None = None
        self._lost_at = self._swept_at = self._beat_at = self._broker_at = float("-inf")

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="hub-relay", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread and release the lock."""
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
        """Whether this process holds the lock."""
        if not self._leadership.hold():
            return False
        if self._leading_since is None:
            self._leading_since = time.monotonic()
            if isinstance(self._broker, InProcessBroker):
                self._outbox.release_all_queued()  # published tasks were in the memory of a process that has ended
            log.info("relay elected")
        return True

    def _resign(self) -> None:
        self._leadership.resign()
        self._leading_since = None

    def tick(self) -> bool:
        """One round. Returns whether there is more work at once."""
        if time.monotonic() - self._beat_at >= _IDLE:
            self._beats.beat("releaser")
            self._beat_at = time.monotonic()
        promoted, waiting = self._outbox.promote()
        if waiting:
            self._ordering.open(waiting)
        if self._leading_since is not None and time.monotonic() - self._leading_since >= self._lease:
            self._recover()
        for service in self._outbox.expire():
            self._hooks.dead_letter(service, "expired")
            self._hooks.task_finished(service, "dead")
        if time.monotonic() - self._lost_at >= _LOST_CHECK and not self._publisher.down:
            self._lost_at = time.monotonic()
            self._republish_lost()
        if time.monotonic() - self._swept_at >= _SWEEP:
            self._swept_at = time.monotonic()
            self._ordering.sweep()
        more = self._fill_queue()
        if not self._publisher.down and time.monotonic() - self._broker_at >= _IDLE:
            self._beats.beat("broker")
            self._broker_at = time.monotonic()
        self._outbox.fold()
        return more or promoted > 0

    def _recover(self) -> None:
        for service, dead in self._outbox.recover():
            log.warning("a worker was lost during an attempt", service=service, dead=dead)
            if dead:
                self._hooks.dead_letter(service, "worker_lost")
                self._hooks.task_finished(service, "dead")

    def _republish_lost(self) -> None:
        """Republish queued tasks whose message is lost: the broker was wiped, or the publisher was killed.

        A queue message holds up to `GROUP` tasks, so `ready * GROUP` of the newest may be in the queue;
        the rest are in a worker's memory or lost. A second message for a task is harmless.
        """
        queued = self._outbox.queued()
        if not queued:
            return
        ready = self._broker.ready(self._queue) or 0
        missing = queued - ready * GROUP
        found = self._outbox.lost_messages(missing, age=self._republish_after) if missing > 0 else []
        found += self._outbox.lost_messages(GROUP, age=self._republish_after * _FORCED)
        if found:
            log.warning("republishing tasks whose messages are lost", count=len(found))
            self._publisher.publish(found)

    def _fill_queue(self) -> bool:
        """Publish up to each service's queue limit, live tasks first. True: a service has more pending tasks."""
        if self._publisher.down:
            return False
        demands = self._outbox.demand()
        more = self._publish(demands, {demand.service_id: self._room(demand) for demand in demands})
        return self._fill_bulk() or more

    def _fill_bulk(self) -> bool:
        """Publish tasks of the bulk lane. True: there are more of them."""
        demands = self._outbox.bulk_demand()
        if not demands:
            return False
        most = {demand.service_id: self._room(demand) for demand in demands}
        left = max(0, BULK_QUEUED - self._outbox.bulk_queued())
        if not left:
            return any(most.values())  # look again soon: workers are taking what is published
        rooms: dict[int, int] = {}
        for i, (service_id, room) in enumerate(sorted(most.items(), key=lambda item: item[1])):
            rooms[service_id] = min(room, math.ceil(left / (len(most) - i)))
            left -= rooms[service_id]
        return self._publish(demands, rooms, bulk=True)

    def _publish(self, demands: list[Demand], rooms: dict[int, int], *, bulk: bool = False) -> bool:
        """Publish at most `rooms[service id]` tasks of each service, shared among its rules. True: there are more."""
        limits: dict[int, int] = {}
        more = False
        for demand in demands:
            room = rooms[demand.service_id]
            more = more or (demand.pending > room > 0)
            for i, rule_id in enumerate(demand.rules):
                share = math.ceil(room / (len(demand.rules) - i))
                if share > 0:
                    limits[rule_id] = share
                    room -= share
        if limits and (taken := self._outbox.take(limits, bulk=bulk)):
            self._publisher.publish(taken)
            return True
        return more and bool(limits)

    def _room(self, demand: Demand) -> int:
        if self._park and demand.breaker != "closed":
            probe_free = demand.cooled and demand.queued == 0 and demand.running == 0
            return 1 if probe_free else 0
        limit = self._queue_limit
        if demand.rate_limit:
            limit = min(limit, max(1, math.ceil(demand.rate_limit)))
        return max(0, limit - demand.queued)
