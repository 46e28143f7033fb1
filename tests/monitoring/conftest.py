"""What the monitoring tests share: a database with services in it, and `/metrics` as a person reads it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from hub.settings import Settings
from hub.store.database import Database
from tests.conftest import GIVEN_BROKER, remove_queues
from tests.support.databases import Template
from tests.support.rabbit import RabbitNode

if TYPE_CHECKING:
    from tests.monitoring.story import Deployment

KEY = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]

SERVICES = """
INSERT INTO services (name, type, base_url, response_queue, enabled) VALUES
    ('crm', 'rest', 'http://127.0.0.1:1', NULL, true),
    ('lms', 'amqp', 'amqp://127.0.0.1:1', 'answers', true),
    ('old', 'rest', 'http://127.0.0.1:1', NULL, false);
INSERT INTO rules (name, event, service_id) SELECT 'to-' || name, '*', id FROM services;
INSERT INTO rules (name, event, service_id, enabled) SELECT 'off-' || name, '*', id, false FROM services;
"""


def parse(text: bytes | str) -> Samples:
    """Samples of an exposition by name and labels."""
    text = text if isinstance(text, str) else text.decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for metric in text_string_to_metric_families(text)
        for sample in metric.samples
    }


def of(samples: Samples, name: str, **labels: str) -> float | None:
    """One sample's value, None when it is absent."""
    return samples.get((name, frozenset(labels.items())))


def names(samples: Samples) -> set[str]:
    """Which sample names there are."""
    return {name for name, _ in samples}


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    """The test's database, open, with three services and their rules."""
    database = Database(database_url, size=4, timeout=5)
    database.open()
    with database.transaction() as conn:
        conn.execute(SERVICES)
    yield database
    database.close()


@pytest.fixture(scope="package")
def lived(
    database_template: Template, broker_node: RabbitNode | None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Deployment, str]]:
    """A deployed hub that has been through `Deployment.live`, and what `/metrics` showed right after."""
    from tests.monitoring.story import deployment

    name, url = database_template.clone()
    settings = Settings(
        database_url=url,
        broker_url=broker_node.new_vhost() if broker_node else GIVEN_BROKER,
        secret_keys=KEY,
        queue_prefix=f"t{uuid.uuid4().hex[:10]}",
        home=tmp_path_factory.mktemp("home"),
        worker_lease="3s",
        retry_delays="0.1,0.1,0.1,0.1",
        republish_after="1s",
    )
    with deployment(settings, tmp_path_factory.mktemp("site"), "worker", "web", "exporter") as it:
        it.services()
        it.live()
        yield it, it.site.metrics()
    remove_queues(settings.queue_prefix)
    database_template.drop(name)
