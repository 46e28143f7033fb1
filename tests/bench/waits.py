"""Rows of the hub under conditions: latency, slow neighbours, a million pending tasks, a burst."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator

import psycopg

from hub.domain.events import parse_event
from hub.monitoring.exposition import make_scraper
from tests.bench.job import NAME, event
from tests.bench.rig import Rig, memory
from tests.bench.row import Numbers, Row, Scale
from tests.bench.systems import HubSystem

OTHER = "\\core\\event\\course_viewed"
PACE = 100  # events per second where latency is measured

_LATENCY = """
SELECT (extract(epoch FROM d.created_at - e.created_at) * 1000)::float8
FROM deliveries d JOIN events e ON e.id = d.event_id WHERE d.success AND d.service = 'crm' AND e.id > %s
"""
# A million tasks share a thousand events: the events' size is not the point here.
_EVENTS = """
INSERT INTO events (uid, name, data) SELECT 'deep-' || i, %(name)s, %(data)s FROM generate_series(1, 1000) i
"""
_TASKS = """
INSERT INTO tasks (event_id, rule_id, service_id, state, expires_at)
SELECT e.id, r.id, r.service_id, 'pending', now() + interval '3 days'
FROM generate_series(1, %(many)s) i
JOIN (SELECT id, row_number() OVER (ORDER BY id) AS n FROM events WHERE uid LIKE 'deep-%%') e ON e.n = 1 + i %% 1000
CROSS JOIN (SELECT * FROM rules WHERE name = %(rule)s) r
"""


def rows() -> Iterator[Row]:
    """All of them."""
    yield Row("latency", f"accepted to logged at {PACE} events/s, one by one", latency, rounds=3)
    yield Row("neighbour_alone", f"a healthy service alone: rate; p99 at {PACE}/s", _alone, rounds=2)
    yield Row("neighbour_hanging", "beside one that hangs until its timeout, breaker off", _hanging, rounds=2)
    yield Row("neighbour_backlog", "beside one with many due tasks of its own", _backlog, rounds=2)
    yield Row("depth_none", "rate out of a backlog; a look, a list, a scrape when empty", _none, rounds=1)
    yield Row("depth_million", "the same with a million pending tasks", _million, rounds=1)
    yield Row("burst", "many events at once", burst, rounds=1)


def latency(rig: Rig, scale: Scale) -> Numbers:
    """At a steady pace."""
    system = _with_registry(HubSystem(rig, rig.fast))
    try:
        with system.workers():
            return _paced(system, scale.seconds * 2)
    finally:
        system.close()


def _with_registry(system: HubSystem) -> HubSystem:
    """As a web process: it keeps services and rules in memory."""
    system.hub.configuration.listen()
    return system


def _paced(system: HubSystem, seconds: float) -> Numbers:
    """Send at `PACE`, one by one; latency of those events."""
    count = int(seconds * PACE)
    with psycopg.connect(system.database) as conn:
        last = conn.execute("SELECT coalesce(max(id), 0) FROM events").fetchone()[0]  # type: ignore[index]
    before = _crm(system)
    begun = time.monotonic()
    for i in range(count):
        time.sleep(max(0.0, begun + i / PACE - time.monotonic()))
        _send(system, 10_000_000 + last + i)
    deadline = time.monotonic() + 120
    while _crm(system) < before + count and time.monotonic() < deadline:
        time.sleep(0.05)
    with psycopg.connect(system.database) as conn:
        found = sorted(row[0] for row in conn.execute(_LATENCY, [last]).fetchall())
    return {
        "p50_ms": statistics.median(found),
        "p99_ms": found[int(len(found) * 0.99)],
        "worst_ms": found[-1],
        "of_offered": len(found) / count,
    }


def _send(system: HubSystem, number: int) -> None:
    system.hub.intake.handle_event(parse_event(event(number), limit=1_000_000))


def _crm(system: HubSystem) -> int:
    with psycopg.connect(system.database) as conn:
        row = conn.execute("SELECT count(*) FROM deliveries WHERE success AND service = 'crm'").fetchone()
        return int(row[0]) if row else 0


def _alone(rig: Rig, scale: Scale) -> Numbers:
    return _neighbour(rig, scale, None)


def _hanging(rig: Rig, scale: Scale) -> Numbers:
    return _neighbour(rig, scale, rig.slow + "/hang", waiting=2000)


def _backlog(rig: Rig, scale: Scale) -> Numbers:
    return _neighbour(rig, scale, rig.fast, waiting=scale.backlog)


def _neighbour(rig: Rig, scale: Scale, url: str | None, waiting: int = 0) -> Numbers:
    """A paced phase for latency, then a backlog for the rate, while another service has `waiting` tasks."""
    system = _with_registry(HubSystem(rig, rig.fast))
    try:
        if url is not None:
            system.add_service("other", url, timeout=5, max_retries=1, cb_failure_threshold=0)
            system.add_rule("views-to-other", "other", OTHER)
        with system.workers():
            if url is not None:
                _fill(system, waiting, "views-to-other", OTHER)
                time.sleep(2)
            numbers = _paced(system, scale.seconds * 2)
            before = _crm(system)
            begun = time.monotonic()
            system.send(range(1_000_000, 1_000_000 + scale.events))
            while _crm(system) < before + scale.events:
                time.sleep(0.05)
            return {"per_second": scale.events / (time.monotonic() - begun), **numbers}
    finally:
        system.close()


def _fill(system: HubSystem, many: int, rule: str, name: str) -> None:
    """Pending tasks, straight into the ledger."""
    from hub.codec import dumps

    with psycopg.connect(system.database, autocommit=True) as conn:
        conn.execute(_EVENTS, {"name": name, "data": dumps({**event(0), "eventname": name})})
        conn.execute(_TASKS, {"many": many, "rule": rule})
        conn.execute("VACUUM ANALYZE tasks, events, task_counts")


def _none(rig: Rig, scale: Scale) -> Numbers:
    return _depth(rig, scale, 0)


def _million(rig: Rig, scale: Scale) -> Numbers:
    return _depth(rig, scale, scale.depth)


def _depth(rig: Rig, scale: Scale, pending: int) -> Numbers:
    """Deliveries per second out of a backlog; what a look at it costs, in ms; memory of a worker process."""
    system = HubSystem(rig, rig.fast)
    count = scale.events * 2
    try:
        hub = system.hub
        _fill(system, max(pending, count), "users-to-crm", NAME)
        scraper = make_scraper(system.settings, hub.db, hub.queues.values())
        with rig.running(system.commands(), system.env()) as pids:
            system.wait(count // 10, 60)
            looks = {
                "list_ms": _ms(lambda: hub.views.tasks.list(limit=50)),
                "scrape_ms": _ms(scraper.render),
                "demand_ms": _ms(hub.outbox.demand),
            }
            begun, first = time.time(), system.done()
            system.wait(count - count // 10, 120)
            rate = (system.done() - first) / (time.time() - begun)
            looks["worker_mb"] = memory(pids) / len(pids)
        scraper.close()
        return {"per_second": rate, **looks}
    finally:
        system.close()


def _ms(act: Callable[[], object]) -> float:
    times = []
    for _ in range(7):
        begun = time.perf_counter()
        act()
        times.append(1000 * (time.perf_counter() - begun))
    return statistics.median(times)


def burst(rig: Rig, scale: Scale) -> Numbers:
    """Everything at once: seconds to accept and to deliver it all; peak memory of a worker process and of RabbitMQ."""
    system = HubSystem(rig, rig.fast)
    try:
        with system.workers() as pids:
            before = memory(pids) / len(pids)
            peak = _Peak(pids)
            begun = time.time()
            system.send(range(scale.burst))
            accepted = time.time() - begun
            system.wait(scale.burst + 100, 300)
            took = system.times()[-1] - begun
            return {
                "per_second": scale.burst / took,
                "accept_s": accepted,
                "deliver_s": took,
                "worker_mb_before": before,
                "worker_mb_peak": peak.stop() / len(pids),
            }
    finally:
        system.close()


class _Peak:
    """The most memory that processes had, looked at twice a second."""

    def __init__(self, pids: list[int]) -> None:
        self._pids = pids
        self._most = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(0.5):
            self._most = max(self._most, memory(self._pids))

    def stop(self) -> float:
        self._stop.set()
        self._thread.join()
        return self._most
