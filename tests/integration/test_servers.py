"""The test servers themselves: what every other integration test stands on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pika
import psycopg
import pytest

from hub.settings import Settings
from tests.support.databases import PostgresServer
from tests.support.processes import mentioning
from tests.support.rabbit import RabbitNode
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]


def test_each_test_has_a_migrated_database_and_a_broker(settings: Settings) -> None:
    """Names and queues of one test must not be another's."""
    assert settings.database_url and settings.broker_url
    with psycopg.connect(settings.database_url.get_secret_value()) as conn:
        assert conn.execute("SELECT count(*) FROM services").fetchone() == (0,)
    connection = pika.BlockingConnection(pika.URLParameters(settings.broker_url.get_secret_value()))
    connection.channel().queue_declare(settings.queue_prefix, auto_delete=True)
    connection.close()


@pytest.mark.fault
def test_a_restarted_rabbitmq_keeps_durable_messages(rabbitmq: RabbitNode) -> None:
    """Fault tests restart the broker under a running hub; the node must be the same one afterwards."""
    url = rabbitmq.new_vhost()
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.confirm_delivery()
    channel.queue_declare("kept", durable=True)
    channel.basic_publish("", "kept", b"x", pika.BasicProperties(delivery_mode=2))
    connection.close()
    rabbitmq.restart()
    connection = pika.BlockingConnection(pika.URLParameters(url))
    assert connection.channel().basic_get("kept", auto_ack=True)[2] == b"x"
    connection.close()


@pytest.mark.fault
def test_a_restarted_postgresql_keeps_its_data_and_url(postgres: PostgresServer) -> None:
    """The same for the database, stopped and killed."""
    url = postgres.url
    with psycopg.connect(url) as conn:
        conn.execute("CREATE TABLE kept AS SELECT 1 AS i")
    postgres.restart()
    assert postgres.url == url
    postgres.kill()

    def answers() -> bool:
        try:
            with psycopg.connect(url) as conn:
                return conn.execute("SELECT i FROM kept").fetchone() == (1,)
        except psycopg.OperationalError:
            return False

    eventually(answers)


@pytest.mark.fault
def test_a_killed_test_run_leaves_no_server(tmp_path: Path) -> None:
    """CI kills runs that take too long; the next one must find the machine clean."""
    code = (
        "import os, time; from tests.support.rabbit import RabbitNode;"
        "from tests.support.databases import PostgresServer;"
        "n = RabbitNode(); n.start(); p = PostgresServer(); p.start();"
        "print(n.folder, p.folder, flush=True); time.sleep(600)"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True
    )
    assert run.stdout
    folders = [Path(word) for word in run.stdout.readline().split()]
    assert mentioning(folders[0]) and mentioning(folders[1])
    os.kill(run.pid, signal.SIGKILL)
    run.communicate()
    eventually(lambda: not any(map(mentioning, folders)))
    assert not folders[0].exists()
    shutil.rmtree(folders[1])  # the next run would have done it
