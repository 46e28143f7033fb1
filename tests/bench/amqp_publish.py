"""How fast many threads publish to one AMQP service, and how many connections and channels they use.

Run `python -m tests.bench.amqp_publish [MESSAGES] [THREADS]`: a private RabbitMQ on loopback, confirms on.
"""

from __future__ import annotations

import sys
import threading
import time

from hub.models import Request, Service, ServiceType
from hub.settings import Settings
from hub.transports.amqp.transport import AmqpTransport
from hub.transports.base import Deadline
from tests.support.rabbit import RabbitNode

BODY = '{"id": 12345, "user": {"name": "A. Learner", "mail": "a@example.org"}, "items": [1, 2, 3]}'


def main(messages: int = 10_000, threads: int = 64) -> None:
    """Print one line: messages per second, connections, channels."""
    rabbit = RabbitNode()
    rabbit.start()
    transport = AmqpTransport(Settings())
    try:
        bus = Service(1, "bus", ServiceType.AMQP, f"{rabbit.url}?queue_declare=bench")
        transport.send(bus, Request(body=BODY), Deadline(10))
        errors: list[Exception] = []

        def work() -> None:
            try:
                for i in range(messages // threads):
                    transport.send(bus, Request(body=BODY, idempotency_key=str(i)), Deadline(10))
            except Exception as e:
                errors.append(e)

        workers = [threading.Thread(target=work) for _ in range(threads)]
        started = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        rate = messages // threads * threads / (time.perf_counter() - started)
        connections = rabbit.ctl("list_connections", "--no-table-headers", "channels").split()
        sys.stdout.write(
            f"{threads} threads: {rate:,.0f} messages/s, {len(connections)} connections,"
            f" {sum(map(int, connections))} channels, {len(errors)} errors\n"
        )
    finally:
        transport.close()
        rabbit.close()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]))
