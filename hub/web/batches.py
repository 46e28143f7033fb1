"""Batches between the event loop and threads: what arrives while threads are busy is their next batch."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
_THREADS = 2
_MOST_THREADS = 8
_PATIENCE = 1.0  # seconds after which one more thread is started for items that wait


class Batches(Generic[Item, Result]):
    """Runs `execute` on threads for items of an event loop.

    An item never waits for others to arrive. Two threads are enough, because a batch grows while they are busy; more
    are started, up to eight, when an item has waited for a second: a broken connection holds only its own batch.

    Args:
        execute: returns one result or exception for each item.
        limit: most items of one batch.
    """

    def __init__(
        self, execute: Callable[[Sequence[Item]], Sequence[Result | Exception]], *, limit: int, name: str
    ) -> None:
        self._execute = execute
        self._limit = limit
        self._name = name
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Item, asyncio.Future[Result], float]] = deque()
        self._threads = 0
        self._idle = 0

    def put(self, item: Item) -> asyncio.Future[Result]:
        """Pass an item to the threads; called on the event loop."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        now = loop.time()
        with self._changed:
            self._waiting.append((item, future, now))
            if self._idle:
                self._changed.notify()
            elif self._threads < _THREADS or (self._threads < _MOST_THREADS and now - self._waiting[0][2] > _PATIENCE):
                self._threads += 1
                threading.Thread(target=self._run, args=[loop], name=self._name, daemon=True).start()
        return future

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            batch = self._next()
            try:
                results = self._execute([item for item, _, _ in batch])
            except Exception as e:
                results = [e] * len(batch)
            futures = [future for _, future, _ in batch]
            try:
                loop.call_soon_threadsafe(_resolve, futures, results)
            except RuntimeError:
                return  # the loop is closed: the process ends

    def _next(self) -> list[tuple[Item, asyncio.Future[Result], float]]:
        with self._changed:
            self._idle += 1
            self._changed.wait_for(lambda: self._waiting)
            self._idle -= 1
            return [self._waiting.popleft() for _ in range(min(self._limit, len(self._waiting)))]


def _resolve(futures: Sequence[asyncio.Future[Result]], results: Sequence[Result | Exception]) -> None:
    for future, result in zip(futures, results, strict=True):
        if future.done():
            continue  # the request was cancelled
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)
