"""The bulkhead limits the threads that one service may hold, so that a slow service does not hold all of them.

The limit is a dynamic threshold (Choudhury and Hahne, 1998): a service may take one more thread while it holds
fewer than a multiple of the free threads. A single service gets most of them; the more services are slow at once, the
fewer each gets; some threads are always free. The multiple is larger for a service that responds fast than for one
that is unknown or slow.

A task that is not admitted waits in this process's memory. The thread that next finishes a task of the same service
takes it, unless the service holds more than its limit by then. The outbox relay republishes tasks that wait too
long, so the service can take threads that have become free, and tasks of a process that died.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

CONSUMERS = -1  # the key of all reads of response queues, which together are limited as one service
_RESPONSIVE, _SLOW = 7, 2  # multiples of the free threads
LONG = 0.5  # seconds; a service whose average or current task takes longer is slow
_SMOOTHING = 0.2


class Bulkhead:
    """Counts the threads that each service holds."""

    def __init__(self, threads: int = 8, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.threads = threads
        self._clock = clock
        self._lock = threading.Lock()
        self._held: dict[int, int] = {}
        self._total = 0
        self._average: dict[int, float] = {}
        self._since: dict[int, dict[int, float]] = {}  # service -> thread -> start of its task, oldest first
        self._waiting: dict[int, deque[int]] = {}
        self._waits: set[int] = set()
        self._closed = False

    def busy(self) -> int:
        """Threads that run a task now."""
        with self._lock:
            return self._total

    def enter(self, service_id: int, task_id: int) -> bool:
        """Take a thread for `task_id`. False: not admitted; the task waits."""
        with self._lock:
            held = self._held.get(service_id, 0)
            if held and not self._closed and not self._fits(service_id, held, self.threads - self._total):
                if task_id not in self._waits:
                    self._waits.add(task_id)
                    self._waiting.setdefault(service_id, deque()).append(task_id)
                return False
            self._held[service_id] = held + 1
            self._total += 1
            self._since.setdefault(service_id, {})[threading.get_ident()] = self._clock()
            return True

    def next_or_leave(self, service_id: int) -> int | None:
        """End a task. Returns the next waiting task for this thread; None: the thread is released."""
        with self._lock:
            now, thread = self._clock(), threading.get_ident()
            seconds = now - self._since[service_id].pop(thread, now)
            old = self._average.get(service_id, seconds)
            self._average[service_id] = old + _SMOOTHING * (seconds - old)
            waiting, others = self._waiting.get(service_id), self._held[service_id] - 1
            room = not others or self._fits(service_id, others, self.threads - self._total + 1)
            if waiting and room and not self._closed:
                task_id = waiting.popleft()
                self._waits.discard(task_id)
                self._since[service_id][thread] = now
                return task_id
            self._held[service_id] -= 1
            self._total -= 1
            return None

    def _fits(self, service_id: int, held: int, free: int) -> bool:
        """Whether a service that holds `held` threads may take one of the `free` ones."""
        if self._responsive(service_id):
            return held < _RESPONSIVE * free and (free > 1 or self.threads < 4)
        return held < _SLOW * free

    def _responsive(self, service_id: int) -> bool:
        average = self._average.get(service_id)
        if average is None or average > LONG:
            return False
        oldest = next(iter(self._since.get(service_id, {}).values()), None)
        return oldest is None or self._clock() - oldest <= LONG

    def close(self) -> list[int]:
        """Stop queueing tasks; returns the ids of waiting tasks, which the caller releases in the ledger."""
        with self._lock:
            self._closed = True
            left = [t for service_id, waiting in self._waiting.items() if service_id != CONSUMERS for t in waiting]
            self._waiting.clear()
            self._waits.clear()
            return left
