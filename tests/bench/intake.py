"""Rows of what comes in: events (file, API) beside COPY and publishing; response queues beside bare pika."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pika
import psycopg
import urllib3

from hub.config.definitions import ServiceSpec, parse_spec
from tests.bench import response_queue
from tests.bench.job import event
from tests.bench.rig import Rig, wait_for
from tests.bench.row import Numbers, Row, Scale
from tests.bench.systems import HubSystem, batched
from tests.support.rabbit import free_ports

_HUB = [sys.executable, "-c", "from hub.cli import main; main()"]
_CONFIRMED_AT_A_TIME = 100


def rows() -> Iterator[Row]:
    """All of them."""
    yield Row("ingest_ndjson", "hub emit FILE.ndjson, its start included, no worker", ndjson, rounds=3)
    yield Row("ingest_api_batch", "POST /api/v1/events, 100 a request, 4 connections", api_batch, rounds=2)
    yield Row("ingest_copy", "the same lines by COPY, a commit per 500", copy, rounds=3)
    yield Row("ingest_publishing", "the same lines to RabbitMQ, confirmed by the hundred", publishing, rounds=3)
    yield Row("consumer", "a response queue drained: parsed, stored, acknowledged", consumer, rounds=1)
    yield Row("consumer_bare_pika", "bare pika, the same batches, COPY", bare_consumer, rounds=1)


def _lines(count: int) -> list[str]:
    return [json.dumps(event(number), separators=(",", ":")) for number in range(count)]


def ndjson(rig: Rig, scale: Scale) -> Numbers:
    """As people do it."""
    system = HubSystem(rig, rig.fast)
    try:
        path = rig.folder / "events.ndjson"
        path.write_text("\n".join(_lines(scale.ingest)) + "\n")
        begun = time.perf_counter()
        process = rig.start([*_HUB, "emit", str(path)], system.env())
        if process.wait(timeout=120):
            raise RuntimeError(rig.output())
        return {"per_second": scale.ingest / (time.perf_counter() - begun)}
    finally:
        system.close()


def api_batch(rig: Rig, scale: Scale) -> Numbers:
    """Whole batches."""
    bodies = [f"[{','.join(batch)}]" for batch in batched(_lines(scale.ingest), 100)]
    return {"per_second": scale.ingest / _post(rig, bodies, connections=4)}


def _post(rig: Rig, bodies: list[str], connections: int) -> float:
    """Seconds that a web process takes for all of these requests."""
    port = free_ports(1)[0]
    system = HubSystem(rig, rig.fast, listen=f"127.0.0.1:{port}", token_rate=1e6)
    try:
        token = system.hub.accounts.tokens.add("bench", "ingest")[1]
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        url = f"http://127.0.0.1:{port}"
        pool = urllib3.PoolManager(maxsize=connections)
        with rig.running([[*_HUB, "web"]], system.env()):
            wait_for(lambda: _answers(pool, url), 30, "the web server")
            waiting, failed = iter(bodies), []
            lock = threading.Lock()

            def send() -> None:
                while True:
                    with lock:
                        body = next(waiting, None)
                    if body is None:
                        return
                    answer = pool.request("POST", f"{url}/api/v1/events", body=body, headers=headers)
                    if answer.status != 202:
                        failed.append(f"HTTP {answer.status}: {answer.data[:200]!r}")
                        return

            threads = [threading.Thread(target=send) for _ in range(connections)]
            begun = time.perf_counter()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            took = time.perf_counter() - begun
            if failed:
                raise RuntimeError(failed[0])
            return took
    finally:
        system.close()


def _answers(pool: urllib3.PoolManager, url: str) -> bool:
    try:
        return pool.request("GET", f"{url}/healthz", retries=False).status == 200
    except urllib3.exceptions.HTTPError:
        return False


def copy(rig: Rig, scale: Scale) -> Numbers:
    """The least that keeping events can cost."""
    lines = _lines(scale.ingest)
    with psycopg.connect(rig.database()) as conn:
        conn.execute("CREATE TABLE kept (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, data text NOT NULL)")
        conn.commit()
        begun = time.perf_counter()
        for batch in batched(lines, 500):
            with conn.cursor() as cur, cur.copy("COPY kept (data) FROM STDIN") as into:
                for line in batch:
                    into.write_row((line,))
            conn.commit()
        return {"per_second": scale.ingest / (time.perf_counter() - begun)}


def publishing(rig: Rig, scale: Scale) -> Numbers:
    """The least that queueing events can cost: confirms are awaited by the hundred."""
    lines = _lines(scale.ingest)
    with pika.BlockingConnection(pika.URLParameters(rig.broker())) as connection:
        channel = connection.channel()
        channel.queue_declare("events", durable=True)
        confirmed = 0

        def on_confirm(frame: pika.frame.Method[Any]) -> None:
            nonlocal confirmed
            confirmed = frame.method.delivery_tag

        channel._impl.confirm_delivery(ack_nack_callback=on_confirm)  # the blocking one waits for each
        sent = 0
        begun = time.perf_counter()
        for batch in batched(lines, _CONFIRMED_AT_A_TIME):
            for line in batch:
                channel.basic_publish("", "events", line.encode(), pika.BasicProperties(delivery_mode=2))
            sent += len(batch)
            while confirmed < sent:
                connection.process_data_events(time_limit=0.001)
        return {"per_second": scale.ingest / (time.perf_counter() - begun)}


def consumer(rig: Rig, scale: Scale) -> Numbers:
    """The hub's run over a response queue."""
    system = HubSystem(rig, rig.fast, consumer_run_time=600)
    try:
        spec = {"name": "erp", "type": "amqp", "base_url": system.broker, "response_queue": "q"}
        service = system.hub.registry.services.add(parse_spec(ServiceSpec, spec))
        response_queue.fill(system.broker, scale.messages)
        begun = time.perf_counter()
        system.hub.consumer.consume(service)
        return {"per_second": scale.messages / (time.perf_counter() - begun)}
    finally:
        system.close()


def bare_consumer(rig: Rig, scale: Scale) -> Numbers:
    """Bare pika."""
    url, broker = rig.database(), rig.broker()
    response_queue.fill(broker, scale.messages)
    begun = time.perf_counter()
    response_queue.bare(broker, url, scale.messages)
    return {"per_second": scale.messages / (time.perf_counter() - begun)}
