"""What a scrape costs: `python -m tests.bench.scrape [TASKS] [SERVICES] [PROCESSES]`.

By default a million tasks (the oldest 50,000 queued, as the relay would have it), 100 rules of 50 services,
10,000 dead letters, and the files of four processes that have used every label. Prints medians; asserts nothing,
for machines differ: on a busy one the best and the CPU time tell more than the median.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from hub.monitoring.collectors.counters import ProcessSource
from hub.monitoring.collectors.ledger import LedgerSource
from hub.monitoring.exposition import Scraper
from hub.monitoring.metrics import OUTCOMES, TRANSITIONS
from hub.monitoring.prometheus_hooks import PrometheusHooks
from hub.store.database import Database
from hub.store.migrate import migrate
from hub.store.state import State
from tests.support.databases import PostgresServer
from tests.support.processes import below

_FILL = """
INSERT INTO services (name, type, base_url) SELECT 'service-' || i, 'rest', 'http://x' FROM generate_series(1, {s}) i;
INSERT INTO rules (name, event, service_id) SELECT name || '-' || i, '*', id FROM services, generate_series(1, 2) i;
INSERT INTO tasks (event_id, rule_id, service_id, state, next_run_at, handed_at, expires_at)
    SELECT i, r.id, r.service_id, CASE WHEN i > 0.95 * {n} THEN 'queued'
               WHEN i % 20 < 4 THEN 'delayed' ELSE 'pending' END,
           now() - make_interval(secs => i / 1000.0), now(), now() + interval '3 days'
    FROM generate_series({n}, 1, -1) i JOIN rules r ON r.id = 1 + i % (2 * {s});
INSERT INTO dead_letters (task_id, event_id, event_uid, event, event_data, rule_id, service_id, attempts, reason,
    accepted_at) SELECT i, i, 'u', 'e', repeat('x', 500), 1, 1 + i % {s}, 5, 'attempts', now()
    FROM generate_series(1, 10000) i;
VACUUM ANALYZE tasks; VACUUM ANALYZE dead_letters; VACUUM ANALYZE task_counts
"""


def _count(folder: Path, services: int, processes: int) -> list[PrometheusHooks]:
    kept = []
    for _ in range(processes):
        hooks = PrometheusHooks(folder)
        kept.append(hooks)  # it holds its slot
        for i in range(1, services + 1):
            name = f"service-{i}"
            for outcome in OUTCOMES:
                hooks.attempt_finished(name, outcome, 0.01)
                hooks.try_finished(name, outcome)
            for seconds in (0.001, 0.02, 0.2, 2, 20, 200):
                hooks.queue_wait(name, seconds)
                hooks.task_finished(name, "delivered", seconds)
                hooks.attempt_finished(name, "success", seconds)
            for old, new in TRANSITIONS:
                hooks.breaker_changed(name, old, new)
            hooks.retry_scheduled(name)
    return kept


def main(tasks: int = 1_000_000, services: int = 50, processes: int = 4) -> None:
    """Fill a private server, then scrape it."""
    server = PostgresServer()
    server.start()
    try:
        db = Database(server.url, size=2)
        db.open()
        migrate(db)
        begun = time.monotonic()
        with db.autocommit() as conn:
            for statement in _FILL.format(s=services, n=tasks).split(";"):
                conn.execute(statement)
        print(f"{tasks} tasks of {services} services in {time.monotonic() - begun:.0f} s")
        with tempfile.TemporaryDirectory() as name:
            kept = _count(Path(name), services, processes)
            ledger = LedgerSource(State(db))
            files = ProcessSource(Path(name), ledger.known)
            both = Scraper([ledger, files])
            _time("ledger", ledger.collect)
            print(f"{'in PostgreSQL':24} {_server_time(server, ledger.collect):6.1f} ms of CPU")
            _time(f"files of {processes} processes", files.collect)
            _time("whole scrape", both.render)
            print(f"{len(both.render()) // 1000} kB, {both.render().count(b'{')} series")
            for hooks in kept:
                hooks.close()
        db.close()
    finally:
        server.close()


def _server_time(server: PostgresServer, act: Callable[[], object], rounds: int = 30) -> float:
    """Milliseconds of CPU that the server's processes spend on one call; the kernel counts in units of 10."""

    def spent() -> int:
        total = 0
        for pid in below(server.pid):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        return total

    before = spent()
    for _ in range(rounds):
        act()
    return (spent() - before) * 1000 / os.sysconf("SC_CLK_TCK") / rounds


def _time(what: str, act: object, rounds: int = 15) -> None:
    times, own = [], []
    for _ in range(rounds):
        begun, cpu = time.perf_counter(), time.process_time()
        act()  # type: ignore[operator]
        times.append(1000 * (time.perf_counter() - begun))
        own.append(1000 * (time.process_time() - cpu))
    print(
        f"{what:24} {statistics.median(times):6.1f} ms  (best {min(times):.1f}, worst {max(times):.1f};"
        f" {statistics.median(own):.1f} ms of this process's CPU)"
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
