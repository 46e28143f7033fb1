"""One slow service must not hold every thread: a share of the threads per service, fair to who is short.

The share is a dynamic threshold (Choudhury and Hahne, 1998): a service may take one more thread while it
holds fewer than `ALPHA` times the threads that are free. Alone it gets most of them; the more services are
slow at once, the less each gets; some are always free. It holds for every service, for one that was quick
until now may hang from one second to the next.

A task that finds no room waits in this process's memory, and the thread that next finishes a task of the
same service takes it up, unless the service holds more than its share by then: so a slow one gives way as its
attempts end. The releaser finds what waits too long as strays and hands it over again: then the service
takes up threads that have become free. It does the same if the process dies.
"""

from __future__ import annotations

import threading
from collections import deque

ALPHA = 3.0
CONSUMERS = -1  # stands for runs over response queues, which share threads as one service does


class Bulkhead:
    """Counts the threads that each service holds."""

    def __init__(self, threads: int = 8) -> None:
        self.threads = threads
        self._lock = threading.Lock()
        self._held: dict[int, int] = {}
        self._total = 0
        self._waiting: dict[int, deque[int]] = {}
        self._waits: set[int] = set()
        self._closed = False

    def enter(self, service_id: int, task_id: int) -> bool:
        """Take a thread for `task_id`; False: it waits now, or waited already."""
        with self._lock:
            held = self._held.get(service_id, 0)
            if held and held >= ALPHA * (self.threads - self._total) and not self._closed:
                if task_id not in self._waits:
                    self._waits.add(task_id)
                    self._waiting.setdefault(service_id, deque()).append(task_id)
                return False
            self._held[service_id] = held + 1
            self._total += 1
            return True

    def next_or_leave(self, service_id: int) -> int | None:
        """After a task: the next waiting one for this thread, or give the thread up."""
        with self._lock:
            waiting, held = self._waiting.get(service_id), self._held[service_id]
            share = ALPHA * (self.threads - self._total + 1)
            if waiting and not self._closed and (held == 1 or held - 1 < share):
                task_id = waiting.popleft()
                self._waits.discard(task_id)
                return task_id
            self._held[service_id] -= 1
            self._total -= 1
            return None

    def close(self) -> list[int]:
        """Shut down: nothing waits any more; returns what waited, for the ledger."""
        with self._lock:
            self._closed = True
            left = [t for service_id, waiting in self._waiting.items() if service_id != CONSUMERS for t in waiting]
            self._waiting.clear()
            self._waits.clear()
            return left
