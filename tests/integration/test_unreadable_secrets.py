"""A key of HUB_SECRET_KEYS is lost: the services whose secrets it sealed stand still, and nobody else does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from hub.app.lifecycle import Hub, build
from hub.cli.app import app
from hub.config.definitions import RuleSpec, ServiceSpec, parse_spec
from hub.config.documents import service_document
from hub.errors import ConfigError, SecretsError
from hub.hooks import Hooks
from hub.operations import apply
from hub.operations.export import export
from hub.settings import Settings
from hub.store.vault import Vault
from hub.web.passwords import hash_password
from tests.support.api import Api, problem, serving
from tests.support.console import signed_in
from tests.support.http_target import HttpTarget
from tests.support.hubs import add_rule, add_service, attempt, due_now, emit, task

TOKEN, OTHER = "tok-77e1c0ffee", "tok-0ddba11"
SIGNING = "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"


class Noted(Hooks):
    """Remembers who was locked out, as metrics count it."""

    def __init__(self) -> None:
        self.locked: list[str] = []

    def locked_out(self, service: str) -> None:
        self.locked.append(service)


@pytest.fixture
def sealed(hub: Hub, target: HttpTarget) -> int:
    """Service `crm` with a token, `open` without one, a rule for each; the id of a task of `crm`."""
    add_service(hub, target.url, auth={"type": "bearer", "token": TOKEN})
    add_service(hub, target.url, "open")
    add_rule(hub)
    (found,) = emit(hub)
    return found


@pytest.fixture
def key() -> str:
    return Vault.new_key()


@pytest.fixture
def lost(alone: Settings, sealed: int, key: str) -> Iterator[Hub]:
    """A worker that was started with another key."""
    with build(_with(alone, key), role="worker", hooks=Noted()) as hub:
        hub.lease.start()
        yield hub


def _with(settings: Settings, *keys: str, **more: Any) -> Settings:
    return settings.model_copy(update={"secret_keys": SecretStr(",".join(keys)), **more})


def stored(hub: Hub) -> bytes:
    row = hub.db.one("SELECT secrets FROM services WHERE name = 'crm'")
    assert row is not None
    return bytes(row["secrets"] or b"")


def test_others_are_delivered_and_its_own_tasks_wait_and_spend_no_attempt(
    hub: Hub, lost: Hub, sealed: int, target: HttpTarget
) -> None:
    """A lost key is the hub's own fault: nothing is sent without credentials, and nothing counts."""
    add_rule(hub, "r2", "other", "open")
    (other,) = emit(lost, "other")
    assert attempt(lost, other) == "delivered" and len(target.seen) == 1
    assert attempt(lost, sealed) == "parked" and len(target.seen) == 1
    row = task(hub, sealed)
    assert row["attempts"] == 0 and row["due_in"] > 30
    assert "'crm'" in row["last_error"] and "HUB_SECRET_KEYS" in row["last_error"]
    assert hub.views.overview.breaker("crm")["failures"] == 0
    assert isinstance(lost.hooks, Noted) and lost.hooks.locked == ["crm"], "an alert hangs on this"
    due_now(hub)
    assert attempt(hub, sealed) == "delivered", "with its key it goes on"
    assert target.seen[-1].headers["authorization"] == f"Bearer {TOKEN}"


def test_nothing_else_speaks_for_it(lost: Hub) -> None:
    service = lost.registry.configuration.service("crm")
    with pytest.raises(SecretsError, match=r"'crm'.*HUB_SECRET_KEYS.*enter its secrets again"):
        lost.gateway.check(service)
    broker = add_service(lost, "amqp://u:p@127.0.0.1:1/v", "queue", type="amqp", response_queue="answers")
    lost.db.run("UPDATE services SET secrets = 'x' WHERE name = 'queue'")
    run = lost.consume(broker.id)
    assert run is not None and run.outcome == "error" and "'queue'" in str(run.error)


@pytest.mark.parametrize(
    "changes",
    [
        {"timeout": 9},
        {"signing_secret": SIGNING},
        {"auth": {"type": "bearer", "token": "***"}},
        {"type": "amqp", "base_url": "amqp://u@127.0.0.1/v", "auth": {"type": "none"}},
    ],
)
def test_a_change_that_would_lose_a_secret_is_refused(hub: Hub, lost: Hub, changes: dict[str, Any]) -> None:
    """The key may be found again; until somebody enters secrets on purpose, what is stored stays."""
    before = stored(hub)
    with pytest.raises(ConfigError, match="give all of them"):
        lost.registry.services.update("crm", changes)
    lost.registry.services.enable("crm", False)
    lost.registry.services.enable("crm", True)
    assert stored(hub) == before


def test_secrets_are_entered_again(hub: Hub, lost: Hub, sealed: int, target: HttpTarget) -> None:
    service = lost.registry.services.update("crm", {"auth": {"token": OTHER}, "timeout": 9})
    assert service.secrets == {"token": OTHER} and not service.secrets_unreadable and service.timeout == 9
    due_now(hub)
    assert attempt(lost, sealed) == "delivered"
    assert target.seen[-1].headers["authorization"] == f"Bearer {OTHER}"
    assert hub.configuration.service("crm").secrets_unreadable, "under the new key, which the other process lacks"
    hub.registry.services.update("crm", {"auth": {"type": "none"}})
    assert stored(hub) == b"", "that it needs none is said on purpose, too"


def test_rotation_tells_whom_it_left_out(hub: Hub, lost: Hub) -> None:
    """Who is not told throws the old key away."""
    add_service(lost, "http://127.0.0.1:9", "mine", auth={"type": "bearer", "token": OTHER})
    before = stored(hub)
    assert lost.registry.services.rotate_secrets() == (1, ["crm"])
    assert stored(hub) == before


def test_a_file_brings_the_secrets_back(lost: Hub) -> None:
    """`hub apply` of the file that is kept in version control is the quickest way out."""
    document = {
        "services": [{"name": "crm", "base_url": "http://127.0.0.1:9", "auth": {"type": "bearer", "token": OTHER}}]
    }
    plan = apply.plan(document, lost.registry, lost.schedule)
    (change,) = plan.changes
    assert change.action == "change" and "token" in change.fields and OTHER not in repr(plan.changes)
    apply.execute(plan, lost.registry, lost.schedule)
    assert lost.registry.configuration.service("crm").secrets == {"token": OTHER}
    text, names = export(lost.registry, lost.schedule)
    assert names == ["CRM_TOKEN"] and OTHER not in text


def test_an_export_still_asks_for_the_secret_that_must_be_there(lost: Hub) -> None:
    assert export(lost.registry, lost.schedule)[1] == ["CRM_TOKEN"]


def test_the_command_line_marks_it(alone: Settings, lost: Hub, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert alone.database_url
    monkeypatch.setenv("HUB_DATABASE_URL", alone.database_url.get_secret_value())
    monkeypatch.setenv("HUB_SECRET_KEYS", key)
    monkeypatch.setenv("HUB_HOME", str(alone.home))

    def hub(*words: str, code: int = 0) -> str:
        result = CliRunner().invoke(app, words)
        assert result.exit_code == code, (result.output, result.exception)
        return result.stdout

    marked = {row["name"]: row["secrets_unreadable"] for row in json.loads(hub("service", "list", "--json"))}
    assert marked == {"crm": True, "open": False}
    assert "secrets unreadable" in hub("service", "list")
    assert json.loads(hub("service", "show", "crm", "--json"))["secrets_unreadable"] is True
    assert "HUB_SECRET_KEYS" in json.loads(hub("service", "test", "crm", "--json", code=1))["message"]
    assert json.loads(hub("rotate-secrets", "--json", code=1)) == {"services": 0, "sources": 0, "unreadable": ["crm"]}
    hub("service", "edit", "crm", "--token", OTHER)
    assert "secrets unreadable" not in hub("service", "list")
    assert json.loads(hub("rotate-secrets", "--json"))["services"] == 1


@pytest.fixture
def api(alone: Settings, sealed: int, key: str) -> Iterator[Api]:
    """A web server that was started with another key."""
    with build(_with(alone, key, listen="127.0.0.1:0"), role="web") as hub, serving(hub) as api:
        yield api


def test_the_api_marks_it_and_takes_new_secrets(api: Api) -> None:
    client = api.client()
    marked = {s["name"]: s["secrets_unreadable"] for s in client.get("/api/v1/services").json()["items"]}
    assert marked == {"crm": True, "open": False}
    shown = client.get("/api/v1/services/crm").json()
    assert client.post("/api/v1/services/crm/test").json()["ok"] is False
    problem(client.patch("/api/v1/services/crm", json=shown | {"timeout": 9}), 422)
    answer = client.patch("/api/v1/services/crm", json=shown | {"auth": {"type": "bearer", "token": OTHER}})
    assert answer.status_code == 200 and answer.json()["secrets_unreadable"] is False


def test_a_service_that_calls_is_asked_to_come_again(api: Api) -> None:
    """401 would make it give up; its token may well be right."""
    answer = api.client(None).post("/webhook/crm", json={}, headers={"Authorization": f"Bearer {TOKEN}"})
    assert problem(answer, 503) and answer.headers["retry-after"]


def test_the_console_marks_it_and_its_form_asks_for_all_secrets(api: Api) -> None:
    api.hub.accounts.users.add("maria", hash_password("correct horse battery"), "manage")
    with signed_in(api.hub, api.url, "maria") as maria:
        assert maria.get("/services").text.count("secrets unreadable") == 1
        page = maria.get("/services/crm").text
        assert "HUB_SECRET_KEYS" in page and "/services/crm/edit" in page
        assert "HUB_SECRET_KEYS" not in maria.get("/services/open").text
        form = maria.get("/services/crm/edit").text
        assert "Enter all secrets again" in form and 'value="***"' not in form
        typed = {"name": "crm", "type": "rest", "base_url": "http://127.0.0.1:9", "auth_type": "bearer"}
        assert maria.post("/services/crm/edit", data=typed).status_code == 422
        assert maria.post("/services/crm/edit", data=typed | {"auth_token": OTHER}).status_code == 303
    assert api.hub.configuration.service("crm").secrets == {"token": OTHER}


def test_it_is_shown_as_what_it_is_without_its_secrets(lost: Hub) -> None:
    document = service_document(lost.registry.configuration.service("crm"))
    assert document["auth"] == {"type": "bearer", "token": "***"}
    assert parse_spec(ServiceSpec, document) and parse_spec(RuleSpec, {"name": "r", "event": "e", "service": "crm"})
