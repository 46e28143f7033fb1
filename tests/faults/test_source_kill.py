"""Processes that read a Moodle source are killed with SIGKILL, and the site's server is restarted under them."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.app.lifecycle import Hub, build
from hub.settings import Settings
from tests.support.databases import Template
from tests.support.hubs import add_rule, add_service, add_source
from tests.support.mariadb import MISSING, MariaDbServer, installed
from tests.support.moodle_site import Connection, MoodleSite, log_row, make_site
from tests.support.waiting import eventually

pytestmark = [pytest.mark.fault, pytest.mark.skipif(not installed(), reason=MISSING)]
_READER = (
    "import time; from hub.app.lifecycle import build; from hub.settings import load_settings;"
    " hub = build(load_settings(), role='scheduler'); hub.start_sources(); print('reads', flush=True); time.sleep(600)"
)
_KILLS = 3


@pytest.fixture
def server() -> Iterator[MariaDbServer]:
    server = MariaDbServer()
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
def hub(database_url: str, tmp_path: Path) -> Iterator[Hub]:
    settings = Settings(
        database_url=database_url, home=tmp_path, secret_keys="MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
    )
    with build(settings, role="cli") as hub:
        add_service(hub, "http://127.0.0.1:9")
        add_rule(hub, event="*")
        yield hub


class Readers:
    """Two processes at a time that read the source."""

    def __init__(self, hub: Hub) -> None:
        assert hub.settings.database_url and hub.settings.secret_keys
        self._hub = hub
        self._env = {
            "HUB_DATABASE_URL": hub.settings.database_url.get_secret_value(),
            "HUB_SECRET_KEYS": hub.settings.secret_keys.get_secret_value(),
            "HUB_HOME": str(hub.settings.home),
            "PATH": "/usr/bin:/bin",
        }
        self._running = [self._start(), self._start()]

    def _start(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", _READER], env=self._env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert process.stdout is not None and process.stdout.readline() == "reads\n"
        return process

    def kill_one(self) -> None:
        """SIGKILL the one that holds the lease, and start another one; nobody waits for the lease to end."""
        row = self._hub.db.one("SELECT split_part(owner, ':', 2)::int AS pid FROM source_positions")
        victim = next((p for p in self._running if row and p.pid == row["pid"]), self._running[0])
        self._end(victim)
        self._hub.db.run("UPDATE source_positions SET lease_until = now()")
        self._running.append(self._start())

    def close(self) -> None:
        """End all."""
        for process in list(self._running):
            self._end(process)

    def _end(self, process: subprocess.Popen[str]) -> None:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
        self._running.remove(process)


def _write(site: MoodleSite, stop: threading.Event, rolled_back: list[int]) -> None:
    """Requests that overlap: each takes its ids, and ends in any order after others have begun; some roll back."""
    rnd = random.Random(7)
    requests: list[tuple[Connection, list[int]]] = []
    while not stop.is_set() or requests:
        if not stop.is_set():
            request = site.transaction()
            requests.append((request, site.insert([log_row() for _ in range(rnd.randint(1, 5))], request)))
        if len(requests) > 4 or stop.is_set():
            conn, ids = requests.pop(rnd.randrange(len(requests)))
            if rnd.random() < 0.2:
                conn.rollback()
                rolled_back += ids
            else:
                conn.commit()
            conn.close()
        stop.wait(0.01)


def test_killed_readers_miss_nothing_and_repeat_nothing(
    hub: Hub, server: MariaDbServer, database_template: Template
) -> None:
    site = make_site("mariadb", server, database_template)
    add_source(hub, site.url, start=0, poll_interval=0.05, batch=10)
    stop, rolled_back = threading.Event(), list[int]()
    writer = threading.Thread(target=_write, args=(site, stop, rolled_back))
    readers = Readers(hub)
    writer.start()
    try:
        for kill in range(_KILLS):
            eventually(lambda kill=kill: len(_read(hub)) > 15 * (kill + 1), "rows in the ledger")  # type: ignore[misc]
            readers.kill_one()
    finally:
        stop.set()
        writer.join()
    try:
        wanted = [id_ for (id_,) in site.run("SELECT id FROM mdl_logstore_standard_log ORDER BY id")]
        eventually(lambda: len(_read(hub)) >= len(wanted), "every row in the ledger")
        assert sorted(_read(hub)) == wanted
        assert rolled_back and not set(rolled_back) & set(wanted)
    finally:
        readers.close()
        site.close()


def test_reading_goes_on_after_the_sites_server_restarted(
    hub: Hub, server: MariaDbServer, database_template: Template
) -> None:
    site = make_site("mariadb", server, database_template)
    hub.start_sources()
    add_source(hub, site.url, start=0, poll_interval=0.05, query_timeout=1)
    site.insert([log_row() for _ in range(5)])
    eventually(lambda: len(_read(hub)) == 5, "five rows")
    server.stop()
    eventually(lambda: hub.db.one("SELECT errors FROM source_positions WHERE errors > 0"), "a failed look")
    server.start()
    site.reconnect()
    site.insert([log_row() for _ in range(3)])
    eventually(lambda: len(_read(hub)) == 8, "three rows more")
    site.close()


def _read(hub: Hub) -> list[int]:
    return [int(row["uid"].split(":")[1]) for row in hub.db.all("SELECT uid FROM events")]
