"""Attacks by what is sent, saved or published: the hub of real processes with bounded memory goes on.

The numbers are those of the attacks that were seen to work on an earlier release.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pika
import pytest

from hub.settings import Settings
from hub.store.tokens import Scope
from tests.security.hub_under_attack import UnderAttack, under_attack
from tests.support.clients import Client
from tests.support.fake_broker import FakeBroker
from tests.support.hubs import add_rule, add_service
from tests.support.waiting import eventually

pytestmark = pytest.mark.fault


@pytest.fixture
def attacked(settings: Settings, tmp_path: Path) -> Iterator[UnderAttack]:
    settings = settings.model_copy(update={"tls_dir": tmp_path / "tls"})
    (tmp_path / "tls").mkdir()
    with under_attack(settings, tmp_path) as running:
        yield running


def client(attacked: UnderAttack, scope: Scope) -> Client:
    token = attacked.hub.accounts.tokens.add(scope, scope)[1]
    headers = {"Authorization": f"Bearer {token}"}
    return Client(base_url=attacked.url, headers=headers)


def test_a_viewers_previews_cost_no_memory_and_change_nothing(attacked: UnderAttack) -> None:
    """6 and 7: a template that repeats a large value, and rules whose names look like a route."""
    add_rule(attacked.hub, "preview-users", "other")
    payload = {str(n): "{{event.data}}" for n in range(7_000)}
    event = {"name": "e", "data": {"text": "x" * 300_000}}
    rule = {"name": "x", "event": "e", "service": "crm", "endpoint": "/x", "payload": payload}
    with client(attacked, "view") as viewer, ThreadPoolExecutor(4) as pool:
        sent = [
            pool.submit(viewer.post, "/api/v1/rules/preview", json={"rule": rule, "event": event}) for _ in range(12)
        ]
        attacked.goes_on()
        assert {future.result().status_code for future in sent} <= {200, 413, 422, 503}
        for method, path in (("PATCH", ""), ("DELETE", ""), ("POST", "/disable")):
            changed = viewer.request(method, f"/api/v1/rules/preview-users{path}", json={"event": "*"})
            assert changed.status_code == 403, (method, path)
    assert attacked.hub.configuration.rule("preview-users").event == "other"
    attacked.stays_small()


def test_events_with_long_endpoints_and_nested_json_stop_nothing(attacked: UnderAttack) -> None:
    """8 and 9: values of nearly a megabyte in endpoints, and JSON in strings that many conditions look into."""
    add_rule(attacked.hub, "long", "long", endpoint="/x/{{text}}")
    for n in range(30):
        inside = {f"text.a{n}": 1, f"text.b{n}": {"exists": True}}
        add_rule(attacked.hub, f"deep{n}", "deep", conditions=inside)
    nested = json.dumps([{"a": [[n]]} for n in range(40_000)])
    with client(attacked, "ingest") as source, ThreadPoolExecutor(4) as pool:
        events = [{"name": "long", "data": {"text": f"{n:03}" + "y" * 960_000}} for n in range(40)]
        events += [{"name": "deep", "data": {"n": n, "text": nested}} for n in range(20)]
        sent = [pool.submit(source.post, "/api/v1/events", json=event) for event in events]
        attacked.goes_on()
        assert {future.result().status_code for future in sent} <= {202, 503}
    refused = "SELECT count(*) AS n FROM deliveries WHERE outcome = 'invalid_payload'"
    eventually(lambda: (attacked.hub.db.one(refused) or {"n": 0})["n"] > 0, "an attempt that is refused")
    attacked.goes_on()


def test_forged_messages_stop_no_deliveries(attacked: UnderAttack) -> None:
    """10: messages in the dispatch queue that the hub did not make."""
    queue = attacked.hub.queues["dispatch"]
    url = str(attacked.hub.settings.broker_url.get_secret_value()) if attacked.hub.settings.broker_url else ""
    made = {"queue_name": queue, "actor_name": "dispatch_event_task", "args": [], "options": {}, "message_id": "m"}
    forged = [
        made | {"kwargs": {"task_ids": [1, 2]}, "message_timestamp": 1},
        made | {"kwargs": ["a"], "message_timestamp": 1},
        made | {"kwargs": {}, "args": ["x", "y"], "message_timestamp": 1},
        made | {"kwargs": {}, "actor_name": "nobody", "message_timestamp": 1},
    ]
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        for body in [*(json.dumps(message).encode() for message in forged), b"\x00\xff", b"[]", b"x" * 1_000_000]:
            channel.basic_publish("", queue, body)
    attacked.goes_on()


def test_services_that_attack_the_hub_stop_no_others(attacked: UnderAttack, tmp_path: Path) -> None:
    """11 and 12: a broker that announces a message of 2^40 bytes, and a FIFO in place of a CA file."""
    os.mkfifo(tmp_path / "tls" / "ca.pem")
    secure = attacked.target.url.replace("http://", "https://")
    add_service(attacked.hub, secure, "fifo", ca_file="ca.pem")
    add_rule(attacked.hub, "to-fifo", "fifo", "fifo")
    with FakeBroker(1 << 40) as broker:
        bus = add_service(attacked.hub, broker.url, "bus", type="amqp", response_queue="q", timeout=30)
        for _ in range(3):
            attacked.hub.broker.publish(attacked.hub.actors.consume.message(bus.id))
        with client(attacked, "ingest") as source:
            for n in range(20):
                sent = source.post("/api/v1/events", json={"name": "fifo", "data": {"n": n}})
                assert sent.status_code == 202
        runs = "SELECT count(*) AS n FROM task_runs WHERE service = 'bus' AND ended_at IS NOT NULL"
        eventually(lambda: (attacked.hub.db.one(runs) or {"n": 0})["n"] > 0, "a run over the queue")
        attacked.goes_on()
    attacked.stays_small()
