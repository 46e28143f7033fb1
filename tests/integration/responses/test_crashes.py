"""What cannot be stored is not acknowledged; what was stored is not repeated."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import pika
import pytest

from hub.errors import UnavailableError
from hub.scheduling.schedule import CONSUME
from hub.store.database import Connection
from hub.store.views import Views
from tests.integration.responses.bench import Bench


def test_a_storage_failure_acknowledges_nothing(bench: Bench) -> None:
    """What cannot be stored stays with the broker."""
    erp = bench.service()
    bench.publish("1", "2", "3")

    def emit(*_: Any) -> Callable[[], None]:
        raise UnavailableError("the database does not respond")

    with pytest.raises(UnavailableError):
        bench.consumer(emit).consume(erp)
    assert bench.bodies() == []
    assert bench.hooks.runs == [("erp", "error")]
    assert bench.consumer().consume(erp).stored == 3


def test_a_database_that_goes_away_in_mid_run_loses_nothing(bench: Bench) -> None:
    """The session of the run is cut off between two batches: the rest stays in the queue, and comes once."""
    erp = bench.service()
    bench.publish(*map(str, range(60)), message_id="m")
    calls = []

    def emit(conn: Connection, *_: Any) -> Callable[[], None]:
        calls.append(1)
        if len(calls) == 3:
            bench.db.run("SELECT pg_terminate_backend(%s)", [conn.info.backend_pid])
        return lambda: None

    with pytest.raises(UnavailableError):
        bench.consumer(emit, consumer_batch=10).consume(erp)
    assert bench.bodies() == [str(i) for i in range(20)]
    bench.consumer().consume(erp)
    assert bench.bodies() == [str(i) for i in range(60)]


_KILLED = """
import os, signal, sys
from hub.config.definitions import ServiceSpec
from hub.hooks import Hooks
from hub.inbound.consumer import ResponseConsumer
from hub.settings import Settings
from hub.store.database import Database
from hub.store.registry import Registry
from hub.store.responses import Responses
from hub.store.run_log import RunLog
from hub.store.schedules import Schedules
from hub.store.vault import Vault
from hub.transports.amqp.response_queue import ResponseQueue

settings = Settings()
db = Database(settings.database_url.get_secret_value())
db.open()
erp = Registry(db, Vault([settings.secret_keys.get_secret_value()])).configuration.service("erp")
seen = []

def killed(self, batch):
    seen.append(batch)
    if len(seen) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    acknowledge(self, batch)

acknowledge = ResponseQueue.acknowledge
ResponseQueue.acknowledge = killed
ResponseConsumer(Responses(db), RunLog(db), Schedules(db, claimed_by="k"), settings, Hooks()).consume(erp)
"""


@pytest.mark.fault
def test_killed_between_commit_and_acknowledgement_loses_nothing_and_repeats_nothing(
    bench: Bench, hub_env: dict[str, str]
) -> None:
    """The broker sends the committed batch again; by their ids the messages are known. The lost run is shown."""
    erp = bench.service()
    bench.send([(str(i), pika.BasicProperties(message_id=f"m{i}")) for i in range(100)])
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_KILLED)],
        env={**hub_env, "HUB_CONSUMER_BATCH": "20"},
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert process.returncode == -signal.SIGKILL, process.stderr.decode()
    assert len(bench.rows()) == 40
    result = bench.consumer().consume(erp)
    assert (result.outcome, result.repeated, result.stored) == ("ok", 20, 60)
    assert bench.bodies() == [str(i) for i in range(100)]
    assert bench.left() == 0
    assert [run["result"] for run in Views(bench.db).runs.scheduled(name=CONSUME)] == ["ok", "lost"]
