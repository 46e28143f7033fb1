"""Rows of the bulk lane: latency of live events beside a backfill of the same rule's service."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial

import psycopg

from hub.codec import dumps
from hub.operations import backfill
from tests.bench.job import event
from tests.bench.rig import Rig, wait_for
from tests.bench.row import Numbers, Row, Scale
from tests.bench.systems import HubSystem
from tests.bench.waits import OTHER, PACE, _send, _with_registry

FAST = 10_000.0  # tasks a second: nothing but the lane holds them back
_PAST = """
INSERT INTO events (uid, name, data) SELECT 'past-' || i, %(name)s, %(data)s FROM generate_series(1, %(many)s) i
"""
_LATENCY = """
SELECT (extract(epoch FROM d.created_at - e.created_at) * 1000)::float8
FROM deliveries d JOIN events e ON e.id = d.event_id WHERE d.success AND e.id > %s
"""


def rows() -> Iterator[Row]:
    """All of them, to be run by turns."""
    what = f"a service at {PACE} live events/s"
    yield Row("backfill_none", f"{what}, nothing beside it", partial(_beside, rate=None), rounds=3)
    yield Row("backfill_paced", f"{what}, beside a backfill at 50/s", partial(_beside, rate=backfill.RATE), rounds=3)
    yield Row("backfill_fast", f"{what}, beside a backfill without a limit", partial(_beside, rate=FAST), rounds=3)


def _beside(rig: Rig, scale: Scale, *, rate: float | None) -> Numbers:
    system = _with_registry(HubSystem(rig, rig.fast))
    try:
        system.add_rule("views-to-crm", "crm", OTHER)
        with psycopg.connect(system.database, autocommit=True) as conn:
            data = dumps({**event(0), "eventname": OTHER})
            conn.execute(_PAST, {"name": OTHER, "data": data, "many": scale.backlog})
            conn.execute("VACUUM ANALYZE events")
        hub = system.hub
        with system.workers():
            if rate is not None:
                now = datetime.now(UTC)
                since, until = now - timedelta(days=1), now + timedelta(days=1)
                started = backfill.start(hub, hub.configuration.rule("views-to-crm"), since, until, rate=rate)
                wait_for(lambda: hub.backfills.get(started.id).tasks > 0, 60, "the backfill")
                time.sleep(2)
            numbers = _latency(system, int(scale.seconds * 2 * PACE))
            if rate is not None:
                numbers["backfilled"] = hub.backfills.get(started.id).tasks
            return numbers
    finally:
        system.close()


def _latency(system: HubSystem, count: int) -> Numbers:
    """Send at `PACE`, one by one; latency of those events."""
    with psycopg.connect(system.database) as conn:
        row = conn.execute("SELECT max(id) FROM events").fetchone()
        last = row[0] if row else 0
    begun = time.monotonic()
    for i in range(count):
        time.sleep(max(0.0, begun + i / PACE - time.monotonic()))
        _send(system, 10_000_000 + last + i)
    found: list[float] = []
    deadline = time.monotonic() + 120
    while len(found) < count and time.monotonic() < deadline:
        time.sleep(0.2)
        with psycopg.connect(system.database) as conn:
            found = sorted(row[0] for row in conn.execute(_LATENCY, [last]).fetchall())
    return {
        "p50_ms": statistics.median(found),
        "p99_ms": found[int(len(found) * 0.99)],
        "of_offered": len(found) / count,
    }
