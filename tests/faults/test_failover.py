"""Fail-over of PostgreSQL: a standby is promoted while events arrive; the hub continues on it without a restart."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from hub.app.lifecycle import Hub, build
from hub.errors import UnavailableError
from hub.settings import Settings
from hub.store.database import Database
from hub.store.migrate import migrate
from hub.web.server import WebServer
from tests.support import clients
from tests.support.http_target import HttpTarget
from tests.support.hubs import add_rule, add_service
from tests.support.replication import Pair
from tests.support.waiting import eventually
from tests.support.workers import workers

pytestmark = pytest.mark.fault
_EVENTS = 12  # accepted before and after the fail-over


@pytest.fixture
def pair() -> Iterator[Pair]:
    with Pair() as pair:
        database = Database(pair.url)
        migrate(database)
        database.close()
        yield pair


@contextmanager
def running(pair: Pair, broker_url: str, prefix: str, home: Path, target: HttpTarget) -> Iterator[Hub]:
    """A web process (this one) and a worker process on the pair."""
    settings = Settings(
        database_url=pair.url,
        broker_url=broker_url,
        queue_prefix=prefix,
        home=home,
        secret_keys="MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
        retry_delays="0.5,0.5,0.5,0.5",
        worker_lease="10s",
        republish_after="2s",
        listen="127.0.0.1:0",
    )
    with build(settings, role="web") as hub:
        add_service(hub, target.url)
        add_rule(hub)
        hub.configuration.listen()
        hub.start_heartbeat("web")
        with workers(settings, threads=2):
            yield hub


class Sender:
    """Posts events one after another until it is stopped; knows which were accepted, and when."""

    def __init__(self, url: str, token: str) -> None:
        self.accepted: dict[int, float] = {}
        self._stop = threading.Event()
        self._url, self._token = url, token
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Sender:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)

    def _run(self) -> None:
        headers = {"Authorization": f"Bearer {self._token}"}
        number = 0
        while not self._stop.is_set():
            number += 1
            event = {"name": "e", "data": {"n": number}, "id": f"k-{number}"}
            while not self._stop.is_set():  # the same event again, as a client does
                try:
                    response = clients.post(f"{self._url}/api/v1/events", json=event, headers=headers, timeout=30)
                except httpx.HTTPError:
                    continue
                if response.status_code == 202:
                    self.accepted[number] = time.monotonic()
                    break
                self._stop.wait(0.2)
            self._stop.wait(0.05)


def _killed(pair: Pair) -> None:
    pair.primary.kill()


def _paused(pair: Pair) -> None:
    pair.primary.pause()


@pytest.mark.parametrize("leave", [_killed, _paused], ids=["killed", "paused without a reset"])
def test_after_a_synchronous_fail_over_nothing_is_lost_and_no_sixth_attempt_is_made(
    pair: Pair, broker_url: str, queue_prefix: str, tmp_path: Path, leave: Callable[[Pair], None]
) -> None:
    with HttpTarget() as target, running(pair, broker_url, queue_prefix, tmp_path, target) as hub:
        _, token = hub.accounts.tokens.add("t", "ingest")
        with WebServer(hub) as server, Sender(server.url, token) as sender:
            eventually(lambda: len(delivered(target)) >= _EVENTS, what="events are delivered")
            leave(pair)
            pair.fail_over()
            promoted = time.monotonic()
            before = len(sender.accepted)
            eventually(lambda: len(sender.accepted) >= before + _EVENTS, what="events are accepted again")
        first = min(at for at in sender.accepted.values() if at > promoted) - promoted
        eventually(lambda: delivered(target) >= set(sender.accepted), what="all accepted events are delivered")
        resumed = min(seen.at for seen in target.seen if seen.at > promoted) - promoted
        print(f"first 202 {first:.1f} s and first delivery {resumed:.1f} s after the promotion")
        attempts = Counter(seen.json()["n"] for seen in target.seen)
        assert max(attempts.values()) <= 5


def test_an_old_primary_that_still_accepts_writes_is_left(
    pair: Pair, broker_url: str, queue_prefix: str, tmp_path: Path
) -> None:
    pair.primary.execute("ALTER SYSTEM RESET synchronous_standby_names")  # it accepts writes without its standby
    pair.primary.execute("SELECT pg_reload_conf()")
    with HttpTarget() as target, running(pair, broker_url, queue_prefix, tmp_path, target) as hub:
        _, token = hub.accounts.tokens.add("t", "ingest")
        with WebServer(hub) as server, Sender(server.url, token) as sender:
            eventually(lambda: len(delivered(target)) >= _EVENTS, what="events are delivered")
            pair.fail_over()
            port = str(pair.standby.port)
            eventually(lambda: hub.db.servers.stale == {("127.0.0.1", str(pair.primary.port))}, what="it is recognised")
            eventually(lambda: used_port(hub) == port, what="the pool uses the new primary")
            left = len(sender.accepted)
            eventually(lambda: len(sender.accepted) >= left + _EVENTS, what="events are accepted on the new primary")
        late = {n for n, _ in sorted(sender.accepted.items())[left:]}
        eventually(lambda: delivered(target) >= late, what="they are delivered")
        assert pair.primary.execute("SELECT pg_is_in_recovery()") == [(False,)]


def used_port(hub: Hub) -> str | None:
    """The port of the server that a pooled connection leads to; None while its connection is being replaced."""
    try:
        row = hub.db.one("SHOW port")
    except UnavailableError:
        return None
    return str(row["port"]) if row else None


def delivered(target: HttpTarget) -> set[int]:
    return {seen.json()["n"] for seen in target.seen}
