"""Totals stay exact, and no query reads the whole ledger."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import psycopg

from hub.app.lifecycle import Hub
from hub.models import (
    Claim,
    DeadReason,
)
from hub.store import ledger as ledger_sql
from hub.store import outbox as outbox_sql
from tests.integration.ledger.claims import outcome
from tests.support.hubs import add_rule, add_service, count, counts_are_exact, due_now, emit_many


def test_the_totals_are_exact_whatever_happens(hub: Hub, tasks: list[int]) -> None:
    """Nothing counts a million tasks; every statement adds its difference in its own transaction."""
    rng = random.Random(7)
    add_service(hub, "http://127.0.0.1:9", "erp")
    add_rule(hub, "r2", "e", "erp")
    held: list[Claim] = []

    def claim() -> None:
        rows = hub.db.all("SELECT id FROM tasks WHERE state IN ('pending', 'queued')")
        for row in rng.sample(rows, min(len(rows), 4)):
            if got := hub.ledger.claim(row["id"]):
                held.append(got)

    def end() -> None:
        for got in rng.sample(held, len(held) // 2):
            held.remove(got)
            endings: list[Callable[[], object]] = [
                partial(hub.ledger.finish, got, outcome(got)),
                partial(hub.ledger.release, got),
                partial(hub.ledger.release, got, delay=1),
                partial(hub.ledger.fail, got, outcome(got, "no"), delay=1),
                partial(hub.ledger.move_to_dlq, got, outcome(got, "no"), DeadReason.ATTEMPTS),
            ]
            rng.choice(endings)()

    def lose() -> None:
        hub.db.run("UPDATE tasks SET lease_until = now() WHERE state = 'running' AND id %% 3 = 0")
        hub.outbox.recover()

    def somebody() -> None:
        ids = [row["id"] for row in hub.db.all("SELECT id FROM tasks")]
        choices: list[Callable[[], object]] = [
            lambda: hub.admin.retry(rng.sample(ids, 3), restart=True),
            lambda: hub.admin.cancel(ids[:2], who="me"),
            lambda: hub.dead_letters.replay(limit=2),
            lambda: hub.registry.rules.enable("r1", rng.random() < 0.7),
        ]
        rng.choice(choices)()

    acts: list[Callable[[], object]] = [
        lambda: emit_many(hub, rng.randint(1, 8), start=rng.randint(0, 10**9)),
        claim,
        claim,
        end,
        lose,
        somebody,
        lambda: due_now(hub),
        hub.outbox.promote,
        hub.outbox.fold,
        hub.outbox.expire,
        lambda: hub.outbox.take({row.id: 3 for row in hub.configuration.rules()}),
        lambda: hub.outbox.lost_messages(3, age=0),
        lambda: hub.ledger.release_queued(
            [row["id"] for row in hub.db.all("SELECT id FROM tasks ORDER BY id LIMIT 3")]
        ),
    ]
    emit_many(hub, 10, start=100)
    for _ in range(150):
        rng.choice(acts)()
        assert counts_are_exact(hub)
    endings = count(hub, "delivered") + count(hub, "dead_letters") + count(hub, "tasks")
    assert endings > 30


def test_no_look_at_the_ledger_reads_all_of_it(hub: Hub, tasks: list[int]) -> None:
    """With a million tasks, a statement that scans them is a statement that stops the hub."""
    hub.db.run(
        "INSERT INTO rules (name, event, service_id)"
        " SELECT 'x' || g, 'x', s.id FROM services s, generate_series(1, 20) g"
    )
    hub.db.run(
        "INSERT INTO tasks (event_id, rule_id, service_id, state, next_run_at, expires_at, handed_at)"
        " SELECT 1, r.id, r.service_id, CASE WHEN g %% 100 < 90 THEN 'pending' WHEN g %% 100 < 95 THEN 'delayed'"
        " WHEN g %% 100 < 99 THEN 'queued' ELSE 'running' END, now() + make_interval(secs => g), now() + '1 day', now()"
        " FROM rules r, generate_series(1, 1000) g"
    )
    rules = [row["id"] for row in hub.db.all("SELECT id FROM rules LIMIT 3")]
    statements: dict[str, tuple[str, Any]] = {
        "claim": (ledger_sql._CLAIM, {"ids": tasks, "worker": "w", "doubt": []}),
        "promote": (outbox_sql._PROMOTE, [100]),
        "take": (outbox_sql._TAKE, {"rules": rules, "limits": [10, 10, 10]}),
        "lost messages": (outbox_sql._LOST_MESSAGES, {"age": 5, "limit": 10}),
        "expired": (outbox_sql._EXPIRED, {"limit": 100}),
        "lost": (outbox_sql._LOST, {"limit": 100, "max_attempts": 5, "why": "x"}),
        "release_queued": (ledger_sql._RELEASE_QUEUED, [tasks]),
        "demand": (outbox_sql._DEMAND, []),
        "pressure": (outbox_sql._PRESSURE, []),
    }
    url = str(hub.settings.database_url.get_secret_value() if hub.settings.database_url else "")
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("VACUUM ANALYZE tasks")
        cursor = psycopg.ClientCursor(conn)
        for name, (statement, params) in statements.items():
            plan = "\n".join(r[0] for r in cursor.execute(b"EXPLAIN " + statement.encode(), params or None).fetchall())
            assert "Seq Scan on tasks" not in plan, f"{name}:\n{plan}"
