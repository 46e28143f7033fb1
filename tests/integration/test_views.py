"""What people look at, on a real PostgreSQL: the fields of the contract, filters, paging."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from hub.app.lifecycle import Hub, build
from hub.errors import NotFoundError
from hub.settings import Settings
from hub.store.database import Database
from hub.store.views import Views
from tests.support.waiting import eventually

TASK = {"id", "event", "rule", "service", "state", "attempts", "next_run_at", "last_error", "created_at"}
DEAD = {"id", "task_id", "event", "rule", "service", "attempts", "reason", "error", "payload", "created_at"}
DELIVERY = {
    "id",
    "task_id",
    "direction",
    "service",
    "event",
    "endpoint",
    "method",
    "attempt",
    "tries",
    "status",
    "latency_ms",
    "success",
    "error",
    "request_body",
    "response_body",
    "created_at",
}
SCHEDULE = {"name", "cron", "enabled", "last_run_at", "last_result", "next_run_at"}


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    db = Database(database_url)
    db.open()
    db.run(
        "INSERT INTO services (name, type, base_url) VALUES ('crm', 'rest', 'http://a/'), ('old', 'rest', 'http://b/')"
    )
    db.run("INSERT INTO breakers (service_id) SELECT id FROM services")
    db.run(
        "INSERT INTO rules (name, event, service_id)"
        " SELECT 'to-' || name, CASE name WHEN 'crm' THEN 'a.*' ELSE 'b' END, id FROM services"
    )
    db.run("INSERT INTO events (id, uid, name, data) VALUES (1, 'u1', 'a.x', '{\"n\":1}'), (2, 'u2', 'b', '{}')")
    for state in ("pending", "queued", "running", "delayed"):
        db.run(
            "INSERT INTO tasks (event_id, rule_id, service_id, state, expires_at)"
            " SELECT r.id, r.id, r.service_id, %s, now() + interval '1 day' FROM rules r ORDER BY r.id",
            [state],
        )
    yield db
    db.close()


def test_tasks_carry_the_fields_of_the_contract_and_the_state_people_know(db: Database) -> None:
    """`queued` is the hub's own business: people see pending."""
    tasks = Views(db).tasks.list(service="crm")
    assert set(tasks[0]) >= TASK
    assert [t["state"] for t in tasks] == ["delayed", "running", "pending", "pending"]
    assert {t["rule"] for t in tasks} == {"to-crm"} and {t["event"] for t in tasks} == {"a.x"}


def test_tasks_of_a_disabled_rule_are_held_and_of_a_deleted_one_orphans(db: Database) -> None:
    """A person must see why nothing happens."""
    db.run("UPDATE rules SET enabled = false WHERE name = 'to-crm'")
    db.run("UPDATE services SET deleted_at = now() WHERE name = 'old'")
    views = Views(db)
    assert [t["orphan"] for t in views.tasks.list(state="held", service="crm")] == [False] * 3
    assert len(views.tasks.list(orphan=True)) == 4
    assert views.tasks.list(state="pending") == []
    assert views.overview.stats()["tasks"] == {"pending": 0, "running": 2, "delayed": 0, "blocked": 0, "held": 6}


def test_pages_follow_each_other_without_gap_or_repeat(db: Database) -> None:
    """The cursor is the last id of the page before."""
    views, seen, before = Views(db), [], None
    while page := views.tasks.list(before=before, limit=3):
        seen += [t["id"] for t in page]
        before = page[-1]["id"]
    assert seen == sorted(seen, reverse=True) and len(set(seen)) == 8


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        ({"event": "a.x"}, 4),
        ({"event": "a.*"}, 4),
        ({"event": "b"}, 4),
        ({"event": "c"}, 0),
        ({"rule": "to-old"}, 4),
        ({"state": "pending"}, 4),
        ({"service": "none"}, 0),
        ({"failed": True}, 0),
        ({"overdue": True}, 0),
    ],
)
def test_task_filters(db: Database, filters: dict[str, object], count: int) -> None:
    assert len(Views(db).tasks.list(**filters)) == count  # type: ignore[arg-type]


def test_one_task_shows_its_event(db: Database) -> None:
    views = Views(db)
    assert views.tasks.get(views.tasks.list(event="a.x")[0]["id"])["event_data"] == '{"n":1}'
    with pytest.raises(NotFoundError, match="no task 999"):
        views.tasks.get(999)


def test_deliveries_are_found_by_every_filter(db: Database) -> None:
    """Time is searched without an index on time: ids grow with it."""
    db.run(
        "INSERT INTO deliveries (direction, service_id, service, success, outcome, status, event, task_id, created_at)"
        " SELECT CASE WHEN g %% 10 = 0 THEN 'inbound' ELSE 'outbound' END, 1, 'crm', g %% 4 > 0, 'success',"
        " 200 + g %% 2, 'a.x', g, now() - make_interval(mins => 1000 - g) FROM generate_series(1, 1000) g"
    )
    views = Views(db)
    now = datetime.now(UTC)
    assert set(views.deliveries.list(limit=1)[0]) >= DELIVERY
    assert len(views.deliveries.list(service="crm", limit=1000)) == 1000
    assert views.deliveries.list(service="old") == [] == views.deliveries.list(service="none")
    assert len(views.deliveries.list(direction="inbound", limit=1000)) == 100
    assert len(views.deliveries.list(failed=True, limit=1000)) == 250
    assert [d["task_id"] for d in views.deliveries.list(task=7)] == [7]
    assert len(views.deliveries.list(status=201, limit=1000)) == 500
    assert len(views.deliveries.list(since=now - timedelta(minutes=100, seconds=30), limit=1000)) == 101
    assert len(views.deliveries.list(until=now - timedelta(minutes=899, seconds=30), limit=1000)) == 100
    followed = views.deliveries.list(after=990, limit=1000)
    assert [d["id"] for d in followed] == list(range(991, 1001))
    assert views.deliveries.get(5)["properties"] is None


def test_dead_letters_breakers_schedules(db: Database) -> None:
    db.run(
        "INSERT INTO dead_letters (task_id, event_id, event_uid, event, event_data, rule_id, service_id, attempts,"
        " reason, error, payload, accepted_at) SELECT g, 1, 'u1', 'a.x', '{}', 1, 1, 5,"
        " 'attempts', 'HTTP 500', '{}', now()"
        " FROM generate_series(1, 20) g"
    )
    views = Views(db)
    letters = views.dead_letters.list(service="crm", reason="attempts", event="a.*", limit=5)
    assert set(letters[0]) >= DEAD and [d["id"] for d in letters] == [20, 19, 18, 17, 16]
    assert views.dead_letters.list(until=datetime.now(UTC) - timedelta(hours=1)) == []
    assert views.dead_letters.get(3)["event_data"] == "{}"
    assert set(views.overview.breakers()[0]) >= {"service", "state", "failures", "retry_at"}
    assert set(views.overview.schedules()[0]) >= SCHEDULE
    assert views.overview.stats()["dead_letters"] == 20
    assert views.runs.scheduled() == []


def test_a_worker_that_stopped_in_order_is_not_alive_any_more(alone: Settings, hub: Hub) -> None:
    """Only those that died without a word are waited for, a minute long."""

    def alive() -> int:
        return sum(row["alive"] for row in hub.views.overview.heartbeats() if row["component"] == "worker")

    with build(alone, role="worker") as other:
        other.start_heartbeat("worker")
        eventually(lambda: alive() == 1)
    assert alive() == 0
