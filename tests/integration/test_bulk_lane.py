"""The bulk lane: tasks of backfills and bulk replays wait behind live events, and count apart from them."""

from __future__ import annotations

import pytest

from hub.app.lifecycle import Hub
from hub.operations.replay import Chosen, replay, replay_ids
from hub.store.database import Row
from hub.tasks.outbox_relay import BULK_QUEUED
from tests.support.http_target import HttpTarget
from tests.support.hubs import add_rule, add_service, attempt, counts_are_exact, emit_many, task


def tick(hub: Hub) -> bool:
    assert hub.relay is not None
    return hub.relay.tick()


def tasks(hub: Hub) -> list[Row]:
    return hub.db.all("SELECT id, state, bulk FROM tasks ORDER BY id")


def queued(hub: Hub, *, bulk: bool) -> list[int]:
    return [row["id"] for row in tasks(hub) if row["state"] == "queued" and row["bulk"] is bulk]


@pytest.fixture
def dead(hub: Hub, target: HttpTarget) -> list[int]:
    """Dead letters: more than the lane lets out at once."""
    add_service(hub, target.url)
    add_rule(hub)
    emit_many(hub, BULK_QUEUED + 10)
    hub.broker.flush_all()
    hub.db.run("UPDATE tasks SET state = 'pending', expires_at = now() - interval '1 s'")
    tick(hub)
    return [row["id"] for row in hub.db.all("SELECT id FROM dead_letters ORDER BY id")]


def test_one_replayed_by_its_id_is_a_live_task(hub: Hub, dead: list[int]) -> None:
    replay_ids(hub.dead_letters, dead[:1])
    assert [row["bulk"] for row in tasks(hub)] == [False]


def test_a_replay_of_all_that_match_waits_in_the_lane(hub: Hub, dead: list[int]) -> None:
    made = replay(hub.dead_letters, Chosen()).tasks
    assert len(made) == len(dead) and all(row["bulk"] for row in tasks(hub)) and counts_are_exact(hub)
    assert hub.views.overview.stats()["tasks"]["pending"] == len(dead), "people see them as pending"
    assert tick(hub) and len(queued(hub, bulk=True)) == BULK_QUEUED, "few are published at a time"
    assert tick(hub) and len(queued(hub, bulk=True)) == BULK_QUEUED, "and no more until a worker takes one"
    assert attempt(hub, queued(hub, bulk=True)[0]) == "delivered"
    tick(hub)
    assert len(queued(hub, bulk=True)) == BULK_QUEUED and counts_are_exact(hub)


def test_live_tasks_are_published_first(hub: Hub, dead: list[int]) -> None:
    """A live event that comes while a replay is under way is published at once, whatever waits in the lane."""
    replay(hub.dead_letters, Chosen())
    live = emit_many(hub, 1, start=1000)
    assert queued(hub, bulk=False) == live, "the lane's backlog is no reason to wait"
    hub.db.run("UPDATE tasks SET state = 'pending', handed_at = NULL WHERE id = %s", live)
    hub.db.run("UPDATE tasks SET next_run_at = now() - interval '1 h' WHERE bulk")
    assert hub.outbox.bulk_demand() == [], "none of the lane while a live task of the service is pending"
    tick(hub)
    assert queued(hub, bulk=False) == live


def test_a_task_of_the_lane_stays_in_it_when_it_is_retried(hub: Hub, dead: list[int], target: HttpTarget) -> None:
    replay(hub.dead_letters, Chosen())
    tick(hub)
    target.on("/x", 500)
    first = queued(hub, bulk=True)[0]
    assert attempt(hub, first) == "failed"
    hub.db.run("UPDATE tasks SET next_run_at = now() WHERE id = %s", [first])
    hub.outbox.promote()
    assert (task(hub, first)["state"], task(hub, first)["bulk"]) == ("pending", True) and counts_are_exact(hub)
    hub.admin.retry([first])
    assert not task(hub, first)["bulk"], "a person who runs it now does not wait in the lane"
