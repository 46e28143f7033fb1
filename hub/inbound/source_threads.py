"""Threads that read event sources: one per enabled source, started and stopped as definitions change.

A source whose database is away delays no other one. Two processes may run these threads: each source is read by the
one that holds its lease.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import structlog

from hub.config.sources import option
from hub.errors import ConfigError, HubError, SourceError, UnavailableError
from hub.models import Source
from hub.store.source_positions import SourcePositions

log = structlog.get_logger("hub.inbound.source_threads")
_REFRESH = 2.0  # seconds between two looks at the definitions
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0  # seconds after a failure, doubling
_JOIN = 10.0  # seconds


class Poller(Protocol):
    """Reads one source."""

    def look(self) -> str:
        """Read and write at most one batch; `more` when rows are left."""

    def close(self) -> None:
        """End the lease."""


@dataclass(slots=True)
class _Running:
    source: Source
    stop: threading.Event
    thread: threading.Thread


class SourceThreads:
    """Keeps one thread per enabled source.

    Args:
        sources: gives the definitions; may raise `UnavailableError`.
        make: makes the poller of a source and a function that closes its connection.
        positions: of a source, to record failures.
    """

    def __init__(
        self,
        sources: Callable[[], list[Source]],
        make: Callable[[Source, SourcePositions], tuple[Poller, Callable[[], None]]],
        positions: Callable[[Source], SourcePositions],
    ) -> None:
        self._sources = sources
        self._make = make
        self._positions = positions
        self._running: dict[int, _Running] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread that watches the definitions."""
        self._thread = threading.Thread(target=self._watch, name="hub-sources", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop all threads after their current look."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(_JOIN)
        self._keep({})

    def _watch(self) -> None:
        while not self._stop.is_set():
            try:
                self._keep({source.id: source for source in self._sources() if source.enabled})
            except UnavailableError as e:
                log.warning("sources not read from the database", error=str(e))
            except Exception:
                log.exception("sources not read from the database; tried again")
            self._stop.wait(_REFRESH)

    def _keep(self, wanted: dict[int, Source]) -> None:
        """Stop threads of sources that changed or are not wanted, start those that are missing."""
        ended = [r for id_, r in self._running.items() if wanted.get(id_) != r.source or not r.thread.is_alive()]
        for running in ended:
            running.stop.set()
        for running in ended:
            running.thread.join(_JOIN)
            if not running.thread.is_alive():  # else it is still in a query: the next look starts the new one
                del self._running[running.source.id]
        for id_, source in wanted.items():
            if id_ not in self._running and not self._stop.is_set():
                stop = threading.Event()
                thread = threading.Thread(target=self._read, args=(source, stop), name=f"hub-source-{id_}", daemon=True)
                self._running[id_] = _Running(source, stop, thread)
                thread.start()

    def _read(self, source: Source, stop: threading.Event) -> None:
        positions = self._positions(source)
        poller, close = self._make(source, positions)
        interval = float(option(source, "poll_interval"))
        pause = _FIRST_PAUSE
        try:
            while not stop.is_set():
                try:
                    more = poller.look() == "more"
                    pause = _FIRST_PAUSE
                    stop.wait(0 if more else interval)
                except Exception as e:
                    self._failed(source, positions, e)
                    stop.wait(pause)
                    pause = min(pause * 2, _LONGEST_PAUSE)
        finally:
            close()
            try:
                poller.close()
            except HubError:
                pass  # the lease expires

    @staticmethod
    def _failed(source: Source, positions: SourcePositions, error: Exception) -> None:
        if isinstance(error, SourceError | ConfigError):
            log.warning("source not read", source=source.name, error=str(error))
        elif isinstance(error, HubError):
            log.warning("source not read", source=source.name, error=str(error))
            return
        else:
            log.error("source not read", source=source.name, exc_info=error)
        try:
            positions.fail(str(error) if isinstance(error, HubError) else f"internal error: {type(error).__name__}")
        except HubError as e:
            log.warning("failure not recorded", source=source.name, error=str(e))
