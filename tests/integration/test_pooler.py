"""A PgBouncer between the hub and PostgreSQL: session mode works, transaction mode needs a direct URL."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hub.app.lifecycle import build
from hub.errors import ConfigError
from hub.settings import Settings
from hub.store.database import Database
from hub.store.locks import Leadership
from hub.store.pooler import check_pooler, shares_sessions
from tests.support.databases import Template
from tests.support.http_target import HttpTarget
from tests.support.hubs import add_rule, add_service, attempt, count, emit_many
from tests.support.pgbouncer import MISSING, pgbouncer, program

pytestmark = pytest.mark.skipif(program() is None, reason=MISSING)
KEY = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="


def settings(url: str, home: Path, direct_url: str | None = None) -> Settings:
    return Settings(
        database_url=url, database_direct_url=direct_url, home=home, secret_keys=KEY, retry_delays="0.2", threads=4
    )


def test_transaction_mode_is_refused_at_the_start_and_the_error_says_what_to_set(
    database_url: str, tmp_path: Path
) -> None:
    with pgbouncer(database_url, "transaction") as url, pytest.raises(ConfigError, match="HUB_DATABASE_DIRECT_URL"):
        build(settings(url, tmp_path)).close()


@pytest.mark.parametrize(("mode", "shared"), [("session", False), ("transaction", True), ("statement", True)])
def test_shared_sessions_are_detected(database_url: str, mode: str, shared: bool) -> None:
    with pgbouncer(database_url, mode) as url:
        assert shares_sessions(Database(url)) is shared


def test_a_server_without_a_pooler_shares_no_sessions(database_url: str) -> None:
    assert shares_sessions(Database(database_url)) is False


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_events_are_delivered_through_a_pooler(database_url: str, tmp_path: Path, mode: str) -> None:
    direct = database_url if mode == "transaction" else None
    with (
        pgbouncer(database_url, mode) as url,
        HttpTarget() as target,
        build(settings(url, tmp_path, direct), role="up") as hub,
    ):
        add_service(hub, target.url)
        add_rule(hub)
        hub.lease.start()
        hub.configuration.listen()
        with ThreadPoolExecutor(4) as threads:
            outcomes = set(threads.map(lambda task_id: attempt(hub, task_id), emit_many(hub, 60)))
        assert outcomes == {"delivered"} and len(target.seen) == 60 and count(hub, "tasks") == 0


def test_a_lock_is_held_on_the_direct_connection(database_url: str) -> None:
    with pgbouncer(database_url, "transaction") as url:
        one, other = (Leadership(Database(url, direct_url=database_url), 4711) for _ in range(2))
        assert one.hold() and not other.hold()
        one.resign()
        assert other.hold()
        other.resign()


def test_a_direct_url_of_another_database_is_refused(database_url: str, database_template: Template) -> None:
    name, other = database_template.clone()
    db = Database(database_url, direct_url=other)
    db.open()
    try:
        with pytest.raises(ConfigError, match="another database"):
            check_pooler(db)
    finally:
        db.close()
        database_template.drop(name)
