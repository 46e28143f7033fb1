"""The runner of numbered SQL files, on a real PostgreSQL."""

from __future__ import annotations

import subprocess
import sys

import psycopg
import pytest

from hub.domain.search_keys import SearchKeys
from hub.domain.search_query import Query
from hub.errors import ConfigError, UnavailableError
from hub.store.database import Database
from hub.store.dead_letters import Chosen, DeadLetterStore
from hub.store.intake import IntakeStore, NewEvent
from hub.store.ledger import Ledger
from hub.store.migrate import check, migrate, migrations, pending
from hub.store.outbox import Outbox
from hub.store.views import Views

NAMES = [name for name, _, _ in migrations()]


def test_a_second_run_applies_nothing(empty_database_url: str) -> None:
    """`hub migrate` is part of every start; it must be harmless."""
    db = Database(empty_database_url)
    db.open()
    assert pending(db) == NAMES
    assert migrate(db) == NAMES
    assert migrate(db) == []
    assert pending(db) == []
    db.close()


def test_an_edited_migration_is_refused(database_url: str) -> None:
    """Two installations whose tables differ under one version number cannot be helped later."""
    with psycopg.connect(database_url) as conn:
        conn.execute("UPDATE hub_migrations SET checksum = 'other' WHERE name = %s", [NAMES[0]])
    with pytest.raises(ConfigError, match=NAMES[0]):
        migrate(Database(database_url))


def test_a_newer_database_is_refused(database_url: str) -> None:
    """An old worker left running after an upgrade must not write into tables it does not know."""
    with psycopg.connect(database_url) as conn:
        conn.execute("INSERT INTO hub_migrations (name, checksum) VALUES ('9999_future.sql', 'x')")
    db = Database(database_url)
    db.open()
    for act in (migrate, check):
        with pytest.raises(ConfigError, match=r"9999_future\.sql"):
            act(db)
    db.close()


def test_two_processes_at_once_apply_each_migration_once(empty_database_url: str) -> None:
    """Several workers start together after a deployment."""
    code = (
        "import sys; from hub.store.database import Database; from hub.store.migrate import migrate;"
        "print(len(migrate(Database(sys.argv[1]))))"
    )
    runs = [
        subprocess.Popen([sys.executable, "-c", code, empty_database_url], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    applied = sorted(int(run.communicate(timeout=60)[0]) for run in runs)
    assert [run.returncode for run in runs] == [0, 0, 0]
    assert applied == [0, 0, len(NAMES)]


def test_a_migration_that_fails_leaves_nothing(empty_database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a migration could neither be repeated nor be gone on from."""
    broken = [("0001_good.sql", "1", "CREATE TABLE good (i int)"), ("0002_bad.sql", "2", "CREATE TABLE bad (i int); X")]
    monkeypatch.setattr("hub.store.migrate.migrations", lambda: broken)
    with pytest.raises(psycopg.errors.SyntaxError):
        migrate(Database(empty_database_url))
    with psycopg.connect(empty_database_url) as conn:
        assert conn.execute("SELECT to_regclass('good') IS NOT NULL, to_regclass('bad') IS NULL").fetchone() == (
            True,
            True,
        )
        assert conn.execute("SELECT name FROM hub_migrations").fetchall() == [("0001_good.sql",)]


def test_a_database_that_does_not_answer_is_said_to() -> None:
    """The first thing that goes wrong for a newcomer is the URL."""
    with pytest.raises(UnavailableError, match="does not respond"):
        migrate(Database("postgresql://nobody:secret@127.0.0.1:1/none"))


def test_data_of_the_release_before_survives(empty_database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tables of 0.1.0 with a service and a log row, brought up to date."""
    every = migrations()
    db = Database(empty_database_url)
    db.open()
    with monkeypatch.context() as patched:
        patched.setattr("hub.store.migrate.migrations", lambda: every[:2])
        assert migrate(db) == ["0001_ledger.sql", "0002_last_batch.sql"]
    with psycopg.connect(empty_database_url) as conn:
        conn.execute(
            "INSERT INTO services (name, type, base_url, response_queue, secrets)"
            " VALUES ('bus', 'amqp', 'amqp://h', 'q', '')"
        )
        conn.execute("INSERT INTO breakers (service_id, state, failures) SELECT id, 'closed', 2 FROM services")
        conn.execute(
            "INSERT INTO deliveries (direction, service, service_id, success, outcome)"
            " SELECT 'outbound', name, id, true, 'success' FROM services"
        )
    assert migrate(db) == NAMES[2:]
    views = Views(db)
    [circuit] = views.overview.breakers()
    assert (circuit["service"], circuit["failures"], circuit["responses"]) == ("bus", 2, "closed")
    assert [row["service"] for row in views.deliveries.list()] == ["bus"]
    with psycopg.connect(empty_database_url) as conn:
        conn.execute("UPDATE services SET type = 'smtp'")
    db.close()


def test_live_tasks_of_the_release_before_are_live_ones(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tasks that wait while the hub is updated are not mistaken for those of the bulk lane, and stay counted."""
    every = migrations()
    db = Database(empty_database_url)
    db.open()
    with monkeypatch.context() as patched:
        patched.setattr("hub.store.migrate.migrations", lambda: [m for m in every if m[0] < "0009"])
        migrate(db)
    with psycopg.connect(empty_database_url) as conn:
        conn.execute("INSERT INTO services (name, type, base_url) VALUES ('crm', 'rest', 'http://h')")
        conn.execute("INSERT INTO rules (name, event, service_id) SELECT 'r', 'e', id FROM services")
        conn.execute("INSERT INTO events (uid, name, data) VALUES ('u', 'e', '{}')")
        conn.execute(
            "INSERT INTO tasks (event_id, rule_id, service_id, state, expires_at)"
            " SELECT 1, 1, 1, state, now() + interval '1 day' FROM unnest(ARRAY['pending', 'pending', 'delayed']) state"
        )
    migrate(db)
    outbox = Outbox(db, max_attempts=5)
    assert outbox.bulk_demand() == [] and [demand.pending for demand in outbox.demand()] == [2]
    assert len(outbox.take({1: 10})) == 2
    with psycopg.connect(empty_database_url) as conn:
        conn.execute("UPDATE tasks SET bulk = true, state = 'pending'")
    assert [demand.pending for demand in outbox.bulk_demand()] == [3] and outbox.demand() == []
    assert {row["n"] for row in Views(db).tasks.counts()} == {3}
    db.close()


def test_tasks_and_rules_of_the_release_before_have_no_order(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tasks that wait while the hub is updated run as before, and a rule may get an ordering key afterwards."""
    every = migrations()
    db = Database(empty_database_url)
    db.open()
    with monkeypatch.context() as patched:
        patched.setattr("hub.store.migrate.migrations", lambda: [m for m in every if m[0] < "0011"])
        migrate(db)
    with psycopg.connect(empty_database_url) as conn:
        conn.execute("INSERT INTO services (name, type, base_url) VALUES ('crm', 'rest', 'http://h')")
        conn.execute("INSERT INTO rules (name, event, service_id) SELECT 'r', 'e', id FROM services")
        conn.execute("INSERT INTO events (uid, name, data) VALUES ('u', 'e', '{}')")
        conn.execute(
            "INSERT INTO tasks (event_id, rule_id, service_id, state, expires_at)"
            " SELECT 1, 1, 1, state, now() + interval '1 day' FROM unnest(ARRAY['pending', 'queued', 'delayed']) state"
        )
        conn.execute(
            "INSERT INTO dead_letters (task_id, event_id, event_uid, event, event_data, rule_id, service_id, attempts,"
            " reason, accepted_at) VALUES (99, 1, 'u', 'e', '{}', 1, 1, 5, 'attempts', now())"
        )
    migrate(db)
    with psycopg.connect(empty_database_url) as conn:
        conn.execute("UPDATE rules SET ordering_key = 'all'")
    ledger = Ledger(db, worker="w", body_limit=100)
    assert [ledger.claim_now(task_id) is not None for task_id in (1, 2, 3)] == [True] * 3, "they run side by side"
    assert Views(db).dead_letters.list()[0]["waiting"] is None
    assert db.all("SELECT 1 FROM notices") == [], "what was dead before is no news"
    made, _ = DeadLetterStore(db, max_age=60).requeue(Chosen(), limit=1)
    assert [row["state"] for row in db.all("SELECT state FROM tasks WHERE id = %s", [made[0][0]])] == ["pending"]
    db.close()


def test_events_of_the_first_release_are_found_and_tell_their_story(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have no search keys: a search reads them one by one, below the event since which a path is indexed."""
    every = migrations()
    db = Database(empty_database_url)
    db.open()
    with monkeypatch.context() as patched:
        patched.setattr("hub.store.migrate.migrations", lambda: every[:2])
        migrate(db)
    with psycopg.connect(empty_database_url) as conn:
        conn.execute("INSERT INTO services (name, type, base_url) VALUES ('crm', 'rest', 'http://h')")
        conn.execute("INSERT INTO rules (name, event, service_id) SELECT 'r', 'e', id FROM services")
        conn.execute(
            "INSERT INTO events (uid, name, data) SELECT n::text, 'e', json_build_object('relateduserid', n % 3)::text"
            " FROM generate_series(1, 9) n"
        )
        conn.execute(
            "INSERT INTO tasks (event_id, rule_id, service_id, state, expires_at)"
            " VALUES (1, 1, 1, 'pending', now() + interval '1 day')"
        )
        conn.execute(
            "INSERT INTO deliveries (direction, service, service_id, rule_id, event_id, task_id, success, outcome)"
            " VALUES ('outbound', 'crm', 1, 1, 2, 77, true, 'success')"
        )
        conn.execute(
            "INSERT INTO dead_letters (task_id, event_id, event_uid, event, event_data, rule_id, service_id, attempts,"
            " reason, accepted_at) VALUES (78, 3, '3', 'e', '{}', 1, 1, 5, 'attempts', now())"
        )
    migrate(db)
    views = Views(db)
    store = IntakeStore(db, max_age=3600)
    store.index(["relateduserid"])
    keys = SearchKeys(("relateduserid",)).of({"relateduserid": 1})
    store.write([NewEvent(b"k", 60, "10", "e", '{"relateduserid":1}', 0, [], keys=keys)])
    found = views.event_search.search(Query(values=(("relateduserid", "1"),)))
    assert [row["id"] for row in found.rows] == ["10", "7", "4", "1"] and found.next is None
    assert [row["state"] for row in found.rows] == ["unmatched", "unmatched", "unmatched", "pending"]
    states = {ident: views.stories.get(views.event_log.find(ident))["tasks"] for ident in ("1", "task:77", "task:78")}
    assert [task["state"] for tasks in states.values() for task in tasks] == ["pending", "delivered", "dead"]
    db.close()
