"""One file says what there should be: applied, applied again, exported, and refused when it is wrong."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hub.app.lifecycle import Hub, build
from hub.config.yaml_file import parse
from hub.errors import ConfigError, ConflictError
from hub.operations import apply
from hub.operations.export import export
from hub.settings import Settings

CONTRACT = """
services:
  - name: crm
    type: rest
    base_url: https://crm.example.org/api/v1
    auth: {type: bearer, token: ${CRM_TOKEN}}
    max_retries: 3
rules:
  - name: new-users-to-crm
    event: \\core\\event\\user_created
    service: crm
    endpoint: /contacts
    method: POST
    payload: {"id": "{{objectid}}", "by": "{{userid}}"}
schedules:
  consume_responses_task: "* * * * *"
"""
EVERYTHING = """
services:
  - name: crm
    base_url: https://crm.example.org
    auth: {type: apikey, token: "${KEY}", header: X-Own}
    headers: {X-Tenant: "7"}
    secret_headers: {X-Secret: "${HEADER}"}
    signing_secret: ${SIGN}
    inbound: {token: "${IN}"}
    rate_limit: 5
    max_attempts: 3
    retry_delays: [1, 2]
    mask: [user.email]
    cb_failure_threshold: 0
    timeout: 2.5
  - name: 9 queue
    type: amqp
    base_url: amqp://me:${PASSWORD}@mq.example.org/%2F?exchange=x&queue_declare=q&dlq=q.dead
    response_queue: answers
  - name: old
    type: rest
    base_url: https://old.example.org
    enabled: false
    auth: {type: basic, username: me, password: "${BASIC}"}
  - name: oauth
    base_url: https://o.example.org
    auth: {type: oauth2, token_url: https://o.example.org/token, client_id: hub, client_secret: "${OAUTH}", scope: a b}
rules:
  - name: unquoted
    event: "*"
    service: crm
    payload: '{"id": {{userid}}}'
    conditions: {courseid: 10, "not": {"other.username": {prefix: test}}}
    strict: true
  - {name: raw, event: x, service: 9 queue, enabled: false, endpoint: "a.{{other.key}}"}
schedules:
  consume_responses_task: {cron: "*/5 * * * *", enabled: false}
"""
BOMB = "services:\n- &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"- &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9)
)
VALUES = {
    "CRM_TOKEN": 'a"b: {c}',
    "KEY": "k-canary",
    "HEADER": "h-canary",
    "SIGN": "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz",
    "IN": "i-canary",
    "PASSWORD": "p%40canary",
    "BASIC": "b-canary",
    "OAUTH": "o-canary",
}


@pytest.fixture
def hub(settings: Settings) -> Iterator[Hub]:
    with build(settings.model_copy(update={"broker_url": None})) as hub:
        yield hub


def put(hub: Hub, text: str, values: dict[str, str] = VALUES) -> list[str]:
    plan = apply.plan(parse(text, values.get), hub.registry, hub.schedule)
    apply.execute(plan, hub.registry, hub.schedule)
    return [change.action for change in plan.changes]


def test_the_contract_s_file_is_taken_as_it_stands(hub: Hub) -> None:
    """`${CRM_TOKEN}` in a flow mapping is no YAML before it is put in, and its value may hold anything."""
    assert put(hub, CONTRACT) == ["add", "add", "same"]
    assert hub.configuration.service("crm").secrets == {"token": 'a"b: {c}'}
    assert hub.configuration.rule("new-users-to-crm").event == "\\core\\event\\user_created"
    assert put(hub, CONTRACT) == ["same"] * 3


def test_applying_twice_changes_nothing_and_export_applies_to_nothing(hub: Hub) -> None:
    assert set(put(hub, EVERYTHING)) == {"add", "change"}
    versions = {s.name: s.version for s in hub.configuration.services()} | {
        r.name: r.version for r in hub.configuration.rules()
    }
    assert set(put(hub, EVERYTHING)) == {"same"}
    text, names = export(hub.registry, hub.schedule)
    assert "canary" not in text
    secrets = {
        "CRM_TOKEN": "k-canary",
        "CRM_X_SECRET": "h-canary",
        "CRM_SIGNING_SECRET": VALUES["SIGN"],
        "CRM_HEADER_X_SECRET": "h-canary",
        "CRM_INBOUND_TOKEN": "i-canary",
        "_9_QUEUE_PASSWORD": "p%40canary",
        "OLD_PASSWORD": "b-canary",
        "OAUTH_CLIENT_SECRET": "o-canary",
    }
    assert set(names) <= set(secrets)
    assert set(put(hub, text, secrets)) == {"same"}
    assert versions == {s.name: s.version for s in hub.configuration.services()} | {
        r.name: r.version for r in hub.configuration.rules()
    }


def test_what_left_the_file_is_unset_and_what_the_file_does_not_name_stays(hub: Hub) -> None:
    put(hub, EVERYTHING)
    assert put(hub, "services: [{name: crm, base_url: 'https://crm.example.org'}]") == ["change"]
    crm = hub.configuration.service("crm")
    assert (crm.secrets, crm.options, crm.timeout) == ({}, {}, 5.0)
    assert hub.configuration.service("old").enabled is False


def pruned(hub: Hub, text: str) -> list[tuple[str, str]]:
    """Apply with `prune`; what that deleted."""
    plan = apply.plan(parse(text, VALUES.get), hub.registry, hub.schedule, prune=True)
    apply.execute(plan, hub.registry, hub.schedule)
    return [(change.kind, change.name) for change in plan.changes if change.action == "delete"]


def names(hub: Hub) -> tuple[list[str], list[str]]:
    return [s.name for s in hub.configuration.services()], [r.name for r in hub.configuration.rules()]


TWO = """
services: [{name: a, base_url: 'http://a'}, {name: b, base_url: 'http://b'}]
rules: [{name: ra, event: e, service: a}, {name: rb, event: e, service: b}]
"""


def test_pruning_leaves_what_the_file_names_and_nothing_else(hub: Hub) -> None:
    put(hub, TWO)
    text, _ = export(hub.registry, hub.schedule)
    assert pruned(hub, text) == [] and pruned(hub, TWO) == []
    assert pruned(hub, "services: [{name: a, base_url: 'http://a'}]\nrules: []") == [
        ("rule", "ra"),
        ("rule", "rb"),
        ("service", "b"),
    ]
    assert names(hub) == (["a"], [])
    assert pruned(hub, "services: []") == [("service", "a")] and names(hub) == ([], [])
    assert len(hub.schedule.list()) == 2


def test_pruning_keeps_the_parts_that_the_file_does_not_have(hub: Hub) -> None:
    """A file with rules only says nothing of services; a forgotten list must not empty the hub."""
    put(hub, TWO)
    for text in ("", "services:\nrules:", "schedules: {consume_responses_task: '* * * * *'}"):
        assert pruned(hub, text) == []
    assert pruned(hub, "rules: [{name: ra, event: e, service: a}]") == [("rule", "rb")]
    assert names(hub) == (["a", "b"], ["ra"])


def test_a_service_that_is_pruned_takes_its_rules_but_not_those_that_moved(hub: Hub) -> None:
    put(hub, TWO)
    put(hub, "rules: [{name: more, event: e, service: b}]")
    moved = "services: [{name: a, base_url: 'http://a'}]\n"
    with pytest.raises(ConfigError, match=r"rules\[0\].service: .*'b'.*is to be deleted"):
        pruned(hub, moved + "rules: [{name: rb, event: e, service: b}]")
    assert names(hub) == (["a", "b"], ["more", "ra", "rb"])
    assert pruned(hub, moved) == [("rule", "more"), ("rule", "rb"), ("service", "b")]
    put(hub, TWO)
    gone = pruned(hub, moved + "rules: [{name: ra, event: e, service: a}, {name: rb, event: e, service: a}]")
    assert gone == [("service", "b")] and names(hub) == (["a"], ["ra", "rb"])
    assert hub.configuration.rule("rb").service == "a"


def test_what_only_looks_like_a_variable_survives_export(hub: Hub) -> None:
    """A shell-like template of somebody's own must not ask for a variable when it comes back."""
    text = CONTRACT.replace('"by": "{{userid}}"', '"by": "$${HOME} $$${X}"').replace("/contacts", "/$${a}/${PART}")
    put(hub, text, VALUES | {"PART": "p"})
    rule = hub.configuration.rule("new-users-to-crm")
    assert (rule.endpoint, "${HOME} $${X}" in str(rule.payload)) == ("/${a}/p", True)
    hub.registry.services.update("crm", {"headers": {"X-Path": "${PATH}"}})
    exported, names = export(hub.registry, hub.schedule)
    assert names == ["CRM_TOKEN"]
    assert set(put(hub, exported)) == {"same"}


MARKED = "\ue000CRM_TOKEN\ue001 HUBVAR0XCRM_TOKENX ${CRM_TOKEN}"


def test_no_stored_text_becomes_a_variable_on_its_way_through_export_and_apply(hub: Hub) -> None:
    """Whoever may write a rule must not read the environment of the one who copies the configuration."""
    put(hub, CONTRACT)
    rule = {"payload": {MARKED: MARKED}, "conditions": {"a": MARKED}, "endpoint": "/" + MARKED.replace(" ", "/")}
    hub.registry.rules.update("new-users-to-crm", rule)
    hub.registry.services.update("crm", {"headers": {"X-Own": MARKED}, "base_url": f"https://h.example.org/{MARKED}"})
    stored = hub.configuration.rule("new-users-to-crm"), hub.configuration.service("crm")
    exported, names = export(hub.registry, hub.schedule)
    assert names == ["CRM_TOKEN"]
    assert set(put(hub, exported)) == {"same"}
    assert (hub.configuration.rule("new-users-to-crm"), hub.configuration.service("crm")) == stored


def test_a_password_beside_text_that_looks_like_a_variable_is_exported_as_a_variable(hub: Hub) -> None:
    put(
        hub,
        "services: [{name: q, type: amqp, base_url: 'amqp://m$e:${P}@mq.example.org/%2F?exchange=$${P}'}]",
        {"P": "s"},
    )
    exported, names = export(hub.registry, hub.schedule)
    assert names == ["Q_PASSWORD"] and "m$e:${Q_PASSWORD}@mq" in exported and "exchange=$${P}" in exported
    assert put(hub, exported, {"Q_PASSWORD": "s"})[0] == "same"


def rows_read(hub: Hub, rules: int) -> int:
    """How many rows PostgreSQL reads while a file that adds so many rules, and one that changes them, are applied."""
    each = "".join(f"- {{name: r{rules}-{i}, event: e{i}, service: crm}}\n" for i in range(rules))
    counted = "SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::int AS n FROM pg_stat_xact_user_tables"
    found = 0
    for method in ("POST", "PUT"):
        text = "services: [{name: crm, base_url: 'http://x'}]\nrules:\n" + each.replace("}", f", method: {method}}}")
        with hub.registry.together():
            put(hub, text)
            row = hub.db.one(counted)
        assert row is not None
        found += row["n"]
    return found


def test_the_work_of_applying_a_file_grows_with_its_length_not_with_its_square(hub: Hub) -> None:
    put(hub, CONTRACT)
    few = rows_read(hub, 50)
    assert rows_read(hub, 400) < 12 * few


def test_a_file_is_written_as_a_whole_or_not_at_all(hub: Hub) -> None:
    """Somebody takes a name between the look and the writing: nothing of the file is there afterwards."""
    plan = apply.plan(parse(EVERYTHING, VALUES.get), hub.registry, hub.schedule)
    hub.registry.services.add(plan.services[-1])
    before = hub.configuration.snapshot()
    with pytest.raises(ConflictError):
        apply.execute(plan, hub.registry, hub.schedule)
    assert hub.configuration.snapshot() == before
    assert hub.schedule.show("consume_responses_task").cron == "* * * * *"


def test_a_changed_secret_is_shown_as_changed_and_not_shown(hub: Hub) -> None:
    put(hub, CONTRACT)
    plan = apply.plan(parse(CONTRACT, {"CRM_TOKEN": "other-canary"}.get), hub.registry, hub.schedule)
    assert plan.changes[0].action == "change" and list(plan.changes[0].fields) == ["token"]
    assert "canary" not in repr(plan.changes)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("services: [", "not YAML at line 2"),
        ("- a", "expected an object"),
        ("servces: []", "servces: unknown part"),
        ("services: {}", "services: expected a list"),
        ("services: [{name: a, base_url: 'http://x', timeot: 1}]", "services[0].timeot: unknown field"),
        ("services: [{name: a, base_url: 'http://x', base_url: 'http://y'}]", "comes twice"),
        ("services: [{name: a, base_url: 'http://x'}, {name: a, base_url: 'http://x'}]", "services[1].name"),
        ("services: [{name: a, base_url: '${NOT_SET}'}]", "does not set NOT_SET"),
        ("services: [{name: a, type: amqp, base_url: 'amqp://x/a/b'}]", "services[0]: base_url"),
        ("rules: [{name: a, event: x, service: nope}]", "rules[0].service: there is no service 'nope'"),
        ("rules: [{name: a, event: x, service: crm, payload: '{\"a\": {{}'}]", "payload"),
        ("rules: [{name: a, event: x, service: crm, conditions: {a: {nope: 1}}}]", "conditions"),
        ("rules: [{name: a, event: x, service: crm, endpont: /}]", "rules[0].endpont: unknown field"),
        ('rules: [{name: a, event: x, service: crm, conditions: {a: "\\0"}}]', "rules[0]"),
        ('rules: [{name: a, event: x, service: crm, payload: {a: "\\ud800"}}]', "not YAML at line 1"),
        ('rules: [{name: a, event: "\\ud800", service: crm}]', "not YAML at line 1"),
        ('services: [{name: a, base_url: "http://x/\\ud800"}]', "not YAML at line 1"),
        ('services: [{name: a, base_url: "http://x", mask: ["\\ud800"]}]', "not YAML at line 1"),
        ("schedules: {nope: '* * * * *'}", "schedules.nope"),
        ("schedules: {consume_responses_task: '61 * * * *'}", "minute"),
        ("schedules: {consume_responses_task: {enabled: 1}}", "true or false"),
        ("services: &a [*a]", "recursive"),
        (BOMB, "more than"),
        (f"services: [{'1,' * 1_000_001}]", "more than 1000000 values"),
        ("services: " + "[" * 100_000, "nested more than 200 deep"),
        ("services: [{name: a, base_url: 'http://x', timeout: 1" + "0" * 5000 + "}]", "an integer has more than 4300"),
        (
            "rules: [{name: a, event: x, service: crm, payload: {a: 0x" + "f" * 4200 + "}}]",
            "an integer has more than 4300",
        ),
    ],
)
def test_a_wrong_file_is_refused_as_a_whole(hub: Hub, text: str, says: str) -> None:
    """A good service before the bad part is not written either."""
    put(hub, CONTRACT)
    before = hub.configuration.snapshot()
    with pytest.raises(ConfigError) as refused:
        put(hub, text)
    assert says in str(refused.value)
    assert hub.configuration.snapshot() == before
