"""What the monitoring tests share: a database with services in it, and `/metrics` as a person reads it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from hub.store.database import Database

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
