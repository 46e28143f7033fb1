"""Real servers for every test: given ones (`HUB_TEST_DATABASE_URL`, `HUB_TEST_BROKER_URL`), else private ones.

A test asks for `database_url`, `broker_url` or `settings` and gets a migrated database and an empty
vhost of its own. Fault tests ask for `postgres` or `rabbitmq`: servers that only they use, and may stop.
"""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pika
import pytest

from hub.settings import Settings
from tests.support.databases import PostgresServer, Template
from tests.support.rabbit import RabbitNode

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in the background: what we start must hear Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)
GIVEN_DATABASE = os.environ.get("HUB_TEST_DATABASE_URL")
GIVEN_BROKER = os.environ.get("HUB_TEST_BROKER_URL")
for _name in [n for n in os.environ if n.startswith("HUB_") and not n.startswith("HUB_TEST_")]:
    del os.environ[_name]  # a developer's own hub must not colour the tests


@pytest.fixture(scope="session")
def database_template() -> Iterator[Template]:
    """The migrated database that others are cloned from, and the server it lives on."""
    if GIVEN_DATABASE:
        template = Template(GIVEN_DATABASE)
        yield template
        template.drop()
        return
    server = PostgresServer()
    try:
        server.start()
        yield Template(server.url)
    finally:
        server.close()


@pytest.fixture
def database_url(database_template: Template) -> Iterator[str]:
    """A migrated database that only this test sees."""
    name, url = database_template.clone()
    yield url
    database_template.drop(name)


@pytest.fixture
def empty_database_url(database_template: Template) -> Iterator[str]:
    """A database without tables that only this test sees."""
    name, url = database_template.empty()
    yield url
    database_template.drop(name)


@pytest.fixture(scope="session")
def broker_node() -> Iterator[RabbitNode | None]:
    """The session's private RabbitMQ, or None when a broker was given."""
    if GIVEN_BROKER:
        yield None
        return
    node = _started(RabbitNode)
    yield node
    node.close()


@pytest.fixture
def broker_url(broker_node: RabbitNode | None) -> str:
    """An empty vhost; with a given broker its one vhost, so name queues after `queue_prefix`."""
    return broker_node.new_vhost() if broker_node else str(GIVEN_BROKER)


@pytest.fixture
def queue_prefix() -> Iterator[str]:
    """A prefix for queue names that no other test has; the hub's queues of it are removed from a given broker."""
    prefix = f"t{uuid.uuid4().hex[:10]}"
    yield prefix
    remove_queues(prefix)


def remove_queues(prefix: str) -> None:
    """Take the queues of a prefix off a given broker; a private one ends with the session."""
    if GIVEN_BROKER:
        connection = pika.BlockingConnection(pika.URLParameters(GIVEN_BROKER))
        channel = connection.channel()
        for kind in ("", ".dispatch", ".consume", ".tick", ".answers", ".courses"):
            for suffix in ("", ".DQ", ".XQ"):
                channel.queue_delete(prefix + kind + suffix)
        connection.close()


@pytest.fixture
def settings(database_url: str, broker_url: str, queue_prefix: str, tmp_path: Path) -> Settings:
    """Distributed mode on the test's own servers, with delays short enough to wait for."""
    return Settings(
        database_url=database_url,
        broker_url=broker_url,
        queue_prefix=queue_prefix,
        home=tmp_path / "home",
        secret_keys="MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
        retry_delays="0.2,0.3,0.4,0.5",
        worker_lease="3s",
        republish_after="1s",
        processes=1,
        threads=4,
    )


@pytest.fixture
def hub_env(settings: Settings) -> dict[str, str]:
    """The environment that gives a `hub` or `dramatiq` process the same settings."""
    keep = {name: value for name, value in os.environ.items() if not name.startswith("HUB_")}
    for name in settings.model_fields_set:
        value = getattr(settings, name)
        text = value.get_secret_value() if hasattr(value, "get_secret_value") else value
        keep[f"HUB_{name.upper()}"] = ",".join(map(str, text)) if isinstance(text, tuple) else str(text)
    return keep


@pytest.fixture
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server of the test's own, to stop, kill and restart. Not migrated."""
    server = PostgresServer(durable=True)
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
def rabbitmq() -> Iterator[RabbitNode]:
    """A RabbitMQ node of the test's own, to stop, kill and restart."""
    node = _started(RabbitNode)
    yield node
    node.close()


def _started(make: type[RabbitNode]) -> RabbitNode:
    try:
        node = make()
        node.start()
    except RuntimeError as e:
        pytest.fail(str(e), pytrace=False)
    return node
