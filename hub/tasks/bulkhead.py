"""One slow service must not hold every thread: a share of the threads per service, fair to who is short.

The share is a dynamic threshold (Choudhury and Hahne, 1998): a service may take one more thread while it
holds fewer than `ALPHA` times the threads that are free. Alone it gets most of them; the more services are
slow at once, the less each gets; some are always free. Services known to answer quickly may take all
threads but one: should one of them begin to hang, the others still get through.

A task that finds no room waits in this process's memory, and the thread that next finishes a task of the
same service takes it up. If the process dies, the releaser finds the waiting ones as strays.
"""

from __future__ import annotations

import threading
from collections import deque

ALPHA = 3.0
CONSUMERS = -1  # stands for runs over response queues, which share threads as one service does
_QUICK = 0.05  # seconds: services faster than this on average hold a thread too briefly to matter
_SMOOTHING = 0.2


class Bulkhead:
    """Counts the threads that each service holds."""

    def __init__(self, threads: int = 8) -> None:
        self.threads = threads
        self._lock = threading.Lock()
        self._held: dict[int, int] = {}
        self._total = 0
        self._average: dict[int, float] = {}
        self._waiting: dict[int, deque[int]] = {}
        self._waits: set[int] = set()
        self._closed = False

    def enter(self, service_id: int, task_id: int) -> bool:
        """Take a thread for `task_id`; False: it waits now, or waited already."""
        with self._lock:
            held = self._held.get(service_id, 0)
            if held >= self._share(service_id) and not self._closed:
                if task_id not in self._waits:
                    self._waits.add(task_id)
                    self._waiting.setdefault(service_id, deque()).append(task_id)
                return False
            self._held[service_id] = held + 1
            self._total += 1
            return True

    def _share(self, service_id: int) -> float:
        """How many threads the service may hold; whoever holds none gets one."""
        if self._average.get(service_id, _QUICK + 1) <= _QUICK:
            return max(1, self.threads - 1)
        return max(1.0, ALPHA * (self.threads - self._total))

    def next_or_leave(self, service_id: int, seconds: float) -> int | None:
        """After a task that took `seconds`: the next waiting one for this thread, or give the thread up."""
        with self._lock:
            old = self._average.get(service_id, seconds)
            self._average[service_id] = old + _SMOOTHING * (seconds - old)
            waiting = self._waiting.get(service_id)
            if waiting and not self._closed:
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
