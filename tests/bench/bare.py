"""The yardstick: a bare Dramatiq actor that posts and writes one row. `dramatiq tests.bench.bare:broker`.

At its best without becoming something else: a session per thread, pooled connections to PostgreSQL, a prefetch
that keeps the threads busy. No rules, no retries, no breaker, no idempotency, no metrics, no ledger.
"""

from __future__ import annotations

import json
import os
import threading

import dramatiq
import requests
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from psycopg_pool import ConnectionPool
from requests.adapters import HTTPAdapter

from tests.bench.job import INSERT

URL, DATABASE = os.environ["BENCH_TARGET"], os.environ["BENCH_DATABASE"]
broker = RabbitmqBroker(url=os.environ["BENCH_BROKER"])
dramatiq.set_broker(broker)
pool = ConnectionPool(DATABASE, min_size=1, max_size=16, open=False)
local = threading.local()


def session() -> requests.Session:
    """This thread's session."""
    if not hasattr(local, "session"):
        local.session = requests.Session()
        local.session.mount("http://", HTTPAdapter(pool_maxsize=4))
    found: requests.Session = local.session
    return found


@dramatiq.actor(queue_name="bare", broker=broker)
def deliver(number: int, body: dict[str, object]) -> None:
    """Post the event, write a row."""
    pool.open()
    data = json.dumps(body)
    answer = session().post(URL, data=data, headers={"Content-Type": "application/json"}, timeout=5)
    with pool.connection() as conn:
        conn.execute(INSERT, [number, "crm", answer.status_code, answer.elapsed.total_seconds() * 1000, data])
