"""What every source of metrics has in common."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from prometheus_client import Metric as Family

from hub.monitoring.metrics import Metric


class Source(Protocol):
    """Something that can be read for metrics; raises when it cannot."""

    name: str

    def collect(self) -> list[Family]:
        """The families as they are now."""

    def close(self) -> None:
        """Let connections go."""


def family(metric: Metric, samples: Iterable[tuple[tuple[str, ...], float]] = ()) -> Family:
    """A gauge family with samples by label values."""
    made = Family(metric.name, metric.text, metric.kind)
    for values, value in samples:
        made.add_sample(metric.name, dict(zip(metric.labels, values, strict=True)), value)
    return made
