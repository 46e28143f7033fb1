"""What is refused when a service or a rule is saved, and what the refusal says."""

from __future__ import annotations

import json

import pytest

from hub.codec import dumps, loads
from hub.config.definitions import RuleSpec, ServiceSpec, parse_spec
from hub.config.documents import check_rule
from hub.errors import ConfigError, InvalidPayloadError, PayloadError
from hub.models import JSON
from hub.transports.http.urls import parse_base


def service(**fields: JSON) -> ServiceSpec:
    spec: ServiceSpec = parse_spec(ServiceSpec, {"name": "a", "base_url": "https://h.example.org/api"} | fields)
    return spec


def rule(**fields: JSON) -> RuleSpec:
    spec: RuleSpec = parse_spec(RuleSpec, {"name": "r", "event": "e", "service": "a"} | fields)
    return spec


@pytest.mark.parametrize("name", ["crm", "学校 1", "Größe", "हिन्दी", "отдел-кадров", "9_a.b"])
def test_names_may_be_of_any_script(name: str) -> None:
    assert service(name=name).name == rule(name=name).name == name


def test_a_name_is_the_same_however_it_was_typed() -> None:
    assert service(name="Gro\u0308ße").name == service(name="Größe").name


@pytest.mark.parametrize("name", ["-a", "a/b", "a\x00", "a\u202eb", "a|b", "😀"])
def test_a_wrong_name_is_told_what_is_allowed(name: str) -> None:
    with pytest.raises(ConfigError, match=r"^name: may hold letters, digits, spaces and \. _ -") as refused:
        service(name=name)
    assert "A-Za-z" not in str(refused.value)


@pytest.mark.parametrize("host", ["foo[::1]", "[::1]foo", "foo[::1]:80", "u@foo[::1]", "[::1]:80foo"])
def test_text_around_an_ipv6_address_is_refused(host: str) -> None:
    with pytest.raises(ConfigError, match="base_url is not a URL"):
        service(base_url=f"http://{host}/")
    with pytest.raises(ConfigError, match="base_url is not a URL"):
        service(type="amqp", base_url=f"amqp://{host}/")
    with pytest.raises(ConfigError, match="token_url is not a URL"):
        service(auth={"type": "oauth2", "token_url": f"http://{host}/", "client_id": "a", "client_secret": "b"})
    with pytest.raises(InvalidPayloadError):
        parse_base(f"http://{host}/")


@pytest.mark.parametrize(
    ("endpoint", "why"),
    [
        ("/a/../b", "path segment"),
        ("/{{id}}/..", "path segment"),
        ("/a/%2e%2e/{{id}}", "path segment"),
        ("http://other.example.org/{{id}}", "another origin"),
        ("https://h.example.org/elsewhere/{{id}}", "outside"),
        ("ftp://h.example.org/", "not an http or https URL"),
    ],
)
def test_an_endpoint_that_always_fails_is_refused_when_it_is_saved(endpoint: str, why: str) -> None:
    with pytest.raises(ConfigError, match=f"^endpoint: .*{why}"):
        check_rule(rule(endpoint=endpoint), "rest", "https://h.example.org/api")


@pytest.mark.parametrize(
    "endpoint", ["/{{id}}", "/a..b", "?x=../y", "https://h.example.org/api/{{id}}", "https://{{host}}/api/x", "a..b"]
)
def test_an_endpoint_that_may_work_is_saved(endpoint: str) -> None:
    check_rule(rule(endpoint=endpoint), "rest", "https://h.example.org/api")


def test_a_routing_key_is_no_path() -> None:
    check_rule(rule(endpoint=".."), "amqp", "amqp://h.example.org/")


@pytest.mark.parametrize("text", ["9" * 4301, "-" + "9" * 5000, '{"a": [%s]}' % ("9" * 4301)])
def test_an_integer_that_is_too_long_is_refused_in_the_hub_s_words(text: str) -> None:
    with pytest.raises(PayloadError, match=r"an integer has more than 4300 digits$"):
        loads(text)
    with pytest.raises(PayloadError, match=r"an integer has more than 4300 digits$"):
        dumps({"a": 1 << 20_000})
    assert json.loads(dumps(loads("9" * 4300))) == int("9" * 4300)
    with pytest.raises(ConfigError, match="an integer has more than 4300 digits"):
        rule(payload={"a": 1 << 20_000})
    with pytest.raises(ConfigError, match="an integer has more than 4300 digits"):
        rule(conditions={"a": 1 << 20_000})
