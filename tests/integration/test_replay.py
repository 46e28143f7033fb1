"""Replay of many dead letters: bounded by what is there when it starts."""

from __future__ import annotations

import pytest

from hub.app.lifecycle import Hub
from hub.errors import NotFoundError
from hub.operations.replay import Chosen, replay, replay_ids
from tests.support.api import serving
from tests.support.http_target import HttpTarget
from tests.support.hubs import add_rule, add_service, attempt, count, emit_many


@pytest.fixture
def dead(hub: Hub, target: HttpTarget) -> list[int]:
    """The ids of five dead letters of a service that still fails."""
    target.default = 500
    add_service(hub, target.url, max_attempts=1, cb_failure_threshold=0)
    add_rule(hub)
    for task_id in emit_many(hub, 5):
        attempt(hub, task_id)
    return sorted(row["id"] for row in hub.views.dead_letters.list())


def test_what_dies_again_while_the_replay_runs_is_not_replayed_again(hub: Hub, dead: list[int]) -> None:
    """Else a service that is still down is called for ever by one replay."""

    def die_again(_: int) -> None:
        for row in hub.views.tasks.list():
            assert attempt(hub, row["id"]) == "failed"

    done = replay(hub.dead_letters, Chosen(), progress=die_again, batch=2)
    assert (len(done.tasks), done.remaining, done.up_to) == (5, 0, dead[-1])
    assert count(hub, "dead_letters") == 5 and count(hub, "tasks") == 0


def test_a_replay_that_stopped_at_its_limit_is_continued_with_the_same_bound(hub: Hub, dead: list[int]) -> None:
    first = replay(hub.dead_letters, Chosen(service="crm"), most=3)
    assert (len(first.tasks), first.remaining) == (3, 2)
    for task_id in first.tasks:
        attempt(hub, task_id)
    with serving(hub) as api:
        answer = api.client("manage").post("/api/v1/dead-letters/replay", json={"all": True, "up_to": first.up_to})
        assert (answer.json()["replayed"], answer.json()["remaining"]) == (2, 0)
    assert count(hub, "dead_letters") == 3, "those that died again"


@pytest.mark.parametrize(
    ("chosen", "found"),
    [
        (Chosen(event="e"), 5),
        (Chosen(event="e*"), 5),
        (Chosen(event="x*"), 0),
        (Chosen(reason="attempts"), 5),
        (Chosen(reason="expired"), 0),
    ],
)
def test_the_filters_of_a_listing_choose_what_is_replayed(
    hub: Hub, dead: list[int], chosen: Chosen, found: int
) -> None:
    assert hub.dead_letters.would_replay(chosen) == (found, 0)
    assert len(replay(hub.dead_letters, chosen).tasks) == found


def test_ids_that_are_gone_are_an_error_or_left_out(hub: Hub, dead: list[int]) -> None:
    gone = [*dead[:2], dead[-1] + 1]
    with pytest.raises(NotFoundError, match=str(dead[-1] + 1)):
        replay_ids(hub.dead_letters, gone)
    assert count(hub, "dead_letters") == 5
    assert len(replay_ids(hub.dead_letters, gone, missing_ok=True).tasks) == 2


def test_runs_of_one_service_and_lost_runs_are_found(hub: Hub) -> None:
    """The page of one service used to look among the last 100 runs of all; `lost` is a failure, too."""
    hub.db.run(
        "INSERT INTO task_runs (name, service, host, pid, result) VALUES"
        " ('consume_responses_task', 'mine', 'h', 1, 'lost')"
    )
    hub.db.run(
        "INSERT INTO task_runs (name, service, host, pid, result)"
        " SELECT 'consume_responses_task', 'other', 'h', 1, 'ok' FROM generate_series(1, 150)"
    )
    assert [row["result"] for row in hub.views.runs.scheduled(service="mine", limit=5)] == ["lost"]
    assert [row["service"] for row in hub.views.runs.scheduled(failed=True)] == ["mine"]
