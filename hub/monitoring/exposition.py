"""Scrapes: all sources are read in parallel, each with a deadline, and rendered as text.

A scrape always returns. `hub_exporter_collector_up{collector}` says which sources were read. Series of a failed source
are absent, never 0.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from functools import lru_cache
from typing import TYPE_CHECKING

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry
from prometheus_client import Metric as Family
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from hub import __version__
from hub.monitoring.collectors.base import Source, family
from hub.monitoring.collectors.counters import ProcessSource
from hub.monitoring.collectors.ledger import LEDGER_METRICS, LedgerSource
from hub.monitoring.collectors.queues import QUEUE_METRICS, InProcessSource, RabbitSource
from hub.monitoring.metrics import CATALOGUE, Metric
from hub.store.state import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hub.settings import Settings
    from hub.store.database import Database

__all__ = ["CONTENT_TYPE_LATEST", "OPENMETRICS", "Scraper", "make_scraper"]
log = structlog.get_logger("hub.monitoring.exposition")
_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
DEADLINE = 5.0  # seconds; half of Prometheus' usual scrape timeout
UP = Metric("hub_exporter_collector_up", "gauge", "1 if a source of metrics could be read, else 0.", ("collector",))
TOOK = Metric("hub_exporter_collector_duration_seconds", "gauge", "Seconds that reading a source took.", ("collector",))
BUILD = Metric("hub_build_info", "gauge", "1, labelled with the version of the hub.", ("version",))


class Scraper(Collector):
    """Reads all sources and renders them.

    Args:
        deadline: seconds for all sources together; a source that takes longer is left out.
    """

    def __init__(self, sources: Iterable[Source], *, deadline: float = DEADLINE) -> None:
        self._sources = list(sources)
        self._deadline = deadline
        self._busy: dict[str, Future[list[Family]]] = {}
        self._failing: set[str] = set()
        self._lock = threading.Lock()
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def render(self, *, openmetrics: bool = False) -> bytes:
        """Render a scrape in Prometheus' text format or in OpenMetrics. One scrape runs at a time."""
        with self._lock:
            return exposition(self.collect(), openmetrics=openmetrics)

    def response(self, accept: str) -> tuple[str, bytes]:
        """Return (content type, text) for an `Accept` header."""
        openmetrics = any(
            part.partition(";")[0].strip() == "application/openmetrics-text" for part in accept.split(",")
        )
        return OPENMETRICS if openmetrics else CONTENT_TYPE_LATEST, self.render(openmetrics=openmetrics)

    def describe(self) -> Iterator[Family]:
        """Yield families without samples. Reads no source."""
        for metric in (*CATALOGUE, *LEDGER_METRICS, *QUEUE_METRICS, UP, TOOK, BUILD):
            yield Family(metric.name, metric.text, metric.kind)

    def collect(self) -> Iterator[Family]:
        """Read all sources in parallel and yield their families."""
        begun = time.monotonic()
        took: dict[str, float] = {}
        for source in self._sources:
            self._start(source, took)
        up: dict[tuple[str, ...], float] = {}
        for source in self._sources:
            left = max(0.0, begun + self._deadline - time.monotonic())
            try:
                families = self._busy[source.name].result(timeout=left)
            except Exception as e:
                up[(source.name,)] = 0.0
                self._note(source.name, e)
            else:
                up[(source.name,)] = 1.0
                self._note(source.name, None)
                yield from families
        yield family(UP, up.items())
        yield family(TOOK, (((name,), seconds) for name, seconds in took.items()))
        yield family(BUILD, [((__version__,), 1.0)])

    def close(self) -> None:
        """Close the connections of the sources."""
        for source in self._sources:
            busy = self._busy.get(source.name)
            if busy is None or busy.done():
                source.close()

    def _start(self, source: Source, took: dict[str, float]) -> None:
        """Start reading in a thread, unless the read of the last scrape is still running."""
        busy = self._busy.get(source.name)
        if busy is not None and not busy.done():
            return
        future: Future[list[Family]] = Future()
        self._busy[source.name] = future

        def run() -> None:
            begun = time.monotonic()
            try:
                families = source.collect()
            except BaseException as e:
                future.set_exception(e)
            else:
                took[source.name] = time.monotonic() - begun
                future.set_result(families)

        threading.Thread(target=run, name=f"hub-scrape-{source.name}", daemon=True).start()

    def _note(self, name: str, error: Exception | None) -> None:
        if error is not None and name not in self._failing:
            log.warning("a source of metrics cannot be read", collector=name, error=str(error) or type(error).__name__)
            self._failing.add(name)
        elif error is None and name in self._failing:
            log.info("a source of metrics is back", collector=name)
            self._failing.discard(name)


def exposition(families: Iterable[Family], *, openmetrics: bool = False) -> bytes:
    """Render families as `prometheus_client.generate_latest` does, at half its CPU time: names are not validated.

    In OpenMetrics a counter's family is named without `_total`, and a gauge of that name may exist beside it
    (`hub_dead_letters` and `hub_dead_letters_total`). Such a counter gets type unknown, so that series have the same
    names in both formats.
    """
    known = list(families) if openmetrics else families
    others = {made.name for made in known if made.type != "counter"} if openmetrics else set()
    lines = []
    for made in known:
        name, kind, text = made.name, made.type, made.documentation
        if openmetrics:
            text = text.translate(_ESCAPES)
            if kind == "counter" and name in others:
                name, kind = f"{name}_total", "unknown"
        elif kind == "counter":
            name = f"{name}_total"
        lines.append(f"# HELP {name} {text}\n# TYPE {name} {kind}")
        lines += [
            f"{_series(sample.name, tuple(sample.labels.items()))} {floatToGoString(sample.value)}"
            for sample in made.samples
        ]
    if openmetrics:
        lines.append("# EOF")
    return "\n".join([*lines, ""]).encode()


@lru_cache(maxsize=65536)
def _series(name: str, labels: tuple[tuple[str, str], ...]) -> str:
    """Return name and labels as text, labels sorted as `prometheus_client` sorts them."""
    if not labels:
        return name
    inner = ",".join(f'{key}="{value.translate(_ESCAPES)}"' for key, value in sorted(labels))
    return f"{name}{{{inner}}}"


def make_counter_scraper(settings: Settings) -> Scraper:
    """Return a scraper of this machine's counters. It connects to neither PostgreSQL nor RabbitMQ."""
    return Scraper([ProcessSource(settings.metrics_folder, lambda: ([], []))])


def make_scraper(
    settings: Settings, db: Database, queues: Iterable[str], ready: Callable[[str], int | None] | None = None
) -> Scraper:
    """Return a scraper of all sources.

    Args:
        queues: names of the hub's queues.
        ready: for the in-process broker, returns the number of ready messages of a queue.
    """
    ledger = LedgerSource(State(db))
    sources: list[Source] = [
        ledger,
        ProcessSource(settings.metrics_folder, ledger.known),
    ]
    if settings.broker_url is not None:
        sources.append(RabbitSource(settings.broker_url.get_secret_value(), queues))
    elif ready is not None:
        sources.append(InProcessSource(ready, queues))
    return Scraper(sources)
