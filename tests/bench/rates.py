"""Rows of throughput: the hub, its peers and raw loops, against a target that answers at once or after 100 ms."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import partial

import psycopg

from hub.codec import dumps
from tests.bench.job import NAME, event
from tests.bench.rig import Rig
from tests.bench.row import Numbers, Row, Scale
from tests.bench.systems import BareSystem, CelerySystem, HubSystem, OrderedHubSystem, System

# The first task of the key is delayed for an hour and holds the key.
_EVENT = "INSERT INTO events (id, uid, name, data) VALUES (nextval('events_id_seq'), 'hot', %(name)s, %(data)s)"
_HOT = """
INSERT INTO tasks (event_id, rule_id, service_id, state, expires_at, ordering_key, position, holds_key, next_run_at)
SELECT e.id, r.id, r.service_id, CASE i WHEN 1 THEN 'delayed' ELSE 'blocked' END, now() + interval '3 days', 'hot', i,
       i = 1, now() + interval '1 hour'
FROM generate_series(1, %(many)s) i CROSS JOIN (SELECT id FROM events WHERE uid = 'hot') e
CROSS JOIN (SELECT id, service_id FROM rules) r
"""
SLOW_THREADS = {"hub": 128, "bare_dramatiq": 128, "celery": 64}  # the best of 32, 64, 128 and 256 per process


def rows() -> Iterator[Row]:
    """All of them."""
    for kind, what in (
        (HubSystem, "emit to delivered and logged, everything on"),
        (BareSystem, "Session.post and one pooled INSERT, prefetch 100, 2 x 8 threads"),
        (CelerySystem, "the same task, acks_late, 2 x 8 threads, prefetch 16 each"),
    ):
        yield Row(kind.name, what, partial(fast, kind), rounds=3)
    yield Row("ordered_hub", "with an ordering key, 1,000 active keys", partial(fast, OrderedHubSystem), rounds=3)
    yield Row("ordered_hot", "the same beside one key with many waiting tasks", hot_key, rounds=2)
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


def hot_key(rig: Rig, scale: Scale) -> Numbers:
    """The rate of 1,000 keys while one key has `backlog` tasks that wait behind its first."""
    system = OrderedHubSystem(rig, rig.fast)
    try:
        with psycopg.connect(system.database, autocommit=True) as conn:
            conn.execute(_EVENT, {"name": NAME, "data": dumps(event(0))})
            conn.execute(_HOT, {"many": scale.backlog})
            conn.execute("ANALYZE tasks")
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
