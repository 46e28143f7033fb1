"""Templates: what they mean, where they are refused, and that no value breaks out of its place."""

from __future__ import annotations

import gc
import json
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hub.domain import rules
from hub.domain.rules import check_endpoint, check_template
from hub.errors import InvalidPayloadError, PayloadError
from hub.models import JSON, ServiceType
from tests.unit.samples import LOGIN, NOW, render, rule, scalars, texts, values


def body(template: JSON, data: JSON = LOGIN, **fields: JSON) -> JSON:
    text = template if isinstance(template, str) else json.dumps(template)
    check_template(text)
    rendered, _ = render(data, payload=text, **fields)
    assert rendered is not None
    return json.loads(rendered)


def endpoint(template: str, data: JSON = LOGIN, **fields: JSON) -> str:
    check_endpoint(template)
    return render(data, endpoint=template, **fields)[1]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ({"id": "{{objectid}}", "by": "{{userid}}"}, {"id": 5, "by": "5"}),
        ({"id": "{{ objectid }}"}, {"id": 5}),
        ({"id": "no {{objectid}}!"}, {"id": "no 5!"}),
        ({"id": " {{objectid}}"}, {"id": " 5"}),
        ({"a": "{{relateduserid}}", "b": "<{{relateduserid}}>"}, {"a": None, "b": "<>"}),
        ({"a": "{{other.sso}}", "b": "is {{other.sso}}"}, {"a": False, "b": "is false"}),
        ({"a": "{{other.username}}"}, {"a": "student1"}),
        ({"a": "{{other.roles}}", "b": "={{other.roles.1}}"}, {"a": [{"id": 3}, {"id": 4}], "b": '={"id":4}'}),
        ({"a": ["{{other.roles.0.id}}", {"b": ["{{crud}}"]}]}, {"a": [3, {"b": ["r"]}]}),
        ({"a": "{{other.roles.2.id}}", "b": "{{other.roles.-1}}", "c": "{{nothing.at.all}}"}, dict.fromkeys("abc")),
        ({"{{other.username}}": 1, "x_{{objectid}}": "{{objectid}}"}, {"student1": 1, "x_5": 5}),
        ({"a": "{{crud}}{{target}}"}, {"a": "ruser"}),
        ({"a": "{{eventname}}"}, {"a": "\\core\\event\\user_loggedin"}),
        (
            {"n": "{{event.name}}", "i": "{{event.id}}", "t": "{{task.id}}", "w": "{{now}}"},
            {"n": "\\core\\event\\user_loggedin", "i": "e-1", "t": 7, "w": "2026-11-24T09:30:15.250Z"},
        ),
        ({"event": "{{event.data}}"}, {"event": LOGIN}),
        ({"fixed": [1, None, "x"]}, {"fixed": [1, None, "x"]}),
        ({"brace": "{x} }} {"}, {"brace": "{x} }} {"}),
        ({"a": "{{{objectid}}}"}, {"a": "{5}"}),
        ("{{userid}}", "5"),
        ('"{{userid}}"', "5"),
        ("[{{objectid}},{{relateduserid}}]", [5, None]),
        ('{"id": {{objectid}}}', {"id": 5}),
        ('{"a": {"b": {{objectid}}}}', {"a": {"b": 5}}),
        ('{"a": {{ other }}, "b": "{{crud}} \\" {{crud}}"}', {"a": LOGIN["other"], "b": 'r " r'}),
        ('{"q\\"{{crud}}": {{\n crud \n}}}', {'q"r': "r"}),
        ("{{{crud}}: 1}", {"r": 1}),
    ],
)
def test_placeholders_take_their_values(template: JSON, expected: JSON) -> None:
    """Nested and null fields too, which MIH never substitutes; types stay, which plain text replacement loses."""
    assert body(template) == expected


@pytest.mark.parametrize("template", [None, "", "  \n"])
def test_no_template_sends_the_events_data(template: str | None) -> None:
    check_template(template)
    assert render(payload=template)[0] == json.dumps(LOGIN, separators=(",", ":"))


def test_other_as_a_json_string_is_looked_into() -> None:
    assert body({"u": "{{other.username}}", "raw": "{{other}}"}, {"other": '{"username":"x"}'}) == {
        "u": "x",
        "raw": '{"username":"x"}',
    }
    assert body({"u": "{{other.username}}"}, {"other": "{broken"}) == {"u": None}


def test_a_value_that_looks_like_a_template_is_only_text() -> None:
    """Values are never filled in twice: senders must not read other fields by sending `{{...}}`."""
    assert body({"a": "{{x}}", "b": "_{{x}}"}, {"x": "{{secret}}", "secret": 1}) == {
        "a": "{{secret}}",
        "b": "_{{secret}}",
    }


def test_now_is_utc_whatever_zone_it_is_given_in() -> None:
    text, _ = rules.render(
        rule(payload="{{now}}"),
        event_name="e",
        event_data={},
        event_id="i",
        task_id=1,
        now=datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=2))),
    )
    assert text == '"2025-12-31T23:00:00.000Z"'


def test_a_strict_rule_names_the_missing_placeholder() -> None:
    with pytest.raises(InvalidPayloadError, match=r"\{\{other.email\}\} is not in the event"):
        body({"mail": "{{other.email}}"}, strict=True)
    with pytest.raises(InvalidPayloadError, match=r"\{\{email\}\}"):
        endpoint("/users?mail={{email}}", strict=True)
    assert body({"null is a value": "{{relateduserid}}"}, strict=True) == {"null is a value": None}


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{", "line 1 column 2"),
        ('{"a": }', "line 1 column 7"),
        ('{\n  "a": {{userid}},\n  "b" 5\n}', "line 3 column 7"),
        ('{"a": {{other.username}}, {{x}}: 1,}', "line 1 column 36"),
        ('{"a": "{{userid"}', "{{ without its }} at line 1 column 8"),
        ('{"a":\n"{{ a {{b}}"}', "{{ without its }} at line 2 column 2"),
        ('{"a": "{{}}"}', "placeholder '' is not a dotted path such as other.username at line 1 column 8"),
        ('{"a": {{a..b}}}', "placeholder 'a..b' is not a dotted path such as other.username at line 1 column 7"),
        ('{"a": "{{a\0}}"}', "placeholder"),
        ('{"a": {{userid}}{{userid}}}', "line 1 column 17"),
        ('{"a": {{userid}', "line 1 column 8"),
        ('{"a": NaN}', "NaN is not JSON"),
        ('{"a": "\\ud800"}', "half a surrogate pair"),
        ("<a>{{userid}}</a>", "line 1 column 1"),
        ('{"a": "\\u007b{x"}', "{{ without its }}"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_a_wrong_template_is_refused_with_its_place(template: str, message: str) -> None:
    """When saved as a `PayloadError`, at run time as a failed attempt that counts (MIH's never does)."""
    with pytest.raises(PayloadError) as saved:
        check_template(template)
    assert message in str(saved.value)
    with pytest.raises(InvalidPayloadError, match="payload template: ") as failed:
        render(payload=template)
    assert failed.value.outcome == "invalid_payload"
    assert not failed.value.retriable
    assert not failed.value.counts_against_breaker


@pytest.mark.parametrize("data", [{"x": float("inf")}, {"x": "\ud800"}, {"x": {1, 2}}, {"x": 10**5000}])
@pytest.mark.parametrize("template", [None, {"a": "{{x}}"}, {"a": "is {{x}}"}])
def test_what_json_cannot_say_is_an_invalid_payload(data: JSON, template: JSON) -> None:
    """Events from Python code may hold such things; the attempt fails, the worker does not."""
    with pytest.raises(InvalidPayloadError):
        render(data, payload=template and json.dumps(template))
    with pytest.raises(InvalidPayloadError):
        render(data, method="GET", endpoint="/{{x}}")


def test_a_very_deep_value_is_an_invalid_payload() -> None:
    deep: JSON = 1
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(InvalidPayloadError):
        render({"x": deep}, payload='{"x": {{x}}}')


@given(values, values)
@example('a"b\\c\0', {"\u2028": "</script>"})
def test_no_value_can_break_the_json(first: JSON, second: JSON) -> None:
    """The promise of the whole design: every value arrives as itself, whatever it is."""
    data = {"a": first, "b": {"c": [second]}}
    filled = body('{"one": {{a}}, "two": ["{{b.c.0}}"], "in": "<{{a}}>", "k{{a}}": {{b}}, "last": true}', data)
    inside = filled["in"][1:-1]
    assert filled == {"one": first, "two": [second], "in": f"<{inside}>", "k" + inside: data["b"], "last": True}
    if not isinstance(first, str):
        assert inside == "" if first is None else json.loads(inside) == first


@given(values)
def test_the_type_of_a_value_is_kept(value: JSON) -> None:
    filled = body({"v": "{{v}}"}, {"v": value})["v"]
    assert filled == value
    assert type(filled) is type(value)


@given(texts, texts)
def test_text_goes_into_text_unchanged(before: str, value: str) -> None:
    before = before.replace("{", "(")
    assert body({"v": before + "{{v}}."}, {"v": value}) == {"v": before + value + "."}


@given(values, values)
def test_a_template_without_placeholders_is_what_it_says(template: JSON, data: JSON) -> None:
    text = json.dumps(template)
    if "{{" not in text:
        assert body(text or "0", data) == template


@given(st.text('{}" \\ax.:,[]\n', max_size=40))
def test_any_text_is_a_template_or_a_clear_error(text: str) -> None:
    try:
        check_template(text)
    except PayloadError:
        return
    json.loads(render(payload=text)[0] or "")


# -- endpoints


def test_endpoint_values_are_percent_encoded() -> None:
    data = {"id": 5, "q": "a b&c=d/é", "n": None, "o": {"x": 1}, "t": True}
    assert endpoint("/users/{{id}}/x-{{q}}?q={{q}}&n={{n}}&t={{t}}#{{id}}", data) == (
        "/users/5/x-a%20b%26c%3Dd%2F%C3%A9?q=a%20b%26c%3Dd%2F%C3%A9&n=&t=true#5"
    )
    assert endpoint("/o/{{o}}", data) == "/o/%7B%22x%22%3A1%7D"
    assert endpoint("users.{{id}}.created", data) == "users.5.created"
    assert endpoint("", data) == ""


def test_a_static_endpoint_is_left_alone() -> None:
    assert endpoint("/a/../b c?x={y}") == "/a/../b c?x={y}"


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("/users/{{x}}", ".."),
        ("/users/{{x}}", "."),
        ("/users/{{x}}/edit", "../../admin"),
        ("/users/{{x}}", "..\\admin"),
        ("/users/.{{x}}", "."),
        ("/users/{{x}}", "..;v=1"),
        ("/users/%2e{{x}}", "."),
        ("/users/{{x}}", ""),
        ("/users/{{x}}", None),
        ("/users/{{missing}}/all", 1),
        ("{{x}}/users", ""),
    ],
)
def test_a_value_that_would_lead_elsewhere_is_refused(template: str, value: JSON) -> None:
    """`DELETE /users/{{id}}` must not become `DELETE /users/`, nor climb out; servers decode `%2E%2E` to `..`."""
    with pytest.raises(InvalidPayloadError, match="path segment"):
        endpoint(template, {"x": value})


@pytest.mark.parametrize("template", ["/users/{{x", "/users/{{}}", "/users/{{a..b}}"])
def test_a_malformed_endpoint_is_refused(template: str) -> None:
    with pytest.raises(PayloadError, match="line 1 column 8"):
        check_endpoint(template)
    with pytest.raises(InvalidPayloadError, match="endpoint: "):
        render(endpoint=template)


@given(scalars, scalars)
@example("..", "..")
@example("a\r\nHost: evil", "//evil.example/")
def test_an_endpoint_stays_within_its_path(first: JSON, second: JSON) -> None:
    """No value changes the host, the number of segments, the query's fields, or starts a header."""
    try:
        made = endpoint("/api/{{a}}/x{{b}}?q={{b}}&z=1#f", {"a": first, "b": second})
    except InvalidPayloadError:
        return
    url = urlsplit("https://service.example/base" + made)
    assert url.netloc == "service.example"
    assert made.isascii() and made.isprintable() and " " not in made
    segments = url.path.split("/")
    assert segments[:3] == ["", "base", "api"]
    assert len(segments) == 5
    assert all(segments[1:])
    assert not any(part in (".", "..") for s in segments[3:] for part in unquote(s).split("/"))
    assert url.query.startswith("q=") and url.query.endswith("&z=1") and url.query.count("&") == 1
    assert url.fragment == "f"


def peak(act: Callable[[], object]) -> tuple[int, int]:
    """Bytes of Python memory that `act` needs at its worst, and those that it leaves behind."""
    gc.collect()
    tracemalloc.start()
    try:
        act()
        gc.collect()
        left, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return most, left


BIG = {"a": "x" * 1_000_000}


@pytest.mark.parametrize(
    "template", ['["{{event.data}}"%s]' % (',"{{event.data}}"' * 10_000), '"%s"' % ("{{event.data}} {{a}}" * 10_000)]
)
def test_a_body_is_bounded_before_it_takes_memory(template: str) -> None:
    check_template(template)

    def refused() -> None:
        with pytest.raises(InvalidPayloadError, match="payload template: has more than 8388608 characters"):
            render(BIG, payload=template)

    assert peak(refused)[0] < 50_000_000


def test_json_escapes_count_towards_the_size_of_a_body() -> None:
    with pytest.raises(InvalidPayloadError, match="more than 1048576 characters"):
        rules.preview(rule(payload='"{{a}}"'), event_name="e", event_data={"a": "\0" * 500_000}, event_id="e", now=NOW)
    assert render({"a": "\0" * 500_000}, payload='"{{a}}"')[0]


def test_an_endpoint_has_at_most_8192_characters() -> None:
    assert len(endpoint("/{{a}}", {"a": "x" * 8191})) == 8192
    for data in ({"a": "x" * 8192}, {"a": "ü" * 1400}, {"a": ["x" * 1_000_000]}):
        with pytest.raises(InvalidPayloadError, match="endpoint: has more than 8192 characters when rendered"):
            endpoint("/{{a}}", data)


def test_a_template_is_bounded_when_it_is_saved() -> None:
    check_template('"%s"' % ("x" * 262_142))
    with pytest.raises(PayloadError, match="262145 characters are more than the limit of 262144"):
        check_template('"%s"' % ("x" * 262_143))
    with pytest.raises(PayloadError, match="more than 1000 characters"):
        check_template('"{{%s}}"' % ("a." * 1000 + "a"))


def test_previews_leave_nothing_in_memory_and_deliveries_little() -> None:
    def all_of(show: Callable[..., object]) -> Callable[[], None]:
        def act() -> None:
            for i in range(40):
                text = '["{{a}}", "%s"]' % (str(i) + "x" * 240_000)
                show(rule(payload=text), event_name="e", event_data={}, event_id="e", now=NOW)

        return act

    assert peak(all_of(rules.preview))[1] < 1_000_000
    assert peak(all_of(partial(rules.render, task_id=1)))[1] < 8_000_000


@pytest.mark.parametrize("template", ['{"a": "{{s | upper}}"}', '{"a": {{s|upper}}}', '{"{{s|upper}}": 1}'])
def test_filters_are_refused_when_a_template_is_saved(template: str) -> None:
    with pytest.raises(PayloadError, match="filters are not supported"):
        check_template(template)
    with pytest.raises(PayloadError, match="filters are not supported"):
        check_endpoint("/{{s|upper}}")


def test_a_value_adds_no_words_to_a_routing_key() -> None:
    """A topic exchange routes by the words between the dots: a value must not reach another binding."""
    made = rules.render(
        rule(endpoint="orders.{{shop}}.new"),
        event_name="e",
        event_data={"shop": "a.b#*"},
        event_id="1",
        task_id=1,
        now=datetime.now(UTC),
        kind=ServiceType.AMQP,
    )[1]
    assert made == "orders.a%2Eb%23%2A.new"
    assert endpoint("/files/{{name}}", {"name": "a.txt"}) == "/files/a.txt"
