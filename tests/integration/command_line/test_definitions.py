"""`hub service`, `hub rule` and `hub apply`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.command_line.commands import EVENT, Hub, read


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["emit"], 2, "--name"),
        (["emit", "--name", "x", "--data", "{bad"], 2, "--data: not JSON"),
        (["emit", "--name", "", "--data", "{}"], 1, "name"),
        (["emit", "no-such-file.ndjson"], 2, "No such file"),
        (["service", "show", "nope"], 1, "no service named 'nope'"),
        (["service", "add", "x", "--base-url", "ftp://x"], 1, "base_url"),
        (["service", "add", "x"], 1, "base_url: required; give --base-url"),
        (["service", "add", "x", "--base-url", "http://x", "--set", "nope=1"], 1, "nope: unknown field"),
        (["service", "add", "x", "--type", "amqp", "--base-url", "amqp://h/?dlq=a"], 1, "dlq"),
        (["service", "add", "x", "--base-url", "http://x", "--set", "signing_secret=%%"], 1, "signing_secret"),
        (["service", "add", "x", "--base-url", "http://x", "--token", "env:HUB_TEST_NOPE"], 2, "HUB_TEST_NOPE"),
        (["tasks", "run", "--task", "nope"], 2, "--task"),
        (["tasks", "run", "--id", "99"], 1, "no task 99"),
        (["tasks", "retry"], 2, "--failed"),
        (["dlq", "replay"], 2, "--all"),
        (["dlq", "replay", "--id", "99"], 1, "no dead letter 99"),
        (["dlq", "list", "--since", "yesterday"], 2, "30m"),
        (["schedule", "set", "consume_responses_task", "61 * * * *"], 1, "minute"),
        (["schedule", "set", "nope", "* * * * *"], 1, "no scheduled task"),
        (["log", "list", "--direction", "up"], 2, "inbound"),
        (["token", "add", "t", "--scope", "all"], 2, "--scope"),
        (["breaker", "reset"], 2, "--all"),
    ],
)
def test_bad_input_is_refused_with_its_reason(hub: Hub, args: list[str], code: int, says: str) -> None:
    """Usage errors exit 2, everything else that fails exits 1, and both say what to do."""
    result = hub(*args, code=code)
    assert says in (str(result.exception) if code == 1 else result.stderr)
    assert not result.stdout


def test_a_get_rule_on_a_queue_is_refused(hub: Hub) -> None:
    hub("service", "add", "q", "--type", "amqp", "--base-url", "amqp://guest:guest@localhost/?queue_declare=q")
    result = hub("rule", "add", "r", "--event", "x", "--service", "q", "--method", "GET", code=1)
    assert "method" in str(result.exception)


def test_secrets_are_shown_nowhere(hub: Hub, crm: str) -> None:
    """Canaries: a token and a password that no listing may print."""
    hub("service", "add", "q", "--type", "amqp", "--base-url", "amqp://me:canary-7f3b@localhost/?queue_declare=q")
    hub("service", "edit", "crm", "--set", "secret_headers.X-Key=canary-7f3c", "--set", "inbound.token=canary-7f3d")
    for args in (["service", "list"], ["service", "show", "crm"], ["service", "show", "q"]):
        assert "canary" not in hub(*args).stdout and "canary" not in hub(*args, "--json").stdout
    assert "canary" not in hub("export").output


def test_preview_shows_the_request_for_an_event_that_was_really_seen(hub: Hub, crm: str) -> None:
    hub("rule", "preview", "users", code=1)
    hub("emit", "--name", EVENT, "--data", '{"objectid": 11}')
    row = read(hub, "rule", "preview", "users")
    assert (row["body"], row["endpoint"], row["method"]) == ({"id": 11}, "/users", "POST")
    assert read(hub, "rule", "preview", "users", "--data", '{"objectid": null}')["body"] == {"id": None}


def test_pruning_is_shown_and_asked_before_it_is_done(hub: Hub, crm: str, tmp_path: Path) -> None:
    """One wrong file must not delete a configuration unasked."""
    file = tmp_path / "hub.yaml"
    file.write_text("services: [{name: new, base_url: 'http://127.0.0.1:9'}]")
    dry = read(hub, "apply", file, "--prune", "--dry-run")
    assert [(row["kind"], row["name"], row["action"]) for row in dry] == [
        ("service", "new", "add"),
        ("rule", "users", "delete"),
        ("service", "crm", "delete"),
    ]
    said = hub("apply", file, "--prune", "--dry-run").stdout
    assert "- service crm" in said and "- rule users" in said and "3 would change" in said
    said = hub("apply", file, "--prune", code=2).stderr  # nobody there to ask
    assert "crm" in said and "--yes" in said
    assert [row["name"] for row in read(hub, "service", "list")] == ["crm"]
    hub("emit", "--name", EVENT, "--data", '{"objectid": 1}')
    assert "- service crm" in hub("apply", file, "--prune", "--yes").stdout
    assert [row["name"] for row in read(hub, "service", "list")] == ["new"] and read(hub, "rule", "list") == []
    assert len(read(hub, "tasks", "list", "--orphan")) == 1
    assert "nothing to do" in hub("apply", file, "--prune").stdout


def test_fields_are_texts_where_texts_belong_and_one_header_leaves_the_others(hub: Hub, crm: str) -> None:
    hub("service", "edit", "crm", "--set", "headers.X-Tenant=7", "--set", "secret_headers.X-One=canary1")
    hub("service", "edit", "crm", "--set", "headers.X-Flag=true", "--set", "secret_headers.X-Two=2")
    row = read(hub, "service", "show", "crm")
    assert row["headers"] == {"X-Tenant": "7", "X-Flag": "true"}
    assert row["secret_headers"] == {"X-One": "***", "X-Two": "***"}
    hub("service", "edit", "crm", "--set", "headers={}", "--set", "rate_limit=2.5", "--set", "auth.token=123456")
    row = read(hub, "service", "show", "crm")
    assert "headers" not in row and row["rate_limit"] == 2.5 and row["auth"]["type"] == "bearer"
    assert "nothing to change" in hub("service", "edit", "crm", code=2).stderr
    assert "nothing to change" in hub("rule", "edit", "users", code=2).stderr


def test_preview_takes_one_stored_event_by_its_id(hub: Hub, crm: str) -> None:
    first, second = (hub("emit", "--name", EVENT, "--data", f'{{"objectid": {i}}}').stdout.strip() for i in (1, 2))
    assert read(hub, "rule", "preview", "users", "--event-id", first)["body"] == {"id": 1}
    assert read(hub, "rule", "preview", "users", "--event-id", second)["body"] == {"id": 2}
    assert "nope" in str(hub("rule", "preview", "users", "--event-id", "nope", code=1).exception)
