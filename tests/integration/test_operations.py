"""Operations that the CLI, the API and the console share: they write the audit trail and bound what they touch."""

from __future__ import annotations

import pytest

from hub.app.lifecycle import Hub
from hub.errors import NotFoundError
from hub.models import Event
from hub.operations import dead_letters, preview, replay, tasks
from hub.operations.service_test import run_service_test
from hub.store.audit import Actor, acting
from tests.support.http_target import HttpTarget
from tests.support.hubs import add_rule, add_service, attempt, count, emit, emit_many

ANN = Actor("ann", "user", "192.0.2.7")


@pytest.fixture
def dead(hub: Hub, target: HttpTarget) -> list[int]:
    """Three dead letters of the rule `r1`."""
    target.default = 400
    add_service(hub, target.url, max_attempts=1)
    add_rule(hub)
    for task_id in emit_many(hub, 3):
        attempt(hub, task_id)
    assert count(hub, "dead_letters") == 3
    return [row["id"] for row in hub.views.dead_letters.list()][::-1]


def trail(hub: Hub, action: str) -> list[tuple[str, int | None, object]]:
    return [(entry.actor, entry.subject_id, entry.after) for entry in hub.audit.list(action=action)]


def test_replays_and_deletions_of_dead_letters_leave_entries(hub: Hub, dead: list[int]) -> None:
    with acting(ANN):
        one = replay.replay_ids(hub.dead_letters, dead[:1])
        assert dead_letters.delete_matching(hub, dead_letters.Filter(event="e")) == 2
        assert dead_letters.delete_matching(hub, dead_letters.Filter()) == 0
    assert trail(hub, "dead_letter.replay") == [("ann", dead[0], {"tasks": one.tasks})]
    assert trail(hub, "dead_letter.delete") == [("ann", None, {"count": 2, "ids": dead[1:]})]
    assert count(hub, "dead_letters") == 0
    rows = hub.db.all("SELECT who FROM cancellations WHERE dead_letter_id = ANY(%s)", [dead])
    assert [row["who"] for row in rows] == ["console:ann"] * 2


def test_a_deletion_with_an_unknown_id_deletes_nothing(hub: Hub, dead: list[int]) -> None:
    with pytest.raises(NotFoundError):
        dead_letters.delete(hub, [*dead, 999_999])
    assert count(hub, "dead_letters") == 3
    assert dead_letters.delete(hub, [*dead, 999_999], missing_ok=True) == 3


def test_an_export_has_the_rows_that_match_with_their_data(hub: Hub, dead: list[int]) -> None:
    rows = list(dead_letters.export(hub, dead_letters.Filter(service="crm")))
    assert [row["id"] for row in rows] == dead[::-1]
    assert all(isinstance(row["event_data"], dict) and "response_body" in row for row in rows)
    assert list(dead_letters.export(hub, dead_letters.Filter(event="other"))) == []


def test_retries_and_cancellations_of_tasks_leave_entries(hub: Hub, target: HttpTarget) -> None:
    target.default = 500
    add_service(hub, target.url, max_attempts=5)
    add_rule(hub)
    first, second, third = emit_many(hub, 3)
    attempt(hub, first)
    with acting(Actor("source", "token")):
        assert tasks.retry_failed(hub) == [first]
        assert tasks.retry(hub, [second, 999_999], restart=True) == ([second], [999_999])
        assert tasks.cancel(hub, [third, 999_999]) == [third]
        hub.registry.rules.delete("r1")
        assert tasks.purge_orphans(hub, most=1) == 1
        assert tasks.purge_orphans(hub) == 1
    restarted = trail(hub, "task.retry")
    assert restarted == [
        ("source", second, {"attempts_restarted": True}),
        ("source", first, {"attempts_restarted": False}),
    ]
    assert [after for _, _, after in trail(hub, "task.cancel")] == [
        {"reason": "orphan purged"},
        {"reason": "orphan purged"},
        {"reason": "deleted"},
    ]
    assert {row["who"] for row in hub.db.all("SELECT who FROM cancellations")} == {"token source"}


def test_breaker_resets_run_requests_and_key_rotation_leave_entries(hub: Hub, target: HttpTarget) -> None:
    service = add_service(hub, target.url, cb_failure_threshold=1, auth={"type": "bearer", "token": "secret-1"})
    hub.breakers.failed(service, hub.breakers.admit(service, probe_lease=30))
    with acting(ANN):
        assert hub.breakers.reset(service)
        assert not hub.breakers.reset(service)  # closed already: nothing to record
        hub.schedule.request_run("housekeeping_task")
        hub.registry.services.rotate_secrets()
    assert trail(hub, "breaker.reset") == [("ann", service.id, {"circuit": "closed"})]
    assert [entry.subject_name for entry in hub.audit.list(action="schedule.run")] == ["housekeeping_task"]
    assert trail(hub, "secrets.rotate") == [("ann", None, {"services": 1, "unreadable": []})]


def test_a_preview_is_of_the_latest_event_that_fits(hub: Hub, target: HttpTarget) -> None:
    add_service(hub, target.url)
    rule = add_rule(hub, event="user_*", payload='{"n": {{n}}}', conditions={"n": 1})
    assert preview.latest_event(hub, rule.event) is None
    emit(hub, "user_created", {"n": 1})
    latest = preview.latest_event(hub, rule.event)
    assert latest is not None and (latest.name, latest.data) == ("user_created", {"n": 1})
    found = preview.preview(hub, rule, latest)
    assert (found.matches, found.error) == (True, None) and "1" in (found.body or "")
    bad = preview.preview(hub, rule, Event("user_created", {"n": "a"}))
    assert not bad.matches


def test_a_service_test_says_whether_it_was_reached(hub: Hub, target: HttpTarget) -> None:
    add_service(hub, target.url)
    assert run_service_test(hub, "crm").ok
    target.close()
    assert not run_service_test(hub, "crm").ok
    with pytest.raises(NotFoundError):
        run_service_test(hub, "none")
