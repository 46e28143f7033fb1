"""What a run of the bench comes to: medians, ratios, a table and `bench.json`."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

Numbers = Mapping[str, float]

# ratio -> (row and number above, row and number below, the least that is wanted; None: no bar)
RATIOS: dict[str, tuple[str, str, float | None]] = {
    "hub/bare_dramatiq": ("hub.per_second", "bare_dramatiq.per_second", 1.0),
    "hub/celery": ("hub.per_second", "celery.per_second", 1.5),
    "hub/raw_requests": ("hub.per_second", "raw_requests.per_second", None),
    "slow_hub/slow_bare_dramatiq": ("slow_hub.per_second", "slow_bare_dramatiq.per_second", None),
    "slow_hub/slow_celery": ("slow_hub.per_second", "slow_celery.per_second", 1.5),
    "ingest_api_single/bare_fastapi": ("ingest_api_single.per_second", "bare_fastapi.per_second", 3.0),
    "consumer/bare_pika": ("consumer.per_second", "consumer_bare_pika.per_second", None),
    "ingest_ndjson/copy": ("ingest_ndjson.per_second", "ingest_copy.per_second", None),
    "ingest_ndjson/publishing": ("ingest_ndjson.per_second", "ingest_publishing.per_second", None),
    "neighbour_hanging/alone": ("neighbour_hanging.per_second", "neighbour_alone.per_second", 0.9),
    "neighbour_backlog/alone": ("neighbour_backlog.per_second", "neighbour_alone.per_second", None),
    "depth_million/depth_none": ("depth_million.per_second", "depth_none.per_second", 0.9),
}
# number -> the most that is wanted
MOST: dict[str, float] = {
    "latency.p50_ms": 15,
    "latency.p99_ms": 100,
    "neighbour_hanging.p99_times": 2,
}


def middle(runs: Sequence[Numbers]) -> dict[str, float]:
    """The median of each number over the runs; `runs` says how many there were."""
    names = dict.fromkeys(name for run in runs for name in run)
    found = {name: statistics.median([run[name] for run in runs if name in run]) for name in names}
    return {**found, "runs": len(runs)}


def document(runs: Mapping[str, Sequence[Numbers]], about: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """`bench.json`: rows by name, the ratios and bars that those rows allow."""
    rows = {name: middle(done) for name, done in runs.items() if done}
    if "neighbour_alone" in rows:
        for name in ("neighbour_hanging", "neighbour_backlog"):
            if name in rows:
                rows[name]["p99_times"] = rows[name]["p99_ms"] / rows["neighbour_alone"]["p99_ms"]
    ratios, bars = {}, {}
    for name, (above, below, least) in RATIOS.items():
        a, b = _number(rows, above), _number(rows, below)
        if a is not None and b:
            ratios[name] = a / b
            if least is not None:
                bars[f"{name} >= {least:g}"] = ratios[name] >= least
    for name, most in MOST.items():
        value = _number(rows, name)
        if value is not None:
            bars[f"{name} <= {most:g}"] = value <= most
    return {"about": dict(about or {}), "rows": rows, "ratios": ratios, "bars": bars}


def _number(rows: Mapping[str, Numbers], name: str) -> float | None:
    row, _, number = name.rpartition(".")
    return rows.get(row, {}).get(number)


def write(path: Path, result: Mapping[str, Any]) -> None:
    """Write it; a reader never sees half a file."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(result, indent=2) + "\n")
    part.replace(path)


def about(seconds: float, *, quick: bool) -> dict[str, Any]:
    """Where and how this run was made."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds),
        "quick": quick,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load_at_end": round(os.getloadavg()[0], 2),
    }


def show(result: Mapping[str, Any], what: Mapping[str, str], console: Console | None = None) -> None:
    """Print the table."""
    console = console or Console()
    table = Table("Row", "Per second", "More", "What", title="medians of several runs, by turns")
    for name, row in result["rows"].items():
        more = ", ".join(f"{key} {value:,.4g}" for key, value in row.items() if key not in ("per_second", "runs"))
        rate = f"{row['per_second']:,.0f}" if "per_second" in row else ""
        table.add_row(name, rate, more, what.get(name, ""))
    console.print(table)
    if result["ratios"]:
        console.print(Table.grid())
        for name, ratio in result["ratios"].items():
            console.print(f"{name:32} {ratio:6.2f}")
    for name, met in result["bars"].items():
        console.print(f"{'met   ' if met else 'MISSED'}  {name}")
