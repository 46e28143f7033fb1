"""Names of libraries that are not public: an upgrade that moves them fails here, with real servers."""

from __future__ import annotations

import json
import os
import queue
import smtplib
from collections import deque
from pathlib import Path
from typing import Any

import dramatiq
import pika
import psycopg
import pytest
from cronsim import CronSimError
from cronsim.cronsim import Field
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from psycopg.conninfo import make_conninfo

from hub.store.database import Database
from hub.tasks.broker import HubBroker
from hub.tasks.dramatiq_internals import (
    RabbitmqConsumer,
    RabbitmqMessage,
    StubConsumer,
    delivery_tag,
    queue_arguments,
    release_resources,
    socket_of,
)
from hub.transports.soap.zeep_internals import call_operation
from tests.support.soap_server import WebServer


def test_the_socket_of_a_pika_connection_is_the_one_to_the_broker(broker_url: str) -> None:
    parameters = pika.URLParameters(broker_url)
    connection = pika.BlockingConnection(parameters)
    sock = socket_of(connection)
    assert sock is not None and sock.getpeername()[1] == parameters.port
    connection.close()
    assert socket_of(connection) is None


def test_releasing_a_pika_connection_closes_its_files(broker_url: str) -> None:
    before = set(os.listdir("/proc/self/fd"))
    connection = pika.BlockingConnection(pika.URLParameters(broker_url))
    sock = socket_of(connection)
    assert sock is not None and set(os.listdir("/proc/self/fd")) - before
    release_resources(connection)
    sock.close()
    assert len(set(os.listdir("/proc/self/fd")) - before) == 0


def test_dramatiqs_consumers_and_messages_are_built_as_expected(broker_url: str) -> None:
    broker = HubBroker(broker_url)
    try:
        broker.declare_queue("internals.q", ensure=True)
        assert isinstance(queue_arguments(broker, "internals.q"), dict)
        message: dramatiq.Message[Any] = dramatiq.Message("internals.q", "a", (), {}, {})
        assert delivery_tag(RabbitmqMessage(False, 7, message)) == 7
        consumer = RabbitmqConsumer(broker, "internals.q", 1, 100)
        assert consumer.known_tags == set() and consumer.connection.is_open and consumer.channel.is_open
        assert next(consumer.iterator) == (None, None, None)
        consumer.close()
    finally:
        broker.close()
    stub = StubConsumer(queue.Queue(), deque(maxlen=0), 1, 10)
    assert next(stub) is None


@pytest.mark.parametrize(("field", "good", "bad"), [(Field.MINUTE, "59", "61"), (Field.DOW, "SUN", "8")])
def test_cronsims_fields_parse_one_field(field: Field, good: str, bad: str) -> None:
    assert field.parse(good)
    with pytest.raises(CronSimError):
        field.parse(bad)


def test_prometheus_clients_value_files_are_written_and_read_as_expected(tmp_path: Path) -> None:
    """`MmapedDict` and its key are not documented; the hub's counters are in these files."""
    path = str(tmp_path / "counter_0.db")
    name = mmap_key("hub_x_total", "hub_x_total", ["service"], ["crm"], "Help.")
    values = MmapedDict(path)
    assert values.read_value(name) == (0.0, 0.0)
    values.write_value(name, 2.5, 0.0)
    values.close()
    ((found, value, _, _),) = MmapedDict.read_all_values_from_file(path)
    assert (found, value) == (name, 2.5)
    assert json.loads(name) == ["hub_x_total", "hub_x_total", {"service": "crm"}, "Help."]


def test_zeep_calls_an_operation_by_its_private_binding() -> None:
    zeep = pytest.importorskip("zeep")
    with WebServer() as server:
        client = zeep.Client(f"{server.url}/wsdl")
        name, service = next(iter(client.wsdl.services.items()))
        port = client.bind(name, next(iter(service.ports)))
        with pytest.raises(TypeError, match="nope"):
            call_operation(client, port, "CreateUser", {"nope": 1})
    assert all(seen.method == "GET" for seen in server.seen)


def test_smtplib_checks_the_certificate_against_its_private_host_name() -> None:
    assert "_host" in smtplib.SMTP.starttls.__code__.co_names


def test_a_database_connection_has_time_limits(database_url: str) -> None:
    database = Database(database_url)
    database.open()
    try:
        with database.pool.connection() as conn:
            limits = {name: shown(conn, name) for name in ("statement_timeout", "lock_timeout")}
            client = conn.info.get_parameters()
    finally:
        database.close()
    assert limits == {"statement_timeout": "5min", "lock_timeout": "30s"}
    assert (client["connect_timeout"], client["tcp_user_timeout"]) == ("5", "8000")


def test_time_limits_in_the_url_win(database_url: str) -> None:
    options = "-c statement_timeout=7s -c lock_timeout=3s"
    database = Database(make_conninfo(database_url, connect_timeout=9, tcp_user_timeout=4000, options=options))
    database.open()
    try:
        with database.pool.connection() as conn:
            limits = {name: shown(conn, name) for name in ("statement_timeout", "lock_timeout")}
            client = conn.info.get_parameters()
    finally:
        database.close()
    assert limits == {"statement_timeout": "7s", "lock_timeout": "3s"}
    assert (client["connect_timeout"], client["tcp_user_timeout"]) == ("9", "4000")


def shown(conn: psycopg.Connection[Any], name: str) -> str:
    row = conn.execute(f"SHOW {name}".encode()).fetchone()
    assert row is not None
    return str(row[0])
