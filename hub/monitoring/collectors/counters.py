"""Counters and histograms: the value files summed, and 0 for known label values without a count."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

from prometheus_client import Metric as Family
from prometheus_client.utils import floatToGoString

from hub.monitoring.metrics import CATALOGUE, CONSUMER, Metric
from hub.monitoring.value_files import Labels, read


class ProcessSource:
    """Counters and histograms of all processes on this machine.

    Args:
        known: returns (services, services with a response queue), whose counters are exported from 0 on.
    """

    name = "processes"

    def __init__(self, folder: Path, known: Callable[[], tuple[list[str], list[str]]]) -> None:
        self._folder = folder
        self._known = known

    def collect(self) -> list[Family]:
        """Sum the value files."""
        numbers = read(self._folder)
        services, consumers = self._known()
        return [self._family(m, numbers.get(m.name, {}), services, consumers) for m in CATALOGUE]

    def _family(
        self, metric: Metric, numbers: dict[tuple[str, Labels], float], services: list[str], consumers: list[str]
    ) -> Family:
        if metric.kind == "histogram":
            return _histogram(metric, numbers)
        sample = metric.name + ("_total" if metric.kind == "counter" else "")
        values = {labels: value for (name, labels), value in numbers.items() if name == sample}
        names = consumers if metric in CONSUMER else services
        for known in _known_labels(metric, names):
            values.setdefault(known, 0.0)
        made = Family(metric.name, metric.text, metric.kind)
        for labels, value in values.items():
            by_name = dict(labels)
            made.add_sample(sample, {name: by_name[name] for name in metric.labels}, value)
        return made

    def close(self) -> None:
        """Do nothing: no connection is open."""


def _known_labels(metric: Metric, services: list[str]) -> Iterator[Labels]:
    if metric.labels[:1] == ("service",):
        values = ((service, *rest) for service in services for rest in metric.known)
    else:
        values = (rest for rest in metric.known)
    for labels in values:
        yield tuple(sorted(zip(metric.labels, labels, strict=True)))


def _histogram(metric: Metric, numbers: dict[tuple[str, Labels], float]) -> Family:
    """Build a histogram family. The files hold a count per bucket; Prometheus expects cumulative counts."""
    bounds = [floatToGoString(b) for b in (*metric.buckets, float("inf"))]
    counts: dict[Labels, dict[str, float]] = {}
    sums: dict[Labels, float] = {}
    for (sample, labels), value in numbers.items():
        if sample.endswith("_bucket"):
            (le,) = (value for name, value in labels if name == "le")
            counts.setdefault(tuple(pair for pair in labels if pair[0] != "le"), {})[le] = value
        else:
            sums[labels] = value
    made = Family(metric.name, metric.text, "histogram")
    for labels, own in counts.items():
        total = 0.0
        for bound in bounds:
            total += own.get(bound, 0.0)
            made.add_sample(f"{metric.name}_bucket", dict(chain(labels, (("le", bound),))), total)
        made.add_sample(f"{metric.name}_count", dict(labels), total)
        made.add_sample(f"{metric.name}_sum", dict(labels), sums.get(labels, 0.0))
    return made
