"""The event log on a real database: every event is found by an id of any kind, and says what became of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from hub.app.lifecycle import Hub, build
from hub.domain.search_keys import BLOCK_BITS, key_of, stored
from hub.errors import NotFoundError
from hub.models import Event
from hub.settings import Settings
from tests.support.http_target import HttpTarget
from tests.support.hubs import USER_LOGGED_IN, add_rule, add_service, attempt, due_now, emit


def test_an_event_is_found_by_its_id_its_task_and_its_dead_letter(hub: Hub) -> None:
    add_service(hub, "http://127.0.0.1:9", max_attempts=1)
    add_rule(hub)
    [task_id] = emit(hub, key="order-7")
    log = hub.views.event_log
    number = log.find("order-7")
    assert log.find(f"task:{task_id}") == log.find(str(task_id)) == log.find(f"event:{number}") == number
    assert attempt(hub, task_id) == "failed"
    [letter] = hub.views.dead_letters.list()
    [delivery] = hub.views.deliveries.list()
    for ident in (f"dead-letter:{letter['id']}", f"delivery:{delivery['id']}", f"task:{task_id}"):
        assert log.find(ident) == number
    event = log.one(number)
    assert (event["id"], event["state"], event["dead"], event["data"]) == ("order-7", "dead", 1, '{"n":1}')
    for ident in ("order-8", "task:999", "dead-letter:999", "999"):
        with pytest.raises(NotFoundError, match="no event"):
            log.find(ident)


def test_an_id_that_is_a_number_means_the_sender_s_own_first(hub: Hub) -> None:
    """A shop that numbers its orders looks for order 1, not for the hub's task 1."""
    add_service(hub, "http://127.0.0.1:9")
    add_rule(hub)
    [task_id] = emit(hub)
    emit(hub, key=str(task_id), data={"n": 2})
    log = hub.views.event_log
    assert log.one(log.find(str(task_id)))["data"] == '{"n":2}'
    assert log.one(log.find(f"task:{task_id}"))["data"] == '{"n":1}'


def test_an_event_says_what_became_of_it(hub: Hub, target: HttpTarget) -> None:
    add_service(hub, target.url)
    add_rule(hub)
    [delivered], [cancelled], [pending] = (emit(hub, data={"n": n}) for n in range(3))
    emit(hub, "other")
    assert attempt(hub, delivered) == "delivered"
    hub.admin.cancel([cancelled], who="t")
    log = hub.views.event_log
    assert [row["state"] for row in log.list()] == ["unmatched", "pending", "cancelled", "delivered"]
    assert log.find(f"task:{cancelled}") == log.list()[2]["number"]
    assert [row["name"] for row in log.list(matched=False)] == ["other"]
    assert len(log.list(matched=True, name="e")) == 3 and log.list(name="o*")[0]["name"] == "other"
    assert attempt(hub, pending) == "delivered"


def test_a_purged_event_is_shown_from_its_dead_letter(hub: Hub) -> None:
    add_service(hub, "http://127.0.0.1:9", max_attempts=1)
    add_rule(hub)
    [task_id] = emit(hub, key="k")
    due_now(hub)
    assert attempt(hub, task_id) == "failed"
    hub.db.run("DELETE FROM events")
    event = hub.views.event_log.one(hub.views.event_log.find("k"))
    assert (event["id"], event["data"], event["state"]) == ("k", '{"n":1}', "dead")


def test_pages_and_times_bound_the_list(hub: Hub) -> None:
    hub.intake.handle_events([Event("e", {"n": n}) for n in range(5)])
    hub.db.run(
        "UPDATE events SET created_at = created_at - interval '1 day' WHERE id <= (SELECT min(id) + 1 FROM events)"
    )
    log = hub.views.event_log
    first = log.list(limit=2)
    assert len(log.list(before=first[-1]["number"])) == 3
    hour_ago = datetime.now(UTC) - timedelta(hours=1)
    assert len(log.list(since=hour_ago)) == 3 and len(log.list(until=hour_ago)) == 2


def test_search_keys_are_written_with_the_block_of_the_event(alone: Settings) -> None:
    with build(
        alone.model_copy(update={"search_keys": ("userid", "relateduserid", "other.username")}), role="cli"
    ) as hub:
        hub.intake.handle_event(Event("e", USER_LOGGED_IN))
        row = hub.db.one("SELECT id, search_keys FROM events")
        assert row is not None
        wanted = [key_of("userid", "5"), key_of("other.username", "student1")]
        assert row["search_keys"] == [stored(key, row["id"] >> BLOCK_BITS) for key in wanted]
        since = {row["path"]: row["since_id"] for row in hub.db.all("SELECT path, since_id FROM search_paths")}
        assert set(since) == {"userid", "relateduserid", "other.username"} and max(since.values()) < row["id"]


def test_the_source_of_an_event_is_kept(hub: Hub) -> None:
    hub.intake.handle_event(Event("e", {}, "k", "token:7"))
    assert [row["source"] for row in hub.views.event_log.list()] == ["token:7"]
