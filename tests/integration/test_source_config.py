"""Event sources as people define them: by command, API and file, with the password masked everywhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from hub.app.lifecycle import Hub
from hub.cli.app import app
from hub.config.definitions import parse_spec
from hub.config.sources import SourceSpec
from hub.config.yaml_file import parse
from hub.errors import ConfigError, StaleError
from hub.operations import apply
from hub.operations.export import export
from hub.operations.sources import run_source_test
from tests.support.api import Api
from tests.support.moodle_site import PASSWORD, MoodleSite, log_row

URL = "mysql://reader:canary%2Fpw@db.example.org:3307/moodle"
FILE = """
sources:
  - name: site
    url: mysql://reader:${PW}@db.example.org/moodle
    prefix: m_
    events: ['\\core\\event\\user_*']
    start: 2026-01-31T12:00
"""


@pytest.fixture
def cli(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs one command on the database of `hub`; its standard output."""
    assert hub.settings.database_url and hub.settings.secret_keys
    for name in ("database_url", "secret_keys"):
        monkeypatch.setenv(f"HUB_{name.upper()}", getattr(hub.settings, name).get_secret_value())
    monkeypatch.setenv("HUB_HOME", str(hub.settings.home))

    def run(*words: str) -> str:
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
        return result.stdout

    return run


def spec(**fields: Any) -> SourceSpec:
    made: SourceSpec = parse_spec(SourceSpec, {"name": "site", "url": URL} | fields)
    return made


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"url": "https://h/x"}, "starts with mysql://"),
        ({"url": "mysql://u@h"}, "names no database"),
        ({"url": "mysql://h/d"}, "names no user"),
        ({"url": "mysql://u@h/d?ssl=1"}, "unknown parameter"),
        ({"url": "postgresql://u@/d"}, "has no host"),
        ({"prefix": "mdl_; DROP"}, "prefix"),
        ({"start": "yesterday"}, "must be now, the id of a row, or a time"),
        ({"events": []}, "events"),
        ({"ca_file": "ca.pem"}, "tls: verify"),
        ({"batch": 0}, "batch"),
        ({"shard": 1}, "unknown field"),
    ],
)
def test_a_wrong_definition_is_refused_with_its_field(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        spec(**fields)


def test_a_start_is_an_id_a_time_in_utc_or_now() -> None:
    starts = ["now", "17", 17, "2026-01-31", "2026-01-31T12:00:00+02:00"]
    assert [spec(start=s).start for s in starts] == ["now", 17, 17, "2026-01-31T00:00:00Z", "2026-01-31T10:00:00Z"]


def test_the_password_is_sealed_and_shown_nowhere(api: Api) -> None:
    client = api.client("manage")
    added = client.post("/api/v1/sources", json={"name": "site", "url": URL})
    assert added.status_code == 201 and added.headers["ETag"] == '"1"'
    masked = URL.replace("canary%2Fpw", "***")
    assert added.json()["url"] == masked
    changed = client.patch("/api/v1/sources/site", json={"url": masked, "batch": 50}, headers={"If-Match": '"1"'})
    assert (changed.status_code, changed.json()["batch"]) == (200, 50)
    assert api.hub.registry.sources.source("site").secrets == {"password": "canary/pw"}
    assert client.patch("/api/v1/sources/site", json={"batch": 1}, headers={"If-Match": '"1"'}).status_code == 412
    assert client.patch("/api/v1/sources/site", json={"url": masked.replace("db.", "evil.")}).status_code == 422
    texts = [response.text for response in (added, changed, client.get("/api/v1/sources"))]
    stored = json.dumps([str(row) for row in api.hub.db.all("SELECT * FROM sources")])
    stored += json.dumps([str(row) for row in api.hub.db.all("SELECT * FROM audit_log")])
    assert "canary" not in "".join(texts) + stored


def test_the_api_shows_and_switches_sources(api: Api) -> None:
    client = api.client("manage")
    client.post("/api/v1/sources", json={"name": "site", "url": "mysql://reader:secret@127.0.0.1:9/moodle"})
    assert client.get("/api/v1/sources/site/status").json()["state"] == "starting"
    assert client.post("/api/v1/sources/site/disable").json()["enabled"] is False
    assert client.get("/api/v1/sources/status").json()["items"][0]["lag_seconds"] is None
    assert client.post("/api/v1/sources/site/enable").json()["enabled"] is True
    tested = client.post("/api/v1/sources/site/test").json()
    assert tested["ok"] is False and "refused" in tested["message"] and "secret" not in tested["message"]
    assert client.post("/api/v1/sources/site/reset", json={"to": "17"}).status_code == 200
    assert api.hub.db.one("SELECT start, last_id FROM source_positions") == {"start": "17", "last_id": None}
    assert client.post("/api/v1/sources/site/reset", json={"to": "never"}).status_code == 422
    assert api.client("view").delete("/api/v1/sources/site").status_code == 403
    assert client.delete("/api/v1/sources/site").json() == {"deleted": "site"}
    assert client.get("/api/v1/sources/site").status_code == 404


def test_a_file_adds_changes_and_prunes_sources(hub: Hub) -> None:
    def applied(text: str, **values: str) -> list[str]:
        plan = apply.plan(parse(text, values.get), hub.registry, hub.schedule, prune=True)
        apply.execute(plan, hub.registry, hub.schedule)
        assert "canary" not in str(plan.changes)
        return [f"{change.action} {change.name} {sorted(change.fields)}" for change in plan.changes]

    assert applied(FILE, PW="canary1")[0].startswith("add site")
    assert applied(FILE, PW="canary1") == ["same site []"]
    assert applied(FILE, PW="canary2") == ["change site ['password']"]
    assert applied(FILE.replace("m_", "mdl_"), PW="canary2") == ["change site ['prefix']"]
    text, names = export(hub.registry, hub.schedule)
    assert names == ["SITE_PASSWORD"] and "canary" not in text
    assert applied(text, SITE_PASSWORD="canary2")[0] == "same site []"
    assert applied("sources: []\n") == ["delete site []"]
    assert hub.registry.sources.sources() == []


def test_an_edit_of_an_older_version_is_refused(hub: Hub) -> None:
    hub.registry.sources.add(spec())
    hub.registry.sources.update("site", {"batch": 7}, 1)
    with pytest.raises(StaleError):
        hub.registry.sources.update("site", {"batch": 8}, 1)
    with pytest.raises(StaleError):
        hub.registry.sources.delete("site", 1)


def test_the_command_line_manages_sources(
    hub: Hub, moodle_pg: MoodleSite, cli: Callable[..., str], tmp_path: Path
) -> None:
    secret = tmp_path / "url"
    secret.write_text(moodle_pg.url)
    moodle_pg.insert([log_row()])
    assert "added" in cli("source", "add", "site", "--url", f"@{secret}", "--start", "0", "--event", "*")
    assert PASSWORD not in cli("source", "show", "site", "--json")
    assert "the log's newest row is 1" in cli("source", "test", "site")
    assert run_source_test(hub, "site").ok
    cli("source", "edit", "site", "--poll-interval", "2", "--set", "batch=10")
    [row] = json.loads(cli("source", "list", "--json"))
    assert (row["poll_interval"], row["batch"], row["state"]) == (2.0, 10, "starting")
    cli("source", "disable", "site")
    assert json.loads(cli("source", "status", "site", "--json"))["state"] == "disabled"
    cli("source", "enable", "site")
    cli("source", "reset", "site", "--to", "now", "--yes")
    cli("source", "delete", "site", "--yes")
    assert json.loads(cli("source", "list", "--json")) == []
