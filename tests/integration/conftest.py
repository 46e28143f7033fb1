"""Hubs of one process for tests of the core: real PostgreSQL, Dramatiq's in-process broker, nothing started."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.app.lifecycle import Hub, build
from hub.settings import Settings
from tests.support.api import Api, serving
from tests.support.databases import Template
from tests.support.http_target import HttpTarget
from tests.support.mariadb import MISSING, MariaDbServer, installed
from tests.support.moodle_site import MoodleSite, make_site


@pytest.fixture(autouse=True)
def tls_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Certificates that tests make in their folder are where services may name them."""
    monkeypatch.setenv("HUB_TLS_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def alone(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings of a hub that runs in one process on the test's database."""
    return Settings(
        database_url=database_url,
        home=tmp_path_factory.mktemp("home"),
        secret_keys="MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
        retry_delays="0.2,0.3,0.4,0.5",
        worker_lease="30s",
        republish_after="1s",
        threads=4,
    )


@pytest.fixture
def hub(alone: Settings) -> Iterator[Hub]:
    """A hub whose lease is held, and of which nothing else runs: the test is the worker and the relay."""
    with build(alone, role="up") as hub:
        hub.lease.start()
        yield hub


@pytest.fixture
def target() -> Iterator[HttpTarget]:
    with HttpTarget() as target:
        yield target


@pytest.fixture
def api(alone: Settings) -> Iterator[Api]:
    """A hub with its web server on a free port; no worker runs."""
    with build(alone.model_copy(update={"listen": "127.0.0.1:0"}), role="up") as hub, serving(hub) as api:
        yield api


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDbServer]:
    """The session's private MariaDB."""
    if not installed():
        pytest.skip(MISSING)
    server = MariaDbServer()
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture(params=["mariadb", "postgresql"])
def moodle(request: pytest.FixtureRequest, database_template: Template) -> Iterator[MoodleSite]:
    """A Moodle database of the test's own, once on MariaDB and once on PostgreSQL."""
    server = request.getfixturevalue("mariadb") if request.param == "mariadb" else None
    site = make_site(request.param, server, database_template)
    yield site
    site.close()


@pytest.fixture
def moodle_pg(database_template: Template) -> Iterator[MoodleSite]:
    """A Moodle database of the test's own on PostgreSQL, for tests in which the kind makes no difference."""
    site = make_site("postgresql", None, database_template)
    yield site
    site.close()
