"""Write-behind buffer: callers queue an item and go on, one thread writes the queued items in batches.

The next batch begins when the last one is written. There is no timer: a single item is written at once, and batches
grow under load.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

import structlog

from hub.errors import HubError

log = structlog.get_logger("hub.store.write_behind")
Item = TypeVar("Item")
Result = TypeVar("Result")


class WriteBehind(Generic[Item, Result]):
    """Runs `execute(items) -> results` (same length and order) in a thread of its own.

    At most `limit` items are unwritten; further callers wait, so that memory, and what a crash loses, stay bounded.

    Args:
        then: called with each item and its result, in the writing thread.
    """

    def __init__(
        self,
        execute: Callable[[list[Item]], list[Result]],
        then: Callable[[Item, Result], None],
        *,
        limit: int = 200,
    ) -> None:
        self._execute = execute
        self._then = then
        self._limit = limit
        self._room = threading.Semaphore(limit)
        self._queue: queue.SimpleQueue[Item | threading.Event | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, item: Item) -> None:
        """Queue an item. Waits while `limit` others are unwritten."""
        self._room.acquire()
        self._queue.put(item)
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="hub-write-behind", daemon=True)
                    self._thread.start()

    def flush(self, timeout: float) -> bool:
        """Wait until all items queued so far are written; False: not within `timeout` seconds."""
        if self._thread is None:
            return True
        written = threading.Event()
        self._queue.put(written)
        return written.wait(timeout)

    def close(self) -> None:
        """Write the queued items and end the thread. `add` starts it again."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._queue.put(None)
            thread.join(timeout=10)

    def _run(self) -> None:
        while True:
            entry: Item | threading.Event | None = self._queue.get()
            batch: list[Item] = []
            while entry is not None and not isinstance(entry, threading.Event):
                batch.append(entry)
                if len(batch) == self._limit:
                    break
                try:
                    entry = self._queue.get_nowait()
                except queue.Empty:
                    break
            if batch:
                self._write(batch)
                self._room.release(len(batch))
            if entry is None:
                return
            if isinstance(entry, threading.Event):
                entry.set()

    def _write(self, batch: list[Item]) -> None:
        try:
            for item, result in zip(batch, self._execute(batch), strict=True):
                self._then(item, result)
        except HubError as e:
            log.warning("results not written; their tasks will run again", count=len(batch), error=str(e))
        except Exception:
            if len(batch) == 1:
                log.exception("a result cannot be written; its task will run again")
            else:  # one item fails the batch: write the others alone
                for item in batch:
                    self._write([item])
