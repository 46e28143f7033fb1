"""The same task in Celery 5: `celery -A tests.bench.celery_app worker`."""

from __future__ import annotations

import json
import os
import threading

import requests
from celery import Celery
from psycopg_pool import ConnectionPool

from tests.bench.job import INSERT

URL, DATABASE = os.environ["BENCH_TARGET"], os.environ["BENCH_DATABASE"]
app = Celery("bench", broker=os.environ["BENCH_BROKER"])
app.conf.update(
    task_acks_late=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=int(os.environ.get("BENCH_PREFETCH", "16")),
    task_default_queue="celery_bench",
    worker_send_task_events=False,
    broker_connection_retry_on_startup=True,
)
_made: dict[int, ConnectionPool] = {}
_lock = threading.Lock()
local = threading.local()


def pool() -> ConnectionPool:
    """This process's pool; made after a fork, not before."""
    found = _made.get(os.getpid())
    if found is None:
        with _lock:
            found = _made.get(os.getpid()) or ConnectionPool(DATABASE, min_size=1, max_size=16, open=True)
            _made[os.getpid()] = found
    return found


def session() -> requests.Session:
    """This thread's session."""
    if getattr(local, "pid", None) != os.getpid():
        local.session, local.pid = requests.Session(), os.getpid()
    found: requests.Session = local.session
    return found


@app.task(name="deliver")  # type: ignore[untyped-decorator]
def deliver(number: int, body: dict[str, object]) -> None:
    """Post the event, write a row."""
    data = json.dumps(body)
    answer = session().post(URL, data=data, headers={"Content-Type": "application/json"}, timeout=5)
    with pool().connection() as conn:
        conn.execute(INSERT, [number, "crm", answer.status_code, answer.elapsed.total_seconds() * 1000, data])
