"""Attacks on a hub of real processes with 512 MB and 1,024 file descriptors each: it goes on while they are held.

Each test holds an attack, looks whether everything goes on (`UnderAttack.goes_on`), and only then lets go.
"""

from __future__ import annotations

import resource
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from hub.settings import Settings
from tests.security.hub_under_attack import PATIENCE, UnderAttack, under_attack
from tests.support import clients

pytestmark = pytest.mark.fault


@pytest.fixture
def attacked(settings: Settings, tmp_path: Path) -> Iterator[UnderAttack]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # the attacker holds more than the usual limit
    try:
        with under_attack(settings, tmp_path) as running:
            yield running
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def held(attacked: UnderAttack, count: int, first: bytes = b"") -> Iterator[list[socket.socket]]:
    """So many connections that have sent `first` and say nothing more."""
    place = urlsplit(attacked.url)
    with ExitStack() as stack:
        opened = []
        for _ in range(count):
            connection = stack.enter_context(socket.create_connection((place.hostname, place.port or 80), PATIENCE))
            try:
                connection.sendall(first)
            except OSError:  # refused already
                pass
            opened.append(connection)
        yield opened


def _begun(path: str, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", "Content-Type: application/json", "Content-Length: 1000000", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n{" + b" " * 10_000


def test_slow_bodies_keep_nobody_out(attacked: UnderAttack) -> None:
    ingest = "Authorization: Bearer " + attacked.hub.accounts.tokens.add("slow", "ingest")[1]
    signed = _begun("/webhook/crm", "webhook-id: 1", "webhook-timestamp: 1", "webhook-signature: v1,x")
    with (
        held(attacked, 100, signed),
        held(attacked, 100, _begun("/api/v1/events")),
        held(attacked, 200, _begun("/api/v1/events", ingest)),
    ):
        attacked.goes_on()


def test_silent_connections_keep_nobody_out(attacked: UnderAttack) -> None:
    """More of them than the process may have file descriptors."""
    with held(attacked, 600), held(attacked, 500, b"GET /healthz HTTP/1.1\r\nHost: "):
        attacked.goes_on()


def test_heavy_json_of_strangers_costs_no_memory(attacked: UnderAttack) -> None:
    body = b'{"eventname": "e", "other": [' + b"[]," * 330_000 + b'[]], "token": "hub_unknown"}'

    def send(_: int) -> int:
        headers = {"Content-Type": "application/json"}
        url = f"{attacked.url}/api/v1/events"
        return clients.post(url, content=body, headers=headers).status_code

    with ThreadPoolExecutor(16) as pool:
        sent = [pool.submit(send, n) for n in range(100)]
        attacked.goes_on()
        assert {future.result() for future in sent} <= {401, 429, 503}
    attacked.stays_small()


def test_log_ins_of_strangers_cost_no_memory(attacked: UnderAttack) -> None:
    """Each hash of a password takes tens of megabytes; names may be of any length."""

    def send(n: int) -> int:
        path, form = (
            ("/login", {"name": "x" * 500_000, "password": f"p{n}"})
            if n % 2
            else (f"/login/link/{n}", {"name": f"n{n}", "password": f"password {n}"})
        )
        return clients.post(attacked.url + path, data=form).status_code

    with ThreadPoolExecutor(32) as pool:
        sent = [pool.submit(send, n) for n in range(100)]
        attacked.goes_on()
        assert all(400 <= future.result() < 600 and future.result() != 500 for future in sent)
    attacked.stays_small()
