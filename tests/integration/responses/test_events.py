"""Responses as events: rules, tasks, depth."""

from __future__ import annotations

import json

from hub.config.definitions import RuleSpec, parse_spec
from hub.inbound.messages import RESPONSE_RECEIVED
from hub.models import Event
from tests.integration.responses.bench import Bench


def test_a_response_is_an_event_that_rules_match_and_knows_its_task(bench: Bench) -> None:
    """Request, answer, next step: the correlation id leads from the answer to the task that asked."""
    bench.service()
    bench.registry.rules.add(parse_spec(RuleSpec, {"name": "ask", "event": "asked", "service": "erp"}))
    bench.registry.rules.add(parse_spec(RuleSpec, {"name": "next", "event": RESPONSE_RECEIVED, "service": "erp"}))
    (task,) = bench.intake().handle_event(Event("asked", {})).tasks
    bench.publish('{"done": true}', correlation_id=str(task), message_id="m1", headers={"k": "v"})
    bench.publish('{"done": false}', correlation_id="777777")
    bench.consumer().consume(bench.registry.configuration.service("erp"))
    first, second = bench.rows()
    assert first["task_id"] == task
    assert second["task_id"] is None, "no task of ours has that number"
    assert second["properties"]["correlation_id"] == "777777"
    events = bench.db.all("SELECT * FROM events WHERE name = %s ORDER BY id", [RESPONSE_RECEIVED])
    assert json.loads(events[0]["data"]) == {
        "service": "erp",
        "queue": bench.queue,
        "correlation_id": str(task),
        "task_id": task,
        "message_id": "m1",
        "headers": {"k": "v"},
        "payload": {"done": True},
    }
    assert [event["depth"] for event in events] == [1, 1]
    tasks = bench.db.all("SELECT id FROM tasks WHERE event_id = ANY(%s)", [[e["id"] for e in events]])
    assert {row["id"] for row in tasks} <= {task_id for _, task_id in bench.enqueued.tasks}


def test_a_response_on_one_services_queue_attaches_to_no_task_of_another(bench: Bench) -> None:
    """Whoever may write to one queue must not file messages under another service's tasks."""
    bench.service()
    bench.service("crm", queue=f"{bench.queue}.crm")
    bench.registry.rules.add(parse_spec(RuleSpec, {"name": "ask", "event": "asked", "service": "crm"}))
    bench.registry.rules.add(parse_spec(RuleSpec, {"name": "next", "event": RESPONSE_RECEIVED, "service": "erp"}))
    (task,) = bench.intake().handle_events([Event("asked", {})], depth=3)[0].tasks
    bench.publish("1", correlation_id=str(task))
    bench.consumer().consume(bench.registry.configuration.service("erp"))
    bench.publish("2", correlation_id=str(task), queue=f"{bench.queue}.crm")
    bench.consumer().consume(bench.registry.configuration.service("crm"))
    foreign, own = bench.rows()
    assert foreign["task_id"] is None and foreign["properties"]["correlation_id"] == str(task)
    assert own["task_id"] == task
    depths = bench.db.all("SELECT depth FROM events WHERE name = %s", [RESPONSE_RECEIVED])
    assert {row["depth"] for row in depths} == {4}, "another service's queue is no way out of a chain's limit"


def test_a_chain_is_cut_at_the_depth_and_counted(bench: Bench) -> None:
    """A rule on answers that asks the same service again would go on for ever."""
    bench.service()
    bench.registry.rules.add(parse_spec(RuleSpec, {"name": "loop", "event": "*", "service": "erp"}))
    (task,) = bench.intake().handle_event(Event("asked", {})).tasks
    for _ in range(3):
        bench.publish("{}", correlation_id=str(task))
        result = bench.consumer(max_depth=2).consume(bench.registry.configuration.service("erp"))
        assert result.stored == 1
        row = bench.db.one("SELECT max(id) AS id FROM tasks")
        assert row is not None
        task = row["id"]
    assert result.cut == 1 and "cut" in result.summary()
    assert bench.hooks.accepted["cut"] == 1
    assert bench.rows()[-1]["properties"]["chain_cut_at"] == 3


def test_the_depth_is_known_after_the_task_was_delivered(bench: Bench) -> None:
    """Answers mostly come when their task is gone from the ledger."""
    bench.service()
    bench.registry.rules.add(parse_spec(RuleSpec, {"name": "loop", "event": "*", "service": "erp"}))
    (task,) = bench.intake().handle_events([Event("asked", {})], depth=4)[0].tasks
    bench.db.run(
        "INSERT INTO deliveries (direction, task_id, event_id, service_id, service, success, outcome)"
        " SELECT 'outbound', id, event_id, service_id, 'erp', true, 'success' FROM tasks"
    )
    bench.db.run("DELETE FROM tasks")
    bench.publish("{}", correlation_id=str(task))
    bench.consumer(max_depth=5).consume(bench.registry.configuration.service("erp"))
    assert bench.rows()[0]["task_id"] == task
    assert bench.db.one("SELECT max(depth) AS d FROM events") == {"d": 5}


def test_responses_that_no_rule_wants_are_counted_and_shown_as_a_suggestion(bench: Bench) -> None:
    """Who writes a rule for them picks the name from what was seen, and previews on a real one."""
    erp = bench.service()
    bench.publish("1", "2", '{"n": 3}')
    bench.consumer().consume(erp)
    assert bench.hooks.accepted == {"unmatched": 3}
    seen = bench.db.one("SELECT sample FROM event_names WHERE name = %s", [RESPONSE_RECEIVED])
    assert seen is not None and json.loads(seen["sample"])["payload"] == {"n": 3}
