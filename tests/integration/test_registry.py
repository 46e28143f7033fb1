"""Services and rules: secrets sealed, changes checked, two editors told apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from hub.app.lifecycle import Hub, build
from hub.config.definitions import RuleSpec, ServiceSpec, parse_spec
from hub.config.documents import rule_document, service_document
from hub.errors import ConfigError, ConflictError, NotFoundError
from hub.settings import Settings
from hub.store.vault import Vault
from tests.support.hubs import add_rule, add_service

TOKEN = "tok-77e1c0ffee"


def with_keys(settings: Settings, *keys: str) -> Settings:
    return settings.model_copy(update={"secret_keys": SecretStr(",".join(keys))})


def sealed(hub: Hub) -> bytes:
    row = hub.db.one("SELECT secrets FROM services")
    assert row is not None
    return bytes(row["secrets"])


def test_keys_are_rotated_without_a_moment_in_which_nobody_can_read(alone: Settings) -> None:
    """New key first, `rotate`, old key away."""
    old, new = Vault.new_key(), Vault.new_key()
    with build(with_keys(alone, old), role="cli") as hub:
        add_service(hub, "http://127.0.0.1:9", auth={"type": "bearer", "token": TOKEN})
        before = sealed(hub)
        assert TOKEN.encode() not in before
    with build(with_keys(alone, new, old), role="cli") as hub:
        assert hub.configuration.service("crm").secrets == {"token": TOKEN}
        assert hub.registry.services.rotate_secrets() == (1, []) and sealed(hub) != before
    with build(with_keys(alone, new), role="cli") as hub:
        assert hub.configuration.service("crm").secrets == {"token": TOKEN}


@pytest.mark.parametrize("keys", ["short", "MDEyMzQ1Njc4OWFiY2RlZg==", " , "])
def test_a_key_that_is_none_is_refused_at_the_start(alone: Settings, keys: str) -> None:
    with pytest.raises(ConfigError, match=r"HUB_SECRET_KEYS: .*hub keygen"):
        build(with_keys(alone, keys), role="cli")


def test_without_a_setting_the_key_is_a_file_that_only_its_owner_reads(alone: Settings, tmp_path: Path) -> None:
    settings = alone.model_copy(update={"secret_keys": None, "home": tmp_path / "h"})
    with build(settings, role="cli") as hub:
        add_service(hub, "http://127.0.0.1:9", auth={"type": "bearer", "token": TOKEN})
    files = [path for path in (tmp_path / "h").rglob("*") if path.is_file() and path.stat().st_size < 200]
    assert any(path.stat().st_mode & 0o777 == 0o600 for path in files)
    with build(settings, role="cli") as hub:
        assert hub.configuration.service("crm").secrets["token"] == TOKEN


def test_a_change_keeps_the_secrets_it_does_not_name(hub: Hub) -> None:
    add_service(
        hub, "http://127.0.0.1:9", auth={"type": "bearer", "token": TOKEN}, secret_headers={"X-Key": "s3cr3t-9"}
    )
    service = hub.registry.services.update("crm", {"timeout": 9, "headers": {"X-A": "b"}})
    assert service.timeout == 9 and service.secrets == {"token": TOKEN, "header:X-Key": "s3cr3t-9"}
    service = hub.registry.services.update("crm", {"auth": {"type": "bearer", "token": "new-token-1"}})
    assert service.secrets["token"] == "new-token-1" and service.version == 3
    assert "token" not in hub.registry.services.update("crm", {"auth": {"type": "none"}}).secrets


def test_what_people_are_shown_has_no_secret(hub: Hub) -> None:
    password = "p%40ss-w0rd"
    add_service(hub, f"amqp://u:{password}@127.0.0.1:9/v?queue_declare=q", type="amqp")
    add_service(
        hub,
        "http://127.0.0.1:9",
        "b",
        auth={"type": "basic", "username": "u", "password": TOKEN},
        signing_secret="whsec_" + "c2Vj" * 8,
        inbound={"token": "inbound-1"},
    )
    shown = [service_document(service) for service in hub.configuration.services()]
    text = repr(shown) + repr(hub.configuration.services())
    for secret in (password, "p@ss-w0rd", TOKEN, "c2VjcmV0", "inbound-1"):
        assert secret not in text
    assert "***" in text
    whole = service_document(hub.configuration.service("crm"), secrets=True)
    assert password in whole["base_url"]


def test_of_two_editors_the_second_is_told(hub: Hub) -> None:
    add_service(hub, "http://127.0.0.1:9")
    add_rule(hub)
    hub.registry.services.update("crm", {"timeout": 3}, version=1)
    hub.registry.rules.update("r1", {"endpoint": "/a"}, version=1)
    with pytest.raises(ConflictError, match="changed"):
        hub.registry.services.update("crm", {"timeout": 4}, version=1)
    with pytest.raises(ConflictError, match="changed"):
        hub.registry.rules.update("r1", {"endpoint": "/b"}, version=1)
    assert hub.configuration.service("crm").timeout == 3 and hub.configuration.rule("r1").endpoint == "/a"


def test_names_are_taken_once_and_free_again_after_a_deletion(hub: Hub) -> None:
    add_service(hub, "http://127.0.0.1:9")
    add_rule(hub)
    with pytest.raises(ConflictError, match="'crm'"):
        add_service(hub, "http://127.0.0.1:9")
    with pytest.raises(ConflictError, match="'r1'"):
        add_rule(hub)
    assert hub.registry.services.delete("crm") == 1
    for missing in (lambda: hub.configuration.service("crm"), lambda: hub.configuration.rule("r1")):
        with pytest.raises(NotFoundError):
            missing()
    with pytest.raises(NotFoundError):
        add_rule(hub)
    add_service(hub, "http://127.0.0.1:9")
    add_rule(hub)
    assert hub.db.one("SELECT secrets FROM services WHERE deleted_at IS NOT NULL") == {"secrets": None}


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"nmae": "x"}, "nmae"),
        ({"timeout": "soon"}, "timeout"),
        ({"timeout": -1}, "timeout"),
        ({"type": "ftp"}, "type"),
        ({"base_url": "ftp://x"}, "base_url"),
        ({"base_url": "http://"}, "base_url"),
        ({"max_retries": 99}, "max_retries"),
        ({"auth": {"type": "bearer"}}, "token"),
        ({"name": "a\x00b"}, "name"),
        ({"headers": {"A b": "c"}}, "headers"),
        ({"headers": {"A": "b\r\nC: d"}}, "headers"),
        ({"response_queue": "q"}, "response_queue"),
    ],
)
def test_a_service_that_is_none_is_refused_by_field(spec: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        parse_spec(ServiceSpec, {"name": "crm", "type": "rest", "base_url": "http://x"} | spec)


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"evnet": "x"}, "evnet"),
        ({"event": ""}, "event"),
        ({"method": "TRACE"}, "method"),
        ({"payload": '{"a": {{b}'}, "payload"),
        ({"conditions": {"a": {"like": 1}}}, "conditions"),
        ({"endpoint": "/{{a"}, "endpoint"),
        ({"event": 7}, "event"),
        ({"strict": "maybe"}, "strict"),
    ],
)
def test_a_rule_that_is_none_is_refused_by_field(spec: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        parse_spec(RuleSpec, {"name": "r", "event": "e", "service": "crm"} | spec)


def test_documents_read_back_as_they_were_written(hub: Hub) -> None:
    add_service(hub, "http://127.0.0.1:9", rate_limit=5, mask=["a.b"], retry_delays=[1, 2])
    add_rule(hub, payload={"a": "{{n}}"}, conditions={"n": {"gt": 3}})
    service = service_document(hub.configuration.service("crm"), secrets=True)
    rule = rule_document(hub.configuration.rule("r1"))
    assert parse_spec(ServiceSpec, service).split() == parse_spec(ServiceSpec, {**service}).split()
    assert rule["payload"] == {"a": "{{n}}"} and rule["conditions"] == {"n": {"gt": 3}}
    hub.registry.services.delete("crm")
    hub.registry.services.add(parse_spec(ServiceSpec, service))
    hub.registry.rules.add(parse_spec(RuleSpec, rule))
    assert service_document(hub.configuration.service("crm"), secrets=True) == service
    assert rule_document(hub.configuration.rule("r1")) == rule
