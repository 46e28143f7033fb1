"""The interface of a source of metrics."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from prometheus_client import Metric as Family

from hub.monitoring.metrics import Metric


class Source(Protocol):
    """A source of metric families."""

    name: str

    def collect(self) -> list[Family]:
        """Return the current families. Raises when the source cannot be read."""

    def close(self) -> None:
        """Close connections."""


def family(metric: Metric, samples: Iterable[tuple[tuple[str, ...], float]] = ()) -> Family:
    """Return a gauge or counter family with samples by label values."""
    made = Family(metric.name, metric.text, metric.kind)
    name = metric.name + ("_total" if metric.kind == "counter" else "")
    for values, value in samples:
        made.add_sample(name, dict(zip(metric.labels, values, strict=True)), value)
    return made
