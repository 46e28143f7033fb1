"""How events come in: matched, deduplicated by the database, written whole or not at all."""

from __future__ import annotations

import multiprocessing
import threading
from typing import Any

import pytest

from hub.app.lifecycle import Hub, build
from hub.codec import dumps, loads
from hub.domain.events import parse_event
from hub.errors import PayloadError, UnavailableError
from hub.models import Accepted, Event
from hub.settings import Settings
from tests.support.http_target import HttpTarget
from tests.support.hubs import USER_LOGGED_IN, add_rule, add_service, attempt, count, counts_are_exact, emit, task
from tests.support.waiting import eventually

LIMIT = 1_048_576


def _accept(url: str, home: str, key: str | None, start: Any, out: Any) -> None:
    """A process that accepts one event when told to."""
    settings = Settings(database_url=url, home=home, secret_keys="MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=")
    with build(settings, role="cli") as hub:
        hub.configuration.snapshot()
        start.wait(120)
        accepted = hub.intake.handle_event(Event("e", {"n": 1}, key))
        out.put((accepted.id, accepted.duplicate, list(accepted.tasks)))


def test_one_event_makes_one_task_for_each_matching_rule(hub: Hub) -> None:
    add_service(hub, "http://127.0.0.1:9")
    for n in range(3):
        add_rule(hub, f"r{n}", "three")
    add_rule(hub, "one", "one")
    assert [len(emit(hub, name)) for name in ("three", "one", "none")] == [3, 1, 0]
    assert count(hub, "tasks") == 4 and count(hub, "events") == 3 and counts_are_exact(hub)


@pytest.mark.parametrize(("keep", "kept"), [("all", 2), ("sample", 1), ("none", 0)])
def test_events_that_match_no_rule_are_kept_as_the_setting_says(alone: Settings, keep: str, kept: int) -> None:
    """A new rule has a past. Whatever is kept: a second send is known as one, and the name is suggested."""
    with build(alone.model_copy(update={"keep_unmatched": keep}), role="cli") as hub:
        for n in (1, 2):
            accepted = hub.intake.handle_event(Event("nobody.listens", {"a": n}))
            assert accepted.tasks == () and not accepted.duplicate and accepted.id
        assert count(hub, "events") == kept and count(hub, "tasks") == 0 and count(hub, "event_keys") == 2
        assert hub.db.one("SELECT sample FROM event_names WHERE name = 'nobody.listens'") == {"sample": '{"a":1}'}


@pytest.mark.parametrize(
    "pattern", ["*", "\\core\\event\\*", "core\\event\\user_*", "*loggedin", "\\core\\*\\user_log*"]
)
def test_a_star_in_a_rule_matches_moodle_names(hub: Hub, pattern: str) -> None:
    add_service(hub, "http://127.0.0.1:9")
    add_rule(hub, "r", pattern)
    event = parse_event(USER_LOGGED_IN, limit=LIMIT)
    assert len(hub.intake.handle_event(event).tasks) == 1


def test_an_id_is_accepted_once_in_24_hours(hub: Hub) -> None:
    """A sender that got no answer sends again; the second answer names the first event."""
    add_service(hub, "http://127.0.0.1:9")
    add_rule(hub)
    first = hub.intake.handle_event(Event("e", {"n": 1}, "order-7"))
    again = hub.intake.handle_event(Event("e", {"n": 2}, "order-7"))
    assert first == Accepted("order-7", False, first.tasks) and again == Accepted("order-7", True, ())
    hub.db.run("UPDATE event_keys SET expires_at = expires_at - interval '23 hours 59 minutes'")
    assert emit(hub, key="order-7") == []
    hub.db.run("UPDATE event_keys SET expires_at = expires_at - interval '2 minutes'")
    assert len(emit(hub, key="order-7")) == 1 and count(hub, "tasks") == 2


def test_the_same_content_is_accepted_once_in_60_seconds(hub: Hub) -> None:
    """The whole content counts, whatever the order of keys: MIH dropped logins that only looked alike."""
    add_service(hub, "http://127.0.0.1:9")
    add_rule(hub)
    first = hub.intake.handle_event(Event("e", {"a": 1, "b": [1, 2]}))
    again = hub.intake.handle_event(Event("e", {"b": [1, 2], "a": 1}))
    assert again == Accepted(first.id, True, ())
    for other in ({"a": 1, "b": [2, 1]}, {"a": "1", "b": [1, 2]}, {"a": 1}, {"a": True, "b": [1, 2]}):
        assert len(emit(hub, data=other)) == 1
    hub.db.run("UPDATE event_keys SET expires_at = expires_at - interval '40 seconds'")
    assert emit(hub, data={"a": 1, "b": [1, 2]}) == []
    hub.db.run("UPDATE event_keys SET expires_at = expires_at - interval '21 seconds'")
    assert len(emit(hub, data={"a": 1, "b": [1, 2]})) == 1


@pytest.mark.parametrize("key", ["k-1", None])
def test_an_event_that_no_rule_wants_is_a_duplicate_the_second_time(hub: Hub, key: str | None) -> None:
    first = hub.intake.handle_event(Event("nobody.listens", {"a": 1}, key))
    again = hub.intake.handle_event(Event("nobody.listens", {"a": 1}, key))
    assert not first.duplicate and again == Accepted(first.id, True, ())
    both = hub.intake.handle_events([Event("other", {}, key and "k-2"), Event("other", {}, key and "k-2")])
    assert [a.duplicate for a in both] == [False, True] and both[0].id == both[1].id


def test_content_that_no_rule_wanted_is_accepted_once_a_rule_wants_it(hub: Hub) -> None:
    """Who adds the missing rule and sends the event again does not wait for a minute."""
    add_service(hub, "http://127.0.0.1:9")
    assert emit(hub) == []
    add_rule(hub)
    assert len(emit(hub)) == 1 and emit(hub) == []


def test_an_id_belongs_to_its_source_and_event_name(hub: Hub) -> None:
    """Token B cannot make A's `order-7-paid` a duplicate by sending it first."""
    add_service(hub, "http://127.0.0.1:9")
    add_rule(hub, "all", "*")
    events = [Event(name, {}, "order-7", source) for name in ("paid", "sent") for source in ("token:1", "token:2", "")]
    assert [a.duplicate for a in hub.intake.handle_events(events)] == [False] * 6
    assert [a.duplicate for a in hub.intake.handle_events(events)] == [True] * 6
    assert count(hub, "tasks") == 6


def test_an_id_that_the_release_before_accepted_is_still_a_duplicate(hub: Hub) -> None:
    """Its keys knew neither source nor name; they count until they expire."""
    add_service(hub, "http://127.0.0.1:9")
    add_rule(hub)
    hub.db.run(
        "INSERT INTO event_keys VALUES (sha256('id'::bytea || '\\x00'::bytea || 'order-7'::bytea), 'order-7',"
        " now() + interval '1 hour')"
    )
    again = hub.intake.handle_event(Event("e", {}, "order-7", "token:1"))
    assert again == Accepted("order-7", True, ()) and count(hub, "tasks") == 0
    hub.db.run("UPDATE event_keys SET expires_at = now() - interval '1 second'")
    assert len(hub.intake.handle_event(Event("e", {}, "order-7", "token:1")).tasks) == 1


@pytest.mark.parametrize("key", ["race", None])
def test_two_processes_that_get_one_event_at_once_accept_it_once(alone: Settings, hub: Hub, key: str | None) -> None:
    add_service(hub, "http://127.0.0.1:9")
    add_rule(hub)
    spawn = multiprocessing.get_context("spawn")
    start, out = spawn.Event(), spawn.Queue()
    assert alone.database_url
    args = (alone.database_url.get_secret_value(), str(alone.home), key, start, out)
    processes = [spawn.Process(target=_accept, args=args) for _ in range(2)]
    for p in processes:
        p.start()
    start.set()
    results: list[Any] = []
    threads = [threading.Thread(target=lambda: results.append(_tuple(hub, key))) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    results += [out.get(timeout=120) for _ in processes]
    for p in processes:
        p.join(120)
    assert sum(not duplicate for _, duplicate, _ in results) == 1 and len({uid for uid, _, _ in results}) == 1
    assert count(hub, "tasks") == count(hub, "events") == 1


def _tuple(hub: Hub, key: str | None) -> tuple[str, bool, list[int]]:
    accepted = hub.intake.handle_event(Event("e", {"n": 1}, key))
    return accepted.id, accepted.duplicate, list(accepted.tasks)


def test_a_bulk_is_answered_in_order_and_knows_its_own_repeats(hub: Hub) -> None:
    add_service(hub, "http://127.0.0.1:9")
    add_rule(hub)
    emit(hub, data={"n": 0})
    answers = hub.intake.handle_events(
        [
            Event("e", {"n": 0}),
            Event("no", {}),
            Event("e", {"n": 1}),
            Event("e", {"n": 2}, "k"),
            Event("e", {"n": 1}),
            Event("e", {"n": 9}, "k"),
        ]
    )
    assert [a.duplicate for a in answers] == [True, False, False, False, True, True]
    assert [len(a.tasks) for a in answers] == [0, 0, 1, 1, 0, 0]
    assert answers[4].id == answers[2].id and answers[5].id == answers[3].id == "k"
    rows = hub.db.all("SELECT t.id, e.data FROM tasks t JOIN events e ON e.id = t.event_id ORDER BY t.id")
    assert [loads(row["data"]) for row in rows] == [{"n": 0}, {"n": 1}, {"n": 2}]


def test_one_bad_event_of_a_bulk_leaves_nothing_behind(hub: Hub) -> None:
    add_service(hub, "http://127.0.0.1:9")
    add_rule(hub)
    with pytest.raises(PayloadError, match="name"):
        hub.intake.handle_events([Event("e", {}), Event("", {})])
    assert count(hub, "events") == count(hub, "tasks") == count(hub, "event_keys") == count(hub, "names") == 0


BAD = [
    (Event("", {}), "name: must have 1 to 255"),
    (Event("x" * 256, {}), "name: must have 1 to 255"),
    (Event("a\x00b", {}), "name: .*no control characters"),
    (Event("a\nb", {}), "name: .*no control characters"),
    (Event("a\ud800", {}), "name: holds half a surrogate"),
    (Event(7, {}), "name: must be a text, not a number"),  # type: ignore[arg-type]
    (Event("e", {"a": "\ud800"}), "data: holds half a surrogate"),
    (Event("e", {"a": {1, 2}}), "cannot be written as JSON"),
    (Event("e", {"a": float("nan")}), "cannot be written as JSON"),
    (Event("e", {"a": "x" * LIMIT}), "HUB_EVENT_LIMIT"),
    (Event("e", {}, ""), "id: must have 1 to 255 printable"),
    (Event("e", {}, "a\x00"), "id: must have 1 to 255 printable"),
    (Event("e", {}, "\ud800"), "id: must have 1 to 255 printable"),
]


@pytest.mark.parametrize(("event", "why"), BAD, ids=range(len(BAD)))
@pytest.mark.parametrize("matched", [True, False])
def test_a_bad_event_is_refused_by_field_and_nothing_is_written(
    hub: Hub, event: Event, why: str, matched: bool
) -> None:
    add_service(hub, "http://127.0.0.1:9")
    if matched:
        add_rule(hub, "all", "*")
    with pytest.raises(PayloadError, match=why):
        hub.intake.handle_event(event)
    assert count(hub, "events") == count(hub, "tasks") == count(hub, "event_keys") == count(hub, "names") == 0


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ([], "an event is a JSON object, not an array"),
        ("x", "not a text"),
        (None, "not null"),
        ({}, "name: missing"),
        ({"name": "e", "date": 1}, "date: unknown field"),
        ({"data": {}}, "name: must be a text, not null"),
        ({"name": ["e"]}, "name: must be a text, not an array"),
        ({"eventname": 5}, "eventname: must be a text"),
        ({"name": "e", "id": True}, "id: must be a text, not a boolean"),
        ({"name": "e", "id": {}}, "id: must be a text, not an object"),
        ({"name": "e", "id": 1.5}, "id: must be a text, not a number"),
        ({"name": "e", "id": ""}, "id: must have 1"),
    ],
)
def test_what_is_no_event_is_refused_by_field(value: Any, why: str) -> None:
    with pytest.raises(PayloadError, match=why):
        parse_event(value, limit=LIMIT)


def test_both_shapes_of_an_event_are_taken() -> None:
    assert parse_event({"name": "e", "data": [1], "id": 7}, limit=LIMIT) == Event("e", [1], "7")
    assert parse_event({"name": "e"}, limit=LIMIT, key="k") == Event("e", {}, "k")
    moodle = parse_event(USER_LOGGED_IN, limit=LIMIT)
    assert moodle == Event("\\core\\event\\user_loggedin", USER_LOGGED_IN)


def test_a_nul_in_the_data_arrives_as_it_was_sent(hub: Hub, target: HttpTarget) -> None:
    """PostgreSQL's text knows no NUL and its jsonb refuses \\u0000; Moodle's data may hold it."""
    add_service(hub, target.url)
    add_rule(hub, payload={"v": "{{a}}", "w": "<{{a}}>"})
    (task_id,) = emit(hub, data={"a": "x\x00y"})
    assert attempt(hub, task_id) == "delivered"
    assert target.seen[0].json() == {"v": "x\x00y", "w": "<x\x00y>"}
    assert hub.views.deliveries.get(hub.views.deliveries.list()[0]["id"])["request_body"]


def test_a_disabled_rule_collects_tasks_that_run_when_it_is_enabled(hub: Hub, target: HttpTarget) -> None:
    """MIH lost them."""
    add_service(hub, target.url)
    add_rule(hub, enabled=False)
    (task_id,) = emit(hub)
    assert task(hub, task_id)["state"] == "pending" and hub.views.tasks.list()[0]["state"] == "held"
    assert hub.relay and not hub.relay.tick() and attempt(hub, task_id) == "skipped"
    assert task(hub, task_id)["attempts"] == 0 and target.seen == []
    hub.registry.rules.enable("r1", True)
    assert hub.relay.tick() and task(hub, task_id)["state"] == "queued"
    assert attempt(hub, task_id) == "delivered" and len(target.seen) == 1


def test_a_task_whose_service_was_disabled_after_it_was_queued_is_held(hub: Hub, target: HttpTarget) -> None:
    add_service(hub, target.url)
    add_rule(hub)
    (task_id,) = emit(hub)
    assert task(hub, task_id)["state"] == "queued"
    hub.registry.services.enable("crm", False)
    assert attempt(hub, task_id) == "skipped"
    row = task(hub, task_id)
    assert (row["state"], row["attempts"]) == ("pending", 0) and target.seen == []
    hub.registry.services.enable("crm", True)
    assert attempt(hub, task_id) == "delivered"


@pytest.mark.parametrize("what", ["rule", "service"])
def test_a_task_whose_rule_or_service_was_deleted_is_an_orphan_until_somebody_purges_it(
    hub: Hub, target: HttpTarget, what: str
) -> None:
    add_service(hub, target.url)
    add_rule(hub)
    (task_id,) = emit(hub)
    if what == "rule":
        hub.registry.rules.delete("r1")
    else:
        hub.registry.services.delete("crm")
    assert attempt(hub, task_id) == "skipped" and target.seen == []
    assert hub.relay and not hub.relay.tick()
    assert [t["id"] for t in hub.views.tasks.list(orphan=True)] == [task_id] == hub.admin.orphans()
    assert emit(hub, data={"n": 2}) == []
    assert hub.admin.cancel(hub.admin.orphans(), who="me", reason="orphan") == [(task_id, "crm")]
    assert count(hub, "tasks") == 0 and count(hub, "cancellations") == 1 and counts_are_exact(hub)


def test_a_new_rule_is_known_to_every_process_at_once(alone: Settings, hub: Hub) -> None:
    """They keep the configuration in memory, and hear of a change when it commits."""
    with build(alone, role="web") as other:
        other.registry.configuration.listen()
        add_service(hub, "http://127.0.0.1:9")
        eventually(lambda: other.registry.configuration.snapshot().services and other.registry.configuration._snapshot)
        add_rule(hub)
        eventually(lambda: emit(other, key=None, data={"n": 1}), "the rule is known")
        hub.registry.rules.update("r1", {"event": "f"})
        eventually(lambda: other.registry.configuration.rule("r1").event == "f", "the change is known")
        hub.registry.rules.delete("r1")
        eventually(lambda: not other.registry.configuration.rules(), "the deletion is known")


def test_a_process_that_lost_its_ear_hears_again(hub: Hub) -> None:
    """The listening connection may be cut; what changed meanwhile is read when it is back."""
    hub.configuration.listen()
    add_service(hub, "http://127.0.0.1:9")
    eventually(lambda: hub.configuration._listening is not None and hub.configuration.services())
    hub.db.run(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%%'"
        " AND datname = current_database()"
    )
    hub.db.run("INSERT INTO rules (name, event, service_id) SELECT 'sql', 'e', id FROM services")
    eventually(lambda: [r.name for r in hub.configuration.rules()] == ["sql"], "the rule is known")


@pytest.mark.parametrize("own_id", ["order-7", None])
def test_event_data_is_serialized_once_on_its_way_in(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, own_id: str | None
) -> None:
    """For the size check, the insert and the sample; the content's hash needs sorted keys, and an id no hash of it."""
    calls: list[object] = []

    def counting(value: object) -> str:
        calls.append(value)
        return dumps(value)

    monkeypatch.setattr("hub.domain.events.dumps", counting)
    add_service(hub, "http://127.0.0.1:9")
    add_rule(hub)
    data = {"b": 1, "a": "é"}
    hub.intake.handle_event(parse_event({"name": "e", "data": data}, limit=LIMIT, key=own_id))
    hub.intake.handle_event(Event("e", data | {"n": 2}))
    assert calls == [data, data | {"n": 2}]
    rows = hub.db.all("SELECT data FROM events ORDER BY id")
    assert [row["data"] for row in rows] == ['{"b":1,"a":"é"}', '{"b":1,"a":"é","n":2}']


def test_without_a_database_nothing_is_accepted(hub: Hub) -> None:
    """The sender hears it, and sends again."""
    add_service(hub, "http://127.0.0.1:9")
    add_rule(hub)
    hub.db.close()
    with pytest.raises(UnavailableError):
        emit(hub)


def test_many_callers_share_a_transaction_and_a_bad_event_spoils_only_itself(hub: Hub) -> None:
    add_service(hub, "http://127.0.0.1:9")
    add_rule(hub, "all", "*")
    bad = Event("\\core\\event\\user_loggedin", {"n": -1}, "x" * 300)
    good = [Event("\\core\\event\\user_loggedin", {"n": n}) for n in range(2)]
    results = hub.intake.handle_each([good[0], bad, good[1]])
    assert [isinstance(result, PayloadError) for result in results] == [False, True, False]
    assert count(hub, "tasks") == 2
    with pytest.raises(PayloadError, match="id"):
        hub.intake.handle_event(bad)
