"""`hub schedule`, `hub breaker`, `hub user` and `hub token`."""

from __future__ import annotations

import pika

from tests.integration.command_line.commands import EVENT, Hub, read
from tests.support.http_target import HttpTarget


def test_schedules_are_changed_and_reset(hub: Hub) -> None:
    rows = {row["name"]: row for row in read(hub, "schedule", "list")}
    assert {"name", "cron", "enabled", "last_run_at", "last_result", "next_run_at"} <= set(
        rows["consume_responses_task"]
    )
    assert read(hub, "schedule", "set", "consume_responses_task", "*/5 * * * *")["cron"] == "*/5 * * * *"
    assert read(hub, "schedule", "disable", "consume_responses_task")["enabled"] is False
    assert read(hub, "schedule", "enable", "consume_responses_task")["enabled"] is True
    assert len(read(hub, "schedule", "show", "consume_responses_task")["next_runs"]) == 5
    assert read(hub, "schedule", "run", "housekeeping_task")["run_requested"] is True
    assert read(hub, "schedule", "reset", "consume_responses_task")["cron"] == "* * * * *"
    assert read(hub, "tasks", "run", "--task", "housekeeping_task")["ran"] == 1
    assert read(hub, "log", "runs")[0]["result"] == "ok"


def test_breakers_are_listed_and_reset(hub: Hub, crm: str, target: HttpTarget) -> None:
    target.on("/users", 500)
    hub("service", "edit", "crm", "--set", "cb_failure_threshold=1")
    hub("emit", "--name", EVENT, "--data", "{}")
    hub("tasks", "run", code=1)
    (circuit,) = read(hub, "breaker", "list")
    assert circuit["state"] == "open" and circuit["service"] == "crm" and circuit["retry_at"] and circuit["failures"]
    assert read(hub, "breaker", "reset", "crm") == {"reset": ["crm"]}
    assert read(hub, "breaker", "list")[0]["state"] == "closed"
    stats = read(hub, "stats")
    assert stats["dead"] == 0 and stats["delayed"] == 1 and stats["breakers"]


def test_accounts(hub: Hub) -> None:
    hub("user", "add", "eve", "--role", "manage", stdin="correct horse battery\n")
    hub("user", "add", "bob", stdin="correct horse battery\n")
    assert {row["name"]: row["role"] for row in read(hub, "user", "list")} == {"eve": "manage", "bob": "view"}
    assert "last user" in str(hub("user", "delete", "eve", "--yes", code=1).exception)
    token = read(hub, "token", "add", "moodle", "--expires", 30)
    assert token["token"] and token["token"] not in hub("token", "list", "--json").stdout
    hub("token", "revoke", "moodle")
    assert read(hub, "token", "list")[0]["revoked_at"]
    assert "/login/link/" in hub("user", "link").stdout


def test_response_queues_are_read_by_a_command(hub: Hub, broker_url: str, queue_prefix: str) -> None:
    """`--execute` of the scheduled task, on a real RabbitMQ: all that waits, JSON or not, is in the log."""
    queue = f"{queue_prefix}.answers"
    connection = pika.BlockingConnection(pika.URLParameters(broker_url))
    channel = connection.channel()
    channel.queue_declare(queue, durable=True)
    for body in (b'{"ok": 1}', b"42", b"no json"):
        channel.basic_publish("", queue, body)
    hub(
        "service",
        "add",
        "mq",
        "--type",
        "amqp",
        "--base-url",
        f"{broker_url}?queue_declare={queue_prefix}.out",
        "--response-queue",
        queue,
    )
    result = read(hub, "tasks", "run", "--task", "consume_responses_task", "--parallel", 2)
    assert (result["ran"], result["ok"], result["messages"]) == (1, 1, 3)
    rows = read(hub, "log", "list", "--direction", "inbound", "--service", "mq")
    assert [row["success"] for row in rows] == [False, True, True] and "JSON" in rows[0]["error"]
    (seen,) = read(hub, "log", "runs", "--task", "consume_responses_task")
    assert (seen["service"], seen["result"]) == ("mq", "ok")
    assert "mq" in hub("stats").stdout
    channel.queue_delete(queue)
    connection.close()
