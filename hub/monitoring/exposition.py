"""One scrape: every source in a thread of its own, with a deadline, so that a dead one takes nothing with it.

The answer always comes, and says which sources are up: `hub_exporter_collector_up{collector}`. A source that
failed is left out: never a 0 for unknown.
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
UP = Metric("hub_exporter_collector_up", "gauge", "Whether a source of metrics could be read.", ("collector",))
TOOK = Metric("hub_exporter_collector_duration_seconds", "gauge", "How long reading a source took.", ("collector",))
BUILD = Metric("hub_build_info", "gauge", "1, labelled with the hub's version.", ("version",))


class Scraper(Collector):
    """All sources behind one `/metrics`.

    Args:
        deadline: seconds after which a source that has not answered is left out.
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
        """The text that Prometheus reads, in its own format or in OpenMetrics. Scrapes come one after the other."""
        with self._lock:
            return exposition(self.collect(), openmetrics=openmetrics)

    def response(self, accept: str) -> tuple[str, bytes]:
        """(content type, text) for a request's `Accept` header: OpenMetrics for those who ask for it."""
        openmetrics = any(
            part.partition(";")[0].strip() == "application/openmetrics-text" for part in accept.split(",")
        )
        return OPENMETRICS if openmetrics else CONTENT_TYPE_LATEST, self.render(openmetrics=openmetrics)

    def describe(self) -> Iterator[Family]:
        """Families without samples: nothing is read."""
        for metric in (*CATALOGUE, *LEDGER_METRICS, *QUEUE_METRICS, UP, TOOK, BUILD):
            yield Family(metric.name, metric.text, metric.kind)

    def collect(self) -> Iterator[Family]:
        """Read every source at once."""
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
        """Close the sources' connections."""
        for source in self._sources:
            busy = self._busy.get(source.name)
            if busy is None or busy.done():
                source.close()

    def _start(self, source: Source, took: dict[str, float]) -> None:
        """Read in a thread; one that hangs since the last scrape is waited for, not joined by another."""
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
    """What `prometheus_client.generate_latest` writes, at half its cost: our names need no checking each time.

    In OpenMetrics a counter's family is named without `_total`, and a gauge of that name may exist beside it
    (`hub_dead_letters`, and `hub_dead_letters_total`). Such a counter is then of type unknown, so that every series
    keeps its name in both formats.
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
    """Name and labels of a sample as they are written, in the order that the library gives them."""
    if not labels:
        return name
    inner = ",".join(f'{key}="{value.translate(_ESCAPES)}"' for key, value in sorted(labels))
    return f"{name}{{{inner}}}"


def make_counter_scraper(settings: Settings) -> Scraper:
    """The counters of this machine's processes alone: no state, nothing is asked of PostgreSQL or RabbitMQ."""
    return Scraper([ProcessSource(settings.metrics_folder, lambda: ([], []))])


def make_scraper(
    settings: Settings, db: Database, queues: Iterable[str], ready: Callable[[str], int | None] | None = None
) -> Scraper:
    """The sources of a hub with these settings.

    Args:
        queues: names of the hub's queues.
        ready: for the in-process broker, messages that wait in a queue.
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
