"""Publishes task ids to the broker: in groups, confirmed, up to the queue limit of a service.

Tasks over the limit, or whose publish fails, stay pending in the ledger, where the outbox relay finds them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import dramatiq
import structlog

from hub.errors import HubError, UnavailableError
from hub.store.ledger import Ledger
from hub.store.ordering import Key, OrderingKeys
from hub.store.outbox import Outbox
from hub.tasks.broker import Broker, HubBroker
from hub.tasks.groups import in_groups

log = structlog.get_logger("hub.tasks.publish")
_REFRESH = 0.25  # seconds for which the counts of queued tasks are cached
_BACK_OFF = 2.0  # seconds without new attempts after the broker failed


class BrokerPublisher:
    """Publishes task ids.

    Args:
        queue_limit: most tasks of one service in the broker.
    """

    def __init__(
        self, broker: Broker, queue: str, ledger: Ledger, outbox: Outbox, ordering: OrderingKeys, *, queue_limit: int
    ) -> None:
        self._broker = broker
        self._queue = queue
        self._ledger = ledger
        self._outbox = outbox
        self._ordering = ordering
        self._queue_limit = queue_limit
        self._lock = threading.Lock()
        self._waiting: dict[int, tuple[int, bool]] = {}
        self._read_at = float("-inf")
        self._down_until = float("-inf")

    def admits(self, service_id: int) -> bool:
        """Whether one more task may be published at once: below the queue limit, circuit closed."""
        now = time.monotonic()
        if now < self._down_until:
            return False
        with self._lock:
            if now - self._read_at >= _REFRESH:
                try:
                    self._waiting = self._outbox.pressure()
                except UnavailableError:
                    self._waiting = {}
                self._read_at = now
            waiting, closed = self._waiting.get(service_id, (0, True))
            if not closed or waiting >= self._queue_limit:
                return False
            self._waiting[service_id] = (waiting + 1, closed)
            return True

    def publish(self, tasks: Sequence[tuple[int, int]]) -> None:
        """Publish (service id, task id) pairs that the ledger has as queued."""
        if isinstance(self._broker, HubBroker):
            messages = [self._message(service_id, ids) for service_id, ids in in_groups(tasks)]
        else:
            messages = [self._message(service_id, [task_id]) for service_id, task_id in tasks]
        for i, (message, _) in enumerate(messages):
            try:
                self._broker.publish(message)
            except Exception as e:
                self._down_until = time.monotonic() + _BACK_OFF
                log.warning("tasks not published; the relay publishes them later", error=str(e))
                self.release([task_id for _, ids in messages[i:] for task_id in ids])
                return

    def open_keys(self, keys: Sequence[Key]) -> None:
        """Let the first task of each ordering key run, and publish it where the queue limit allows."""
        services = {key.service_id for key in keys}
        admitted = [service_id for service_id in services if self.admits(service_id)]
        try:
            ready = self._ordering.open([(key.rule_id, key.key) for key in keys], admitted)
        except Exception as e:
            log.warning("ordering keys not opened; the relay opens them later", count=len(keys), error=str(e))
            return
        if ready:
            self.publish(ready)

    def _message(self, service_id: int, ids: list[int]) -> tuple[dramatiq.Message[None], list[int]]:
        args: tuple[int, ...] = ()
        kwargs: dict[str, object] = {}
        if len(ids) == 1:
            args = (ids[0], service_id)
        else:
            kwargs = {"task_ids": ids, "service_id": service_id}
        message: dramatiq.Message[None] = dramatiq.Message(
            queue_name=self._queue, actor_name="dispatch_event_task", args=args, kwargs=kwargs, options={}
        )
        return message, ids

    def release(self, ids: list[int]) -> None:
        """Set queued tasks back to pending, where the relay finds them. Raises nothing."""
        try:
            self._ledger.release_queued(ids)
        except HubError:
            log.warning("tasks not released; the relay republishes them", count=len(ids))

    @property
    def down(self) -> bool:
        """Whether the broker failed a moment ago."""
        return time.monotonic() < self._down_until


class NoPublisher:
    """For processes that run beside an embedded hub: tasks wait in the ledger for its outbox relay."""

    def admits(self, service_id: int) -> bool:
        return False

    def publish(self, tasks: Sequence[tuple[int, int]]) -> None:
        """Does nothing: no task is ever queued."""

    def open_keys(self, keys: Sequence[Key]) -> None:
        """Does nothing: the outbox relay opens the keys."""
