"""Rows of throughput: the hub, its peers and raw loops, against a target that answers at once or after 100 ms."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import partial

from tests.bench.rig import Rig
from tests.bench.row import Numbers, Row, Scale
from tests.bench.systems import BareSystem, CelerySystem, HubSystem, System

SLOW_THREADS = {"hub": 128, "bare_dramatiq": 128, "celery": 64}  # the best of 32, 64, 128 and 256 per process


def rows() -> Iterator[Row]:
    """All of them."""
    for kind, what in (
        (HubSystem, "emit to delivered and logged, everything on"),
        (BareSystem, "Session.post and one pooled INSERT, prefetch 100, 2 x 8 threads"),
        (CelerySystem, "the same task, acks_late, 2 x 8 threads, prefetch 16 each"),
    ):
        yield Row(kind.name, what, partial(fast, kind), rounds=3)
    for library in ("requests", "urllib3"):
        yield Row(f"raw_{library}", f"only {library}, best threads", partial(raw, library), rounds=3)
    for kind in (HubSystem, BareSystem, CelerySystem):
        yield Row(
            f"slow_{kind.name}",
            f"target answers after 100 ms, 2 x {SLOW_THREADS[kind.name]} threads",
            partial(slow, kind),
            rounds=3,
        )
    yield Row("slow_target", "the 100 ms target alone", target_alone, rounds=1)


def fast(kind: type[System], rig: Rig, scale: Scale) -> Numbers:
    """From the first event sent to the last delivered."""
    system = kind(rig, rig.fast)
    try:
        return system.end_to_end(scale.events)
    finally:
        system.close()


def slow(kind: type[System], rig: Rig, scale: Scale) -> Numbers:
    """The same against the slow target, with many threads."""
    system = kind(rig, rig.slow + "/slow", threads=SLOW_THREADS[kind.name])
    try:
        return system.end_to_end(scale.slow_events)
    finally:
        system.close()


def raw(library: str, rig: Rig, scale: Scale) -> Numbers:
    """Two processes, 1, 2 or 4 threads each; the best of them."""
    best = {"per_second": 0.0}
    for threads in (1, 2, 4):
        rate = _loop(library, rig.fast, scale.seconds / 3, threads)
        if rate > best["per_second"]:
            best = {"per_second": rate, "threads": threads}
    return best


def target_alone(rig: Rig, scale: Scale) -> Numbers:
    """How much the slow target takes when it answers at once: it must not be the bottleneck."""
    return {"per_second": _loop("urllib3", rig.slow, scale.seconds, 4)}


def _loop(library: str, url: str, seconds: float, threads: int, processes: int = 2) -> float:
    command = [sys.executable, "-m", "tests.bench.raw", library, url, str(seconds), str(threads)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
    return sum(float(process.communicate()[0]) for process in running)
