"""Canaries in every place that holds a secret, looked for in everything that the hub shows, writes, sends or stores."""

from __future__ import annotations

import base64
import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pika
import psycopg
import pytest
import structlog
from typer.testing import CliRunner

from hub.app.lifecycle import Hub, build
from hub.cli.app import app
from hub.errors import HubError
from hub.programs import log_lines
from hub.programs.log_setup import configure_logging
from hub.settings import Settings
from hub.web.passwords import hash_password
from tests.support import clients
from tests.support.api import serving
from tests.support.http_target import HttpTarget, Reply, Seen
from tests.support.hubs import add_rule, add_service, attempt, due_now, emit

KEY = base64.urlsafe_b64encode(b"canary-of-the-secret-keys-32byte").decode()
CANARIES = {
    "token": "canary-token-5521",
    "apikey": "canary-apikey-5522",
    "password": 'canary-"pass\\word-5523',
    "client_secret": "canary-client-5524",
    "header": "canary-header-5525",
    "inbound": "canary-inbound-5526",
    "amqp": "canary-amqp-5527",
    "database": "canary-database-5528",
    "metrics": "canary-metrics-5529",
    "signing": base64.b64encode(b"canary-signing-secret-5530").decode(),
    "inbound_signing": base64.b64encode(b"canary-inbound-signing-5531").decode(),
    "keys": KEY,
}
COMMANDS = (
    ["service", "list"],
    ["rule", "list"],
    ["tasks", "list"],
    ["tasks", "failures"],
    ["dlq", "list"],
    ["log", "list"],
    ["breaker", "list"],
    ["stats"],
    ["schedule", "list"],
    ["user", "list"],
    ["token", "list"],
)


def _forms(canary: str) -> set[str]:
    """How a secret may look in an output: plain, in JSON, in base64 wherever it begins, in a URL."""
    raw = canary.encode()
    found = {
        canary,
        json.dumps(canary)[1:-1],
        canary.encode("unicode_escape").decode(),
        httpx.QueryParams(x=canary)["x"],
    }
    for offset in range(3):  # base64 groups three bytes
        found.add(base64.b64encode(raw[offset : offset + (len(raw) - offset) // 3 * 3]).decode())
    return found


def leaks(where: str, text: str) -> list[str]:
    return [f"{name} in {where}" for name, canary in CANARIES.items() if any(form in text for form in _forms(canary))]


def _echo(seen: Seen) -> Reply:
    """The worst of services: it fails, and says all it knows."""
    return Reply(400, {"headers": seen.headers, "query": seen.query, "body": seen.body.decode("latin-1")})


CACHE = "cache_logger_on_first_use"


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """Everything that is logged, at the most talkative level."""
    root, text = logging.getLogger(), io.StringIO()
    before = (root.handlers, root.level, structlog.get_config())
    yield text
    root.handlers, root.level = before[0], before[1]
    structlog.configure(**before[2])
    for name in ("pika", "dramatiq", "psycopg", "psycopg.pool", "urllib3"):
        logging.getLogger(name).setLevel(logging.NOTSET)


def _listen(settings: Settings, into: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    """Log in this format from now on: no logger keeps the one before."""
    configure = structlog.configure
    with monkeypatch.context() as patch:
        patch.setattr(structlog, "configure", lambda **options: configure(**options | {CACHE: False}))
        configure_logging(settings)
    monkeypatch.setattr(log_lines, "write", lambda line: into.write(f"{line}\n"))


def _services(hub: Hub, url: str) -> None:
    inbound = {"token": CANARIES["inbound"], "signing_secret": "whsec_" + CANARIES["inbound_signing"]}
    shared: dict[str, Any] = {
        "secret_headers": {"X-Secret": CANARIES["header"]},
        "inbound": inbound,
        "signing_secret": "whsec_" + CANARIES["signing"],
    }
    auth: dict[str, dict[str, Any]] = {
        "bearer": {"type": "bearer", "token": CANARIES["token"]},
        "apikey": {"type": "apikey", "token": CANARIES["apikey"]},
        "basic": {"type": "basic", "username": "u", "password": CANARIES["password"]},
        "oauth": {
            "type": "oauth2",
            "token_url": f"{url}/token",
            "client_id": "c",
            "client_secret": CANARIES["client_secret"],
        },
    }
    for name, spec in auth.items():
        add_service(hub, url, name, auth=spec, **shared)
    add_service(hub, url, "soap", type="soap", auth=auth["basic"], **shared)
    add_service(hub, f"amqp://u:{CANARIES['amqp']}@127.0.0.1:1/", "queue", type="amqp", response_queue="answers")
    for name in (*auth, "soap", "queue"):
        add_rule(hub, f"to-{name}", service=name)


def _everything_dies(hub: Hub) -> None:
    for task in emit(hub, data={"n": 1}):
        for _ in range(5):
            attempt(hub, task)
            due_now(hub)
    for name in ("bearer", "apikey", "basic", "oauth", "soap", "queue"):
        try:
            hub.gateway.check(hub.configuration.service(name))
        except HubError:
            pass
    hub.consume(hub.configuration.service("queue").id)


def _tables(url: str) -> str:
    """The whole database as text, as a backup has it."""
    with psycopg.connect(url) as conn:
        names = [row[0] for row in conn.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
        rows = [conn.execute(f"SELECT t::text FROM {name} t".encode()).fetchall() for name in names]
    return "\n".join(str(row[0]) for table in rows for row in table)


def _pages(hub: Hub, url: str, user: int) -> Iterator[tuple[str, str]]:
    ids = {
        "dead-letters": [row["id"] for row in hub.db.all("SELECT id FROM dead_letters")],
        "deliveries": [row["id"] for row in hub.db.all("SELECT id FROM deliveries")],
    }
    paths = ["/", "/services", "/services/new", "/sources", "/rules", "/queue"]
    paths += ["/dead-letters", "/deliveries", "/schedules", "/access"]
    for name in ("bearer", "apikey", "basic", "oauth", "soap", "queue"):
        paths += [f"/services/{name}", f"/services/{name}/edit", f"/rules/to-{name}", f"/rules/to-{name}/edit"]
    paths += [f"/{part}/{id_}" for part, found in ids.items() for id_ in found]
    cookies = {"hub_session": hub.accounts.sessions.start(user)}
    with clients.Client(base_url=url, cookies=cookies) as browser:
        for path in paths:
            answer = browser.get(path)
            assert answer.status_code in (200, 303), (path, answer.status_code)
            yield path, answer.text
        yield "/metrics", browser.get("/metrics", headers={"Authorization": f"Bearer {CANARIES['metrics']}"}).text
    manage = hub.accounts.tokens.add("looker", "manage")[1]
    with clients.Client(base_url=url, headers={"Authorization": f"Bearer {manage}"}) as api:
        for path in ("services", "rules", "dead-letters", "deliveries", "tasks", "stats"):
            answer = api.get(f"/api/v1/{path}")
            assert answer.status_code == 200, (path, answer.text)
            yield path, answer.text
        for part, found in ids.items():
            for id_ in found:
                yield f"{part}/{id_}", api.get(f"/api/v1/{part}/{id_}").text


def test_no_secret_is_shown_logged_or_stored(
    alone: Settings, logged: io.StringIO, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert alone.database_url is not None
    plain_url = alone.database_url.get_secret_value()
    url = plain_url.replace("hub@", f"hub:{CANARIES['database']}@", 1)  # the test's own server asks for no password
    settings = alone.model_copy(
        update=Settings(
            database_url=url,
            secret_keys=KEY,
            metrics_token=CANARIES["metrics"],
            listen="127.0.0.1:0",
            log_level="DEBUG",
        ).model_dump(exclude_unset=True)
    )
    found: list[str] = []
    with HttpTarget(_echo) as target:
        for form in ("console", "json"):
            _listen(settings.model_copy(update={"log_format": form}), logged, monkeypatch)
            with build(settings, role="up") as hub:
                hub.lease.start()
                if form == "console":
                    _services(hub, target.url)
                    user = hub.accounts.users.add("looker", hash_password("a long password"), "manage")
                _everything_dies(hub) if form == "console" else emit(hub, data={"n": 2})
                for task in hub.db.all("SELECT id FROM tasks"):
                    attempt(hub, task["id"])
                if form == "json":
                    with serving(hub) as api:
                        for path, text in _pages(hub, api.url, user.id):
                            found += leaks(f"page {path}", text)
    assert "attempt failed" in logged.getvalue()
    found += leaks("logs", logged.getvalue())
    assert any(CANARIES["token"] in str(seen.headers) for seen in target.seen), "the service has it, so it was in use"
    found += leaks("the database", _tables(plain_url))
    for file in (settings.home / "metrics").glob("*.db"):
        found += leaks(file.name, file.read_bytes().decode("latin-1"))
    for name, value in {
        "DATABASE_URL": url,
        "SECRET_KEYS": KEY,
        "HOME": str(settings.home),
        "METRICS_TOKEN": CANARIES["metrics"],
        "LOG_LEVEL": "DEBUG",
    }.items():
        monkeypatch.setenv(f"HUB_{name}", value)
    dead = [str(row["id"]) for row in json.loads(_run(["dlq", "list", "--json"]))]
    assert len(dead) == 6
    shows = [["service", "show", "bearer"], ["service", "show", "queue"], ["dlq", "show", dead[0]]]
    for arguments in [*COMMANDS, *shows, ["dlq", "show", dead[-1]], ["service", "test", "basic"]]:
        for options in ([], ["--json"]):
            found += leaks(f"hub {' '.join(arguments)}", _run([*arguments, *options]))
    found += leaks("hub export", _run(["export"]))
    export = _run(["dlq", "export"])
    found += leaks("hub dlq export", export)
    assert not found, sorted(set(found))


def _run(command: list[str]) -> str:
    result = CliRunner().invoke(app, command)
    assert result.exit_code in (0, 1), (command, result.output)
    return str(result.stdout if "--json" in command else result.output)


@pytest.mark.parametrize("name", ["HUB_DATABASE_URL", "HUB_BROKER_URL", "HUB_SECRET_KEYS", "HUB_METRICS_TOKEN"])
@pytest.mark.parametrize("value", ["postgresql://u:{}@127.0.0.1:1/x", "amqp://u:{}@127.0.0.1:1/", "{}", "://{}@@:a"])
def test_a_setting_that_is_wrong_is_named_and_not_shown(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HUB_HOME", str(tmp_path))
    monkeypatch.setenv("HUB_DATABASE_URL", "postgresql://u@127.0.0.1:1/x")
    monkeypatch.setenv(name, value.format(CANARIES["token"]))
    result = CliRunner().invoke(app, ["stats"])
    assert result.exit_code != 0
    assert not leaks("the error", result.output + str(result.exception))


def test_the_broker_sees_ids_only(settings: Settings) -> None:
    """A queue's body holds no event, no address and no secret: whoever reads it learns numbers."""
    with build(settings, role="web") as hub, HttpTarget(_echo) as target:
        _services(hub, target.url)
        emit(hub, data={"n": "canary-of-the-event"})
        assert settings.broker_url is not None
        connection = pika.BlockingConnection(pika.URLParameters(settings.broker_url.get_secret_value()))
        channel = connection.channel()
        bodies: list[str] = []
        while (raw := channel.basic_get(hub.queues["dispatch"], auto_ack=True)[2]) is not None:
            bodies.append(raw.decode())
        connection.close()
    assert bodies
    for body in bodies:
        assert "canary" not in body and "127.0.0.1" not in body and not leaks("a queue", body)
        message = json.loads(body)
        numbers = [*message["args"], *message["kwargs"].get("task_ids", []), message["kwargs"].get("service_id", 0)]
        assert all(isinstance(n, int) for n in numbers)
