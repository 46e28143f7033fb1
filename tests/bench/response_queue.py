"""How fast a response queue is drained, beside a bare pika consumer with the same batches and one COPY per batch.

Run `python -m tests.bench.response_queue [MESSAGES] [ROUNDS]`: private servers on loopback, the two by turns,
the median of the rounds' ratios. At least 60 % is wanted.
"""

from __future__ import annotations

import json
import logging
import statistics
import sys
import time
from collections.abc import Callable

import pika
import psycopg
import structlog
from cryptography.fernet import Fernet

from hub.config.definitions import ServiceSpec, parse_spec
from hub.hooks import Hooks
from hub.inbound.consumer import ResponseConsumer
from hub.inbound.events import wanted_by
from hub.settings import Settings
from hub.store.database import Database
from hub.store.registry import Registry
from hub.store.responses import Responses
from hub.store.run_log import RunLog
from hub.store.schedules import Schedules
from hub.store.vault import Vault
from tests.support.databases import PostgresServer, Template
from tests.support.rabbit import RabbitNode

BODY = json.dumps({"status": "ok", "id": 12345, "user": {"name": "Müller", "mail": "a@example.org"}, "items": [1, 2]})
BATCH = 500
# The least that a consumer must keep.
COPY = "COPY deliveries (direction, service, success, outcome, endpoint, response_body) FROM STDIN"


def fill(url: str, count: int) -> None:
    """Put `count` answers into the queue."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.queue_declare("q", durable=True)
        for i in range(count):
            properties = pika.BasicProperties(
                message_id=f"m{i}", correlation_id=str(i), content_type="application/json", delivery_mode=2
            )
            channel.basic_publish("", "q", BODY.encode(), properties)
        while channel.queue_declare("q", passive=True).method.message_count < count:
            connection.process_data_events(time_limit=0.05)


def bare(broker: str, database: str, count: int) -> None:
    """The yardstick."""
    with pika.BlockingConnection(pika.URLParameters(broker)) as connection, psycopg.connect(database) as pg:
        channel, waiting, done = connection.channel(), [], 0
        channel.basic_qos(prefetch_count=2 * BATCH)
        channel.basic_consume("q", lambda _, m, p, b: waiting.append((m.delivery_tag, p.correlation_id, b)))
        while done < count:
            connection.process_data_events(time_limit=1)
            while len(waiting) >= BATCH or (waiting and done + len(waiting) >= count):
                batch, waiting[:] = waiting[:BATCH], waiting[BATCH:]
                with pg.cursor() as cur, cur.copy(COPY) as copy:
                    for _, correlation, body in batch:
                        copy.write_row(("inbound", "erp", True, "success", correlation, body.decode()))
                pg.commit()
                channel.basic_ack(batch[-1][0], multiple=True)
                done += len(batch)


def main() -> None:
    count, rounds = (int(word) for word in [*sys.argv[1:], "20000", "5"][:2])
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    postgres, rabbit = PostgresServer(durable=True), RabbitNode()
    try:
        postgres.start()
        rabbit.start()
        url = Template(postgres.url).clone()[1]
        db = Database(url)
        db.open()
        registry = Registry(db, Vault([Fernet.generate_key().decode()]))
        spec = {"name": "erp", "type": "amqp", "base_url": rabbit.url, "response_queue": "q"}
        service = registry.services.add(parse_spec(ServiceSpec, spec))
        consumer = ResponseConsumer(
            Responses(db),
            RunLog(db),
            Schedules(db, claimed_by="bench"),
            Settings(consumer_batch=BATCH),
            Hooks(),
            wanted=lambda: wanted_by(registry.configuration.rules()),
        )

        def rate(drain: Callable[[], object]) -> float:
            fill(rabbit.url, count)
            db.run("TRUNCATE deliveries")
            start = time.perf_counter()
            drain()
            return count / (time.perf_counter() - start)

        ratios = []
        for _ in range(rounds):
            yardstick = rate(lambda: bare(rabbit.url, url, count))
            ours = rate(lambda: consumer.consume(service))
            ratios.append(ours / yardstick)
            print(f"bare {yardstick:,.0f}/s   hub {ours:,.0f}/s   {ratios[-1]:.0%}", flush=True)
        print(f"median {statistics.median(ratios):.0%}")
        db.close()
    finally:
        rabbit.close()
        postgres.close()


if __name__ == "__main__":
    main()
