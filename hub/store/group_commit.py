"""Group commit: threads that run the same statement at the same time share one execution of it.

The first caller becomes the leader and runs the batch; callers that arrive meanwhile form the next one. There is no
timer: a single caller runs at once, and batches grow under load.

A leader whose connection hangs blocks only its own batch: a caller that waited `patience` seconds leads the next one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from hub.errors import HubError

PATIENCE = 1.0
Item = TypeVar("Item")
Result = TypeVar("Result")


class _Call(Generic[Item, Result]):
    __slots__ = ("done", "error", "item", "result")

    def __init__(self, item: Item) -> None:
        self.item = item
        self.done = threading.Lock()
        self.done.acquire()
        self.result: Result | None = None
        self.error: BaseException | None = None


class GroupCommit(Generic[Item, Result]):
    """Runs `execute(items) -> results` (same length and order) for many threads.

    Args:
        execute: runs one batch, all or nothing. A `HubError` is raised in every caller of that batch; after
            any other error each item is run alone, so that only the items that cause it fail.
        limit: most items of one batch.
        patience: seconds to wait for a leader before running another batch concurrently; the order of batches must not
            matter.
    """

    def __init__(
        self, execute: Callable[[list[Item]], list[Result]], *, limit: int = 200, patience: float = PATIENCE
    ) -> None:
        self._execute = execute
        self._limit = limit
        self._patience = patience
        self._lock = threading.Lock()
        self._waiting: list[_Call[Item, Result]] = []
        self._leading = False

    def __call__(self, item: Item) -> Result:
        """Run `item` with the next batch and return its result."""
        call: _Call[Item, Result] = _Call(item)
        with self._lock:
            lead = not self._leading
            self._leading = True
            if not lead:
                self._waiting.append(call)
        if not lead:
            lead = self._wait(call)
        if lead:
            self._lead(call)
        if call.error is not None:
            raise call.error
        return call.result  # type: ignore[return-value]

    def _wait(self, call: _Call[Item, Result]) -> bool:
        """Wait for the result; True: this caller is to lead instead."""
        while not call.done.acquire(timeout=self._patience):
            with self._lock:
                if call in self._waiting:
                    self._waiting.remove(call)
                    return True
        return call.error is None and call.result is _LEAD

    def _lead(self, own: _Call[Item, Result]) -> None:
        """Run one batch that contains `own`, then pass the lead to the caller that has waited longest."""
        with self._lock:
            batch, self._waiting = [own, *self._waiting[: self._limit - 1]], self._waiting[self._limit - 1 :]
        self._run(batch)
        with self._lock:
            successor = self._waiting.pop(0) if self._waiting else None
            self._leading = successor is not None
        for call in batch:
            if call is not own:
                call.done.release()
        if successor is not None:
            successor.result = _LEAD  # type: ignore[assignment]
            successor.done.release()

    def _run(self, batch: list[_Call[Item, Result]]) -> None:
        try:
            results = self._execute([call.item for call in batch])
            for call, result in zip(batch, results, strict=True):
                call.result = result
        except BaseException as e:
            if len(batch) > 1 and isinstance(e, Exception) and not isinstance(e, HubError):
                for call in batch:
                    self._run([call])
                return
            for call in batch:
                call.error = e


_LEAD = object()
