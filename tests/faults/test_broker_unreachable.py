"""Acceptance while RabbitMQ is unreachable without a reset: packets are swallowed, or the server is paused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from pydantic import SecretStr

from hub.app.lifecycle import Hub, build
from hub.settings import Settings
from hub.web.server import WebServer
from tests.support import clients
from tests.support.http_target import HttpTarget
from tests.support.hubs import add_rule, add_service, count
from tests.support.processes import below
from tests.support.proxy import Proxy
from tests.support.rabbit import RabbitNode
from tests.support.waiting import eventually
from tests.support.workers import environment, workers

pytestmark = pytest.mark.fault
PATIENCE = 8.0  # seconds a client waits; less than any time limit towards the broker
_ROOT = Path(__file__).parents[2]


def _through(settings: Settings, url: str, port: int) -> Settings:
    parts = urlsplit(url)
    return settings.model_copy(
        update={
            "broker_url": SecretStr(f"amqp://guest:guest@127.0.0.1:{port}{parts.path or '/'}"),
            "listen": "127.0.0.1:0",
        }
    )


@contextmanager
def _web(settings: Settings, target: HttpTarget) -> Iterator[tuple[Hub, clients.Client]]:
    """A web server in this process, with one rule, and a client that may post events."""
    with build(settings, role="web") as hub:
        add_service(hub, target.url)
        add_rule(hub)
        _, token = hub.accounts.tokens.add("t", "ingest")
        with (
            WebServer(hub) as server,
            clients.Client(
                base_url=server.url, headers={"Authorization": f"Bearer {token}"}, timeout=PATIENCE
            ) as client,
        ):
            yield hub, client


def _post(client: clients.Client, first: int, events: int) -> None:
    """Events from 8 clients at once; each is answered within its patience."""

    def post(n: int) -> int:
        return client.post("/api/v1/events", json={"name": "e", "data": {"n": n}, "id": f"k-{n}"}).status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(post, range(first, first + events))) == {202}


def _delivered(target: HttpTarget, events: int) -> None:
    eventually(lambda: len({seen.json()["n"] for seen in target.seen}) == events, what=f"{events} deliveries")


def test_swallowed_packets_do_not_hold_acceptance(settings: Settings, broker_url: str, target: HttpTarget) -> None:
    address = urlsplit(broker_url)
    with Proxy((str(address.hostname), int(address.port or 0))) as proxy:
        through = _through(settings, broker_url, proxy.port)
        with _web(through, target) as (hub, client):
            _post(client, 0, 8)  # connections to the broker are open
            proxy.swallow()
            _post(client, 8, 60)
            assert count(hub, "tasks") == 68
            with workers(through):
                proxy.restore()
                _delivered(target, 68)


def test_a_paused_server_does_not_hold_acceptance(settings: Settings, rabbitmq: RabbitNode, target: HttpTarget) -> None:
    through = _through(settings, rabbitmq.url, rabbitmq.port)
    with _web(through, target) as (hub, client):
        _post(client, 0, 8)
        with _paused(rabbitmq):
            _post(client, 8, 60)
            assert count(hub, "tasks") == 68
        with workers(through):
            _delivered(target, 68)


@contextmanager
def _paused(node: RabbitNode) -> Iterator[None]:
    servers = [pid for pid in below(node.pid) if pid != node.pid]
    for pid in servers:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in servers:
            os.kill(pid, signal.SIGCONT)


_ACCEPT = """
import os, signal, sys
from hub.app.lifecycle import build
from hub.models import Event
from hub.settings import load_settings
hub = build(load_settings(), role="web")
{body}
"""


def _run(settings: Settings, body: str, *, returncode: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-c", _ACCEPT.format(body=body)],
        env=environment(settings),
        cwd=_ROOT,
        timeout=240,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == returncode, done.stderr[-3000:]
    return done.stdout


def test_killed_before_the_enqueue_nothing_is_lost(settings: Settings, broker_url: str, target: HttpTarget) -> None:
    address = urlsplit(broker_url)
    with Proxy((str(address.hostname), int(address.port or 0))) as proxy:
        through = _through(settings, broker_url, proxy.port)
        with build(settings) as hub:
            add_service(hub, target.url)
            add_rule(hub)
            proxy.swallow()
            _run(
                through,
                """
for n in range(40):
    hub.intake.handle_event(Event("e", {"n": n}))
os.kill(os.getpid(), signal.SIGKILL)
""",
                returncode=-signal.SIGKILL,
            )
            assert count(hub, "tasks") == 40 and count(hub, "queued") > 0
        proxy.restore()
        with workers(through):
            _delivered(target, 40)


def test_memory_is_bounded_without_a_broker(settings: Settings, broker_url: str, target: HttpTarget) -> None:
    """100,000 accepted events wait in the ledger, not in the memory of who accepted them."""
    address = urlsplit(broker_url)
    with Proxy((str(address.hostname), int(address.port or 0))) as proxy:
        proxy.swallow()
        with build(settings) as hub:
            add_service(hub, target.url)
            add_rule(hub)
            out = _run(
                _through(settings, broker_url, proxy.port),
                """
import pathlib, re
def rss():
    return int(re.search("VmRSS:\\\\s+(\\\\d+)", pathlib.Path("/proc/self/status").read_text())[1])
most, begin = 0, 0
for batch in range(100):
    hub.intake.handle_events([Event("e", {"n": n}) for n in range(batch * 1000, batch * 1000 + 1000)])
    most = max(most, hub.enqueuer.waiting)
    begin = begin or rss() * (batch >= 10)
end = rss()
hub.close()
print(most, end - begin)
""",
            )
            waiting, growth = map(int, out.splitlines()[-1].split())
            assert count(hub, "tasks") == 100_000 and count(hub, "queued") == 0
            assert waiting <= 10_000 and growth < 30_000, f"{waiting} tasks waited, {growth} kB more than at 10,000"
