"""Enqueues accepted tasks on a thread of its own: acceptance waits for the ledger's commit, never for the broker."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence

import structlog

from hub.store.ordering import Key
from hub.tasks.publish import BrokerPublisher

log = structlog.get_logger("hub.tasks.enqueue")
LIMIT = 10_000
"""Most tasks that wait in a process's memory to be published."""
_BATCH = 1000  # most tasks that are taken from the buffer at once
_SLOW = 1.0  # seconds; while a batch takes longer, new tasks are left to the relay


class Enqueuer:
    """Publishes accepted tasks from a bounded buffer; tasks that do not fit are left to the outbox relay.

    The ledger has every task before it is buffered, so nothing is lost with the buffer: a task that was not
    published is released to `pending`, or found as a lost message if this process is killed.

    Args:
        publisher: publishes; releases tasks to the ledger when the broker is unavailable.
        limit: most buffered tasks.
    """

    def __init__(self, publisher: BrokerPublisher, *, limit: int = LIMIT) -> None:
        self._publisher = publisher
        self._limit = limit
        self._changed = threading.Condition()
        self._buffer: deque[tuple[int, int]] = deque()
        self._keys: deque[Key] = deque()
        self._publishing: list[tuple[int, int]] = []
        self._busy_since: float | None = None
        self._closing = False
        self._thread: threading.Thread | None = None

    def admits(self, service_id: int) -> bool:
        """Whether one more task of this service is enqueued at once. False: it waits for the relay."""
        busy_since = self._busy_since
        if busy_since is not None and time.monotonic() - busy_since > _SLOW:
            return False
        return len(self._buffer) < self._limit and self._publisher.admits(service_id)

    def publish(self, tasks: Sequence[tuple[int, int]]) -> None:
        """Buffer (service id, task id) pairs that the ledger has as queued. Never waits for the broker."""
        with self._changed:
            room = 0 if self._closing else max(0, self._limit - len(self._buffer))
            self._buffer.extend(tasks[:room])
            if not self._closing:
                self._start()
            self._changed.notify_all()
        if left := tasks[room:]:
            self._publisher.release([task_id for _, task_id in left])

    def open_keys(self, keys: Sequence[Key]) -> None:
        """Buffer ordering keys whose first task may run; those that do not fit are left to the outbox relay."""
        with self._changed:
            if not self._closing:
                self._keys.extend(keys[: max(0, self._limit - len(self._keys))])
                self._start()
                self._changed.notify_all()

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="hub-enqueue", daemon=True)
            self._thread.start()

    @property
    def waiting(self) -> int:
        """Tasks in the buffer."""
        return len(self._buffer)

    def flush(self, timeout: float) -> bool:
        """Wait until the buffer is published or released; False: not within `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(
                lambda: not self._buffer and not self._keys and self._busy_since is None, timeout
            )

    def close(self, timeout: float) -> None:
        """Publish what is buffered for at most `timeout` seconds, and release the rest."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self.flush(timeout)
        with self._changed:
            left = [task_id for _, task_id in self._buffer]
            self._buffer.clear()
            self._keys.clear()
        if left:
            self._publisher.release(left)

    def join(self, timeout: float) -> None:
        """After `close`: wait for the thread. Tasks that it is still publishing after `timeout` seconds are released.

        The broker may still receive their messages: a second message for a task is harmless.
        """
        if self._thread is None:
            return
        self._thread.join(timeout)
        with self._changed:
            left = [task_id for _, task_id in self._publishing]
        if left:
            self._publisher.release(left)

    def _run(self) -> None:
        while work := self._next():
            batch, keys = work
            try:
                if keys and not self._publisher.down:
                    self._publisher.open_keys(keys)
                if self._publisher.down:
                    self._publisher.release([task_id for _, task_id in batch])
                elif batch:
                    self._publisher.publish(batch)
            except Exception:
                log.exception("not enqueued; the relay finds the tasks", count=len(batch))
            with self._changed:
                self._publishing = []
                self._busy_since = None
                self._changed.notify_all()

    def _next(self) -> tuple[list[tuple[int, int]], list[Key]] | None:
        """The next tasks and ordering keys; None: closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._buffer or self._keys or self._closing)
            keys = [self._keys.popleft() for _ in range(min(_BATCH, len(self._keys)))]
            batch = [self._buffer.popleft() for _ in range(min(_BATCH, len(self._buffer)))]
            self._publishing = batch
            if not batch and not keys:
                return None
            self._busy_since = time.monotonic()
            return batch, keys
