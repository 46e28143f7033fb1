"""A dump, restored into a new database beside an empty RabbitMQ, delivers all; an older version refuses the tables."""

from __future__ import annotations

import subprocess
import uuid
from collections import Counter
from pathlib import Path

import psycopg
import pytest

from hub.app.lifecycle import build
from hub.embedded.programs import binaries
from hub.settings import Settings
from tests.conftest import GIVEN_BROKER, remove_queues
from tests.monitoring.conftest import KEY
from tests.support.databases import Template
from tests.support.http_target import HttpTarget
from tests.support.hubs import add_rule, add_service, attempt, count, counts_are_exact, emit, emit_many
from tests.support.rabbit import RabbitNode
from tests.support.site import HUB, Site
from tests.support.waiting import eventually
from tests.support.workers import environment

pytestmark = pytest.mark.fault


def program(name: str) -> str:
    return str(Path(str(binaries())) / name)


def test_a_restored_database_delivers_what_had_not_been_delivered(
    database_template: Template, broker_node: RabbitNode | None, tmp_path: Path
) -> None:
    """Enqueued, waiting for a retry, under way when the dump was made, dead: each as it was, with its secrets."""
    old_name, old_url = database_template.clone()
    new_name, new_url = database_template.empty()
    prefixes = [f"t{uuid.uuid4().hex[:10]}" for _ in range(2)]
    urls = [broker_node.new_vhost() if broker_node else GIVEN_BROKER for _ in range(2)]

    def settings(url: str, which: int) -> Settings:
        return Settings(
            database_url=url,
            broker_url=urls[which],
            queue_prefix=prefixes[which],
            secret_keys=KEY,
            home=tmp_path / str(which),
            max_attempts=2,
            retry_delays="1",
            worker_lease="3s",
            republish_after="1s",
        )

    try:
        with HttpTarget() as target:
            with build(settings(old_url, 0), role="web") as hub:
                add_service(hub, target.url, auth={"type": "bearer", "token": "sealed"}, cb_failure_threshold=0)
                add_rule(hub)
                add_rule(hub, "refused", event="refused", endpoint="/refused")
                target.on("/refused", 503)
                delivered = emit(hub, data={"n": 1000})
                assert attempt(hub, delivered[0]) == "delivered"
                retried, dead = (emit(hub, "refused", {"n": n})[0] for n in (1001, 1002))
                assert attempt(hub, retried) == attempt(hub, dead) == "failed"
                hub.db.run("UPDATE tasks SET state = 'queued', next_run_at = now() WHERE id = %s", [dead])
                assert attempt(hub, dead) == "failed" and count(hub, "dead_letters") == 1
                waiting = emit_many(hub, 30)
                assert hub.ledger.claim(waiting[0]) is not None, "under way"
                dump = tmp_path / "hub.dump"
                subprocess.run([program("pg_dump"), "-Fc", "-f", dump, old_url], check=True, capture_output=True)
            subprocess.run(
                [program("pg_restore"), "--no-owner", "--exit-on-error", "-d", new_url, dump],
                check=True,
                capture_output=True,
            )
            target.on("/refused", 204)
            with Site(settings(new_url, 1), tmp_path) as site, build(site.settings, role="web") as hub:
                assert site.run("migrate", "--check").strip() == ""
                site.start("worker", "--processes", "1", "--threads", "4")
                eventually(lambda: count(hub, "tasks") == 0, what="every task of the dump")
                assert count(hub, "dead_letters") == 1
                site.run("dlq", "replay", "--all", "--yes")
                eventually(lambda: count(hub, "tasks") == count(hub, "dead_letters") == 0, what="the replay")
                assert counts_are_exact(hub) and site.stop("worker") == 0
            times = Counter(seen.json()["n"] for seen in target.seen if seen.path != "/refused")
            assert times == dict.fromkeys([*range(30), 1000], 1)
            assert {seen.json()["n"] for seen in target.seen if seen.path == "/refused"} == {1001, 1002}
            assert {seen.headers["authorization"] for seen in target.seen} == {"Bearer sealed"}
    finally:
        for prefix in prefixes:
            remove_queues(prefix)
        for name in (old_name, new_name):
            database_template.drop(name)


@pytest.mark.parametrize("command", ["worker", "web", "scheduler", "stats", "migrate", "emit --name e --data {}"])
def test_an_older_version_refuses_newer_tables_with_a_sentence(settings: Settings, command: str) -> None:
    """After a downgrade: it must not write into tables that it does not know."""
    assert settings.database_url is not None
    with psycopg.connect(settings.database_url.get_secret_value()) as conn:
        conn.execute("INSERT INTO hub_migrations (name, checksum) VALUES ('9999_future.sql', 'x')")
    done = subprocess.run(
        [HUB, *command.split()], env=environment(settings), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1
    assert "migrations this version does not know (9999_future.sql): update the hub" in done.stderr
    assert "Traceback" not in done.stderr
