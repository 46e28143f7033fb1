"""A response consumer on a database and a broker of the test's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hub.settings import Settings
from hub.store.database import Database
from hub.store.registry import Registry
from hub.store.vault import Vault
from tests.integration.responses.bench import Bench


@pytest.fixture
def bench(settings: Settings, broker_url: str, database_url: str, queue_prefix: str) -> Iterator[Bench]:
    db = Database(database_url, size=8)
    db.open()
    assert settings.secret_keys is not None
    registry = Registry(db, Vault([settings.secret_keys.get_secret_value()]))
    yield Bench(settings, db, broker_url, f"{queue_prefix}.answers", registry)
    registry.configuration.close()
    db.close()
