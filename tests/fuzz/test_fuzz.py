"""Every parser accepts its input or refuses it with the hub's own error.

Each parser gets noise, and text from the words of its own grammar. Inputs that once raised another exception are kept
as examples. `outcomes` requires that each property has seen accepted and refused inputs.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pika
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from standardwebhooks import Webhook

from hub.codec import dumps, loads
from hub.config.definitions import RuleSpec, ServiceSpec, parse_spec
from hub.config.yaml_file import parse
from hub.domain.events import parse_event
from hub.domain.rules import (
    check_conditions,
    check_endpoint,
    check_template,
    matches,
    render,
)
from hub.errors import (
    ConfigError,
    HubError,
    InvalidPayloadError,
    PayloadError,
)
from hub.inbound.messages import parse as parse_message
from hub.models import (
    Event,
    Rule,
    Service,
    ServiceType,
)
from hub.scheduling.schedule import next_runs, parse_cron
from hub.settings import Settings
from hub.transports.amqp.response_queue import Message
from hub.transports.amqp.uri import parse as parse_amqp
from hub.web import webhooks

fuzz = settings(max_examples=80, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
NOW = datetime(2026, 11, 24, tzinfo=UTC)
texts = st.text(st.characters(codec=None), max_size=60)  # half surrogate pairs and NUL too
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**400), 10**400)
    | texts
    | st.floats()
    | st.sampled_from(["1e999", "0x10", "-0", "٣", "1_000", "\ud800", "\x00"])
)
values = st.recursive(scalars, lambda v: st.lists(v, max_size=4) | st.dictionaries(texts, v, max_size=4), max_leaves=12)


@pytest.fixture
def outcomes() -> Iterator[Counter[str]]:
    """Counts of `accepted` and `refused` inputs; a property that saw only one of them has proved little."""
    seen: Counter[str] = Counter()
    yield seen
    assert seen["accepted"] and seen["refused"], seen


def pieces(*words: str) -> st.SearchStrategy[str]:
    """Texts of the words of a grammar in any order, with noise in between."""
    return st.lists(st.sampled_from(words) | st.text(max_size=3), max_size=12).map("".join)


@fuzz
@given(
    values
    | st.fixed_dictionaries({}, optional={"name": values, "data": values, "id": values, "eventname": values})
    | st.fixed_dictionaries(
        {"name": st.sampled_from(["e", "\\core\\event\\x"])}, optional={"data": values, "id": values}
    )
)
def test_event_bodies(outcomes: Counter[str], value: Any) -> None:
    try:
        event = parse_event(value, limit=10_000)
    except PayloadError:
        outcomes["refused"] += 1
        return
    outcomes["accepted"] += 1
    assert loads(dumps(event.data)) is not None or event.data is None


@fuzz
@given(
    st.binary(max_size=200)
    | pieces("{", "}", '"a"', ":", ",", "[", "]", "1e9", "\\ud800", "NaN", "\ufeff").map(
        lambda text: text.encode("utf-8", "surrogatepass")
    )
)
def test_json_bytes(outcomes: Counter[str], raw: bytes) -> None:
    try:
        value = loads(raw)
    except PayloadError:
        outcomes["refused"] += 1
        return
    outcomes["accepted"] += 1
    assert loads(dumps(value).encode()) == value


@fuzz
@given(
    pieces("{{", "}}", "a", ".", "0", '"', "\\", ":", ",", "{", "}", "[", "]", "event.name", "now", " ", "null"),
    pieces("{{", "}}", "a", "/", "?", "=", "&", "..", "%2e", "%", "#", "event.id", "\\"),
    values,
    st.booleans(),
)
def test_templates(outcomes: Counter[str], payload: str, endpoint: str, data: Any, strict: bool) -> None:
    try:
        check_template(payload)
        check_endpoint(endpoint)
        dumps(data).encode()
    except (PayloadError, UnicodeEncodeError):
        outcomes["refused"] += 1
        return
    rule = Rule(1, "r", "e", 1, "s", endpoint=endpoint, payload=payload, strict=strict)
    try:
        body, rendered = render(rule, event_name="e", event_data=data, event_id="id", task_id=7, now=NOW)
    except InvalidPayloadError:
        outcomes["refused"] += 1
        return
    outcomes["accepted"] += 1
    assert body is not None
    json.loads(body)
    noise = set(rendered) - set(endpoint)  # a rule's own endpoint is checked for control characters when it is saved
    assert all("!" <= c <= "~" for c in noise)


@fuzz
@given(
    values
    | st.dictionaries(
        st.sampled_from(["and", "or", "not", "a", "a.b", "a..b", ""]),
        values | st.dictionaries(st.sampled_from(["eq", "in", "gt", "lte", "prefix", "exists", "what"]), values),
    ),
    values,
)
def test_conditions(outcomes: Counter[str], conditions: Any, data: Any) -> None:
    try:
        check_conditions(conditions)
    except PayloadError:
        outcomes["refused"] += 1
        return
    outcomes["accepted"] += 1
    rule = Rule(1, "r", "e", 1, "s", conditions=conditions)
    assert matches(rule, Event("e", data)) in (True, False)


@fuzz
@given(
    texts
    | pieces(
        "amqp",
        "amqps",
        "://",
        "user",
        ":",
        "pa%73s",
        "@",
        "host",
        "[::1]",
        "5672",
        "/",
        "%2F",
        "?",
        "&",
        "queue_declare=",
        "exchange=",
        "heartbeat=",
        "-1",
        "%zz",
        "%ff",
    )
)
@example("amqp://user:pa%73s@host:5672/v?queue_declare=q")
def test_amqp_uris(outcomes: Counter[str], url: str) -> None:
    try:
        uri = parse_amqp(url)
    except ConfigError as e:
        assert "pass" not in str(e)
        outcomes["refused"] += 1
        return
    outcomes["accepted"] += 1
    assert uri.at and uri.virtual_host


@fuzz
@given(
    texts
    | st.lists(
        pieces("*", "/", "-", ",", "0", "59", "60", "R", "L", "#", "?", "mon", "feb", "30"), min_size=5, max_size=5
    ).map(" ".join)
)
@example("0 0 30 2 *")
@example("0 0 * * 7#5")
@example("*/5 0-6 1,15 * mon")
def test_cron_expressions(outcomes: Counter[str], text: str) -> None:
    try:
        cron = parse_cron(text, seed="s")
    except ConfigError:
        outcomes["refused"] += 1
        return
    outcomes["accepted"] += 1
    runs = next_runs(cron, "Europe/Berlin", NOW)
    assert runs == sorted(set(runs))


@fuzz
@given(
    st.dictionaries(
        st.sampled_from(["webhook-id", "webhook-timestamp", "webhook-signature"]),
        texts | pieces("v1,", "v1a,", " ", "AAAA", "=", "1732450000", "-", "1e400", "٣"),
    ),
    st.binary(max_size=60),
)
def test_no_webhook_header_but_the_right_signature_is_a_proof(headers: dict[str, str], body: bytes) -> None:
    service = Service(1, "s", ServiceType.REST, "http://h", secrets={"inbound_signing_secret": "whsec_c2VjcmV0"})
    genuine = {
        "webhook-id": "m",
        "webhook-timestamp": f"{NOW.timestamp():.0f}",
        "webhook-signature": Webhook("whsec_c2VjcmV0").sign("m", NOW, "{}"),
    }

    def fits(headers: dict[str, str], body: bytes) -> bool:
        call = webhooks._Call(None, headers, "127.0.0.1", "application/json")
        return webhooks._signature_fits(service, call, body, NOW)

    assert fits(genuine, b"{}")
    assert not fits(headers, body) and not fits(genuine | headers, body + b" ")


@fuzz
@given(texts, texts)
def test_tokens_are_compared_whatever_they_hold(given_token: str, wanted: str) -> None:
    service = Service(1, "s", ServiceType.REST, "http://h", secrets={"inbound_token": wanted})
    assert webhooks._token_fits(service, given_token) == (given_token == wanted != "")


@fuzz
@given(
    st.binary(max_size=200) | values.map(lambda v: json.dumps(v).encode("utf-8", "surrogatepass")),
    st.none() | st.text(max_size=20),
    st.dictionaries(st.text(max_size=5), st.integers() | st.binary(max_size=5)),
)
def test_response_queue_bytes(
    outcomes: Counter[str], body: bytes, correlation: str | None, headers: dict[str, Any]
) -> None:
    service = Service(1, "s", ServiceType.AMQP, "amqp://h", response_queue="q", options={"mask": ["a.b"]})
    properties = pika.BasicProperties(correlation_id=correlation, headers=headers, message_id=correlation)
    message = Message(1, body, len(body), None, False, "", "q", properties)
    parsed = parse_message(message, service, Settings(message_limit=2000, body_limit=100))
    outcomes["accepted" if parsed.row.success else "refused"] += 1
    assert parsed.row.success or (parsed.row.raw == body and parsed.row.error)
    assert "\0" not in (parsed.row.body or "") or parsed.row.success
    dumps(parsed.row.properties).encode()


_YAML = pieces(
    "services",
    "rules",
    "schedules",
    ":",
    " ",
    "\n",
    "- ",
    "name",
    "{",
    "}",
    "[",
    "]",
    "&a ",
    "*a",
    "<<",
    "!!int ",
    "!!float ",
    "!!binary ",
    "!!set ",
    "!!python/object:os.system ",
    "|",
    "'",
    '"',
    "${X}",
    "~",
    "0o7",
    "1:60",
    ".inf",
)


@fuzz
@given(_YAML)
@example("services: !!int a")
@example("rules: !!float a")
@example("rules: !!bool a")
@example("rules: !!binary a")
@example("services: &a [*a]")
@example("services: &a {b: *a}")
@example("{[1]: 2}")
@example("!!int")
@example("services: !!set {a}")
@example("services: !!omap [a: 1]")
@example("services: !!timestamp 9999-99-99")
@example("\x00")
@example("services: \ud800")
@example("services: []")
def test_apply_files(outcomes: Counter[str], text: str) -> None:
    try:
        document = parse(text, lambda name: "v")
    except ConfigError:
        outcomes["refused"] += 1
        return
    outcomes["accepted"] += 1
    assert set(document) <= {"services", "rules", "schedules"}
    json.dumps(document)


@fuzz
@given(
    st.dictionaries(st.sampled_from(sorted(ServiceSpec.model_fields)), values),
    st.dictionaries(st.sampled_from(sorted(RuleSpec.model_fields)), values),
)
def test_definitions(outcomes: Counter[str], service: dict[str, Any], rule: dict[str, Any]) -> None:
    for kind, good, given_fields in (
        (ServiceSpec, {"name": "s", "type": "rest", "base_url": "http://h"}, service),
        (RuleSpec, {"name": "r", "event": "e", "service": "s"}, rule),
    ):
        try:
            spec = parse_spec(kind, good | given_fields)
        except HubError:
            outcomes["refused"] += 1
            continue
        outcomes["accepted"] += 1
        assert parse_spec(kind, spec.model_dump()) == spec


@pytest.mark.parametrize("depth", [2000, 200_000])
def test_deep_nesting_is_refused_not_a_crash(depth: int) -> None:
    raw = b"[" * depth + b"]" * depth
    with pytest.raises(PayloadError):
        parse_event({"name": "e", "data": loads(raw)}, limit=1_000_000)


def test_nesting_of_200_levels_is_accepted() -> None:
    data = loads(b"[" * 200 + b"]" * 200)
    assert parse_event({"name": "e", "data": data}, limit=1_000_000).data == data
