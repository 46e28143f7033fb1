"""The audit trail and the trace of security events: who did what, in the transaction of the change, without secrets."""

from __future__ import annotations

import json
import os
import pwd
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from hub.app.lifecycle import Hub
from hub.config.definitions import RuleSpec, ServiceSpec, parse_spec
from hub.hooks import Hooks
from hub.settings import Settings
from hub.store.accounts import Accounts
from hub.store.audit import (
    Actor,
    AuditLog,
    Entry,
    acting,
    record,
)
from hub.store.database import Database
from hub.store.migrate import migrate, migrations
from tests.support import clients
from tests.support.api import Api, problem
from tests.support.console import signed_in
from tests.support.site import Site

_PASSWORD = "correct horse battery"


class Counted(Hooks):
    """Keeps the security events."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def auth_event(self, event: str, result: str) -> None:
        self.seen.append((event, result))


def told(entry: Entry) -> tuple[object, ...]:
    return entry.actor, entry.actor_kind, entry.action, entry.subject_name, entry.before, entry.after


def test_every_change_of_users_and_tokens_leaves_an_entry(hub: Hub) -> None:
    hooks = Counted()
    accounts = Accounts(hub.db, hooks)
    with acting(Actor("maria", "user", "192.0.2.7")):
        accounts.users.add("ada", "hash", "manage")
        accounts.users.add("bob", "hash", "view")
        accounts.users.set_role("bob", "manage")
        accounts.users.set_role("bob", "manage")
        accounts.users.enable("bob", False)
        accounts.users.set_password("bob", "other hash")
        accounts.users.delete("bob")
        accounts.tokens.add("ci", "view")
        accounts.tokens.revoke("ci")
        accounts.tokens.revoke("ci")
    entries = hub.audit.list()[::-1]
    assert {(e.actor, e.actor_kind, e.origin) for e in entries} == {("maria", "user", "192.0.2.7")}
    assert [told(e)[2:] for e in entries] == [
        ("user.add", "ada", None, {"role": "manage", "enabled": True}),
        ("user.add", "bob", None, {"role": "view", "enabled": True}),
        ("user.change", "bob", {"role": "view"}, {"role": "manage"}),
        ("user.change", "bob", {"enabled": True}, {"enabled": False}),
        ("user.password", "bob", None, None),
        ("user.delete", "bob", {"role": "manage", "enabled": False}, None),
        ("token.add", "ci", None, {"scope": "view", "expires_at": None}),
        ("token.revoke", "ci", {"scope": "view"}, None),
    ]
    assert hooks.seen == [
        ("user", "added"),
        ("user", "added"),
        ("user", "changed"),
        ("user", "changed"),
        ("user", "changed"),
        ("user", "deleted"),
        ("token", "added"),
        ("token", "revoked"),
    ]


def test_an_entry_is_of_the_same_transaction_as_its_change(hub: Hub) -> None:
    with pytest.raises(ZeroDivisionError), hub.db.together():
        hub.accounts.users.add("ada", "hash", "manage")
        _ = 1 / 0
    assert hub.accounts.users.list() == [] and hub.audit.list() == []


def test_entries_are_found_by_who_what_and_when(hub: Hub) -> None:
    with hub.db.transaction() as conn:
        for n in range(5):
            with acting(Actor(f"user {n % 2}", "user")):
                assert record(conn, "rule.change", "rule", id=n, name=f"r{n}", before={"a": 1, "b": 2}, after={"a": n})
    newest, *_ = hub.audit.list()
    assert (newest.before, newest.after) == ({"a": 1, "b": 2}, {"a": 4, "b": None})
    assert [e.subject_name for e in hub.audit.list(actor="user 1")] == ["r3", "r1"]
    assert [e.subject_name for e in hub.audit.list(kind="rule", name="r2")] == ["r2"]
    assert [e.subject_name for e in hub.audit.list(before=newest.id, limit=2)] == ["r3", "r2"]
    assert hub.audit.list(action="user.add") == [] == hub.audit.list(since=newest.at + timedelta(seconds=60))


def test_the_api_shows_it_to_those_who_may_manage(api: Api) -> None:
    client = api.client("manage")
    made = client.post("/api/v1/tokens", json={"name": "ci", "scope": "view"}).json()
    answer = client.get("/api/v1/activity", params={"kind": "token", "name": "ci"})
    (entry,) = answer.json()["items"]
    assert (entry["actor"], entry["actor_kind"], entry["origin"]) == ("manage 1", "token", "127.0.0.1")
    assert entry["action"] == "token.add" and entry["after"] == {"scope": "view", "expires_at": None}
    assert made["token"] not in answer.text
    problem(api.client("view").get("/api/v1/activity"), 403)


def test_the_console_names_its_user_and_ends_sessions(api: Api) -> None:
    from hub.web.passwords import hash_password

    accounts = api.hub.accounts
    for name, role in (("maria", "manage"), ("vera", "view")):
        accounts.users.add(name, hash_password(_PASSWORD), role)  # type: ignore[arg-type]
    with signed_in(api.hub, api.url, "maria") as maria, signed_in(api.hub, api.url, "vera") as vera:
        assert vera.post("/access/users", data={"name": "x"}).status_code == 403
        assert maria.post("/access/users/change", data={"name": "vera", "act": "view"}).status_code == 303
        assert vera.get("/access").status_code == 200, "nothing changed, so the session goes on"
        marias = accounts.sessions.list("maria")[0].id
        assert vera.post("/access/sessions/revoke", data={"id": marias}).status_code == 404
        new = {"password": "another horse battery", "again": "another horse battery"}
        assert "old password" in vera.post("/access/password", data=new | {"old": "wrong"}).text
        assert vera.post("/access/password", data=new | {"old": _PASSWORD}).status_code == 303
        veras = accounts.sessions.list("vera")[0].id
        assert maria.post("/access/sessions/revoke", data={"id": veras}).status_code == 303
        assert vera.get("/access").status_code == 303
    last, before = api.hub.audit.list(limit=2)
    assert told(last)[:4] == ("maria", "user", "session.revoke", "vera")
    assert told(before)[:4] == ("vera", "user", "user.password", "vera") and before.origin == "127.0.0.1"


def test_a_running_web_traces_log_ins_in_log_and_metrics(alone: Settings, tmp_path: Path) -> None:
    (tmp_path / "password").write_text(_PASSWORD)
    with Site(alone, tmp_path) as site:
        site.env["HUB_ACTOR"] = "deployment"
        site.run("user", "add", "maria", "--role", "manage", "--password", f"@{tmp_path / 'password'}")
        del site.env["HUB_ACTOR"]
        link = "/login/link/" + site.run("user", "link").strip().rpartition("/")[2]
        site.start("web")
        with clients.Client(base_url=f"http://{site.address('web')}") as client:
            assert shown(client)[("login", "failed")] == 0, "every series is there before anything happened"
            for name, password in (("maria", _PASSWORD), ("maria", "wrong"), ("my secret pass", "wrong")):
                client.post("/login", data={"name": name, "password": password})
            for _ in range(10):
                client.post("/login", data={"name": "maria", "password": "wrong"})
            client.post("/login/link/nonsense", data={})
            client.post(link, data={"name": "ada", "password": _PASSWORD, "again": _PASSWORD})
            counted = shown(client)
        assert counted[("login", "ok")] == 1 and counted[("login", "locked")] >= 1
        assert counted[("login", "failed")] + counted[("login", "locked")] == 12
        assert counted[("link", "refused")] == 1 == counted[("link", "used")]
        output = site.output("web")
        lines = [json.loads(line) for line in output.splitlines() if '"security event"' in line]
        assert {(x["action"], x["result"]) for x in lines} >= {
            ("login", "ok"),
            ("login", "failed"),
            ("login", "locked"),
            ("link", "refused"),
            ("link", "used"),
        }
        assert all(x["origin"] == "127.0.0.1" for x in lines)
        for secret in (_PASSWORD, "my secret pass", link.rpartition("/")[2]):
            assert secret not in output
        entries = json.loads(site.run("activity", "list", "--json"))
        by_action = {entry["action"]: entry for entry in entries}
        assert by_action["link.add"]["actor"] == pwd.getpwuid(os.getuid()).pw_name
        assert [e["actor"] for e in entries if e["subject_name"] == "maria"] == ["deployment"]
        assert [e["actor_kind"] for e in entries if e["subject_name"] == "ada"] == ["link"]


def shown(client: clients.Client) -> dict[tuple[str, str], float]:
    """The counters of security events that `/metrics` shows, by event and result."""
    from prometheus_client.parser import text_string_to_metric_families

    families = text_string_to_metric_families(client.get("/metrics").text)
    return {
        (s.labels["event"], s.labels["result"]): s.value
        for family in families
        for s in family.samples
        if s.name == "hub_auth_events_total"
    }


def test_old_entries_go_with_their_own_retention(hub: Hub) -> None:
    hub.accounts.users.add("ada", "hash", "manage")
    hub.accounts.users.add("bob", "hash", "view")
    hub.accounts.users.add("eve", "hash", "view")
    hub.db.run("UPDATE audit_log SET at = now() - interval '366 days' WHERE subject_name = 'ada'")
    hub.db.run("UPDATE audit_log SET at = now() - interval '300 days' WHERE subject_name = 'bob'")
    gone = hub.housekeeping.run()
    assert gone is not None and gone["audit_log"] == 1
    assert [e.subject_name for e in hub.audit.list()] == ["eve", "bob"]


def test_the_migration_keeps_users_and_sessions_of_before(empty_database_url: str) -> None:
    """The tables as the release before left them, with people in them."""
    with psycopg.connect(empty_database_url) as conn:
        conn.execute(
            "CREATE TABLE hub_migrations (name text PRIMARY KEY, checksum text NOT NULL,"
            " applied_at timestamptz NOT NULL DEFAULT now())"
        )
        for name, checksum, sql in migrations():
            if name >= "0005":
                break
            conn.execute(sql.encode())
            conn.execute("INSERT INTO hub_migrations VALUES (%s, %s)", [name, checksum])
        conn.execute("INSERT INTO users (name, password, role) VALUES ('ada', 'h', 'manage')")
        for n in (b"1", b"2"):
            conn.execute(
                "INSERT INTO sessions (hash, user_id, csrf, expires_at) VALUES (%s, 1, 'c', now() + interval '1 h')",
                [n],
            )
    db = Database(empty_database_url)
    db.open()
    migrate(db)
    accounts = Accounts(db)
    first, second = accounts.sessions.list("ada")
    assert first.id != second.id and first.origin is None
    accounts.sessions.revoke(first.id)
    assert [s.id for s in accounts.sessions.list()] == [second.id]
    assert [e.action for e in AuditLog(db).list()] == ["session.revoke"]
    db.close()


def test_changes_of_services_rules_and_schedules_leave_entries_with_masked_secrets(hub: Hub) -> None:
    """The same through `write_rules`, which `hub apply` uses; what changes nothing leaves nothing."""
    registry = hub.registry
    service = {"name": "crm", "base_url": "http://h/", "auth": {"type": "bearer", "token": "canary-one"}}
    registry.services.add(parse_spec(ServiceSpec, service))
    registry.services.update("crm", {"timeout": 7})
    registry.services.update("crm", {"timeout": 7})
    registry.services.update("crm", {"auth": {"type": "bearer", "token": "canary-two"}})
    registry.services.enable("crm", True)
    odd = RuleSpec.model_validate({"name": "r", "event": "e", "service": "crm", "payload": {"a": "b"}})
    registry.rules.add(odd)
    added = odd.model_copy(update={"name": "s", "payload": None})
    registry.rules.write([added], [odd])
    registry.rules.write([], [odd.model_copy(update={"endpoint": "/x"})])
    registry.rules.enable("s", False)
    hub.schedule.set("consume_responses_task", "*/5 * * * *")
    registry.services.delete("crm")
    entries = hub.audit.list()[::-1]
    assert [(e.action, e.subject_name) for e in entries] == [
        ("service.add", "crm"),
        ("service.change", "crm"),
        ("service.change", "crm"),
        ("rule.add", "r"),
        ("rule.add", "s"),
        ("rule.change", "r"),
        ("rule.change", "s"),
        ("schedule.change", "consume_responses_task"),
        ("service.delete", "crm"),
        ("rule.delete", "r"),
        ("rule.delete", "s"),
    ]
    assert entries[1].before == {"timeout": 5} and entries[1].after == {"timeout": 7}
    assert entries[2].after == {"changed_secrets": ["token"]}
    assert entries[5].after == {"endpoint": "/x"} and entries[6].after == {"enabled": False}
    assert "canary" not in repr(entries)
