"""The AMQP transport with a RabbitMQ of its own: alarms, restarts, users."""

from __future__ import annotations

import threading
from urllib.parse import quote

import pytest

from hub.errors import (
    AuthenticationError,
    ConnectError,
    TimedOutError,
)
from hub.transports.amqp.transport import AmqpTransport
from hub.transports.base import Deadline
from tests.integration.amqp.sends import PATIENCE, REQUEST, service
from tests.support.rabbit import RabbitNode
from tests.support.waiting import eventually


def test_many_threads_share_one_connection(rabbitmq: RabbitNode, transport: AmqpTransport) -> None:
    """What counts is what the broker has open: a connection costs it far more than a channel."""
    bus = service(f"{rabbitmq.url}?queue_declare=shared")
    errors: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(20):
                transport.send(bus, REQUEST, Deadline(PATIENCE))
        except BaseException as e:
            errors.append(e)

    threads = [threading.Thread(target=work) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    channels = rabbitmq.ctl("list_connections", "--no-table-headers", "channels").split()
    assert len(channels) == 1 and 1 <= int(channels[0]) <= 32
    assert "holds 640 messages" in transport.check(bus, Deadline(PATIENCE))


def test_user_password_and_vhost_are_decoded_and_hosts_need_no_dot(
    rabbitmq: RabbitNode, transport: AmqpTransport
) -> None:
    """The broker itself says whether what was decoded is what was meant."""
    user, password, vhost = "us er@x", "p:a/s%s#w?örd", "v/host ü"
    rabbitmq.ctl("add_user", user, password)
    rabbitmq.ctl("add_vhost", vhost)
    rabbitmq.ctl("set_permissions", "-p", vhost, user, ".*", ".*", "^$")
    encoded = [quote(part, safe="") for part in (user, password, vhost)]
    for host in ("localhost", "127.0.0.1"):
        url = f"amqp://{encoded[0]}:{encoded[1]}@{host}:{rabbitmq.port}/{encoded[2]}?queue_declare=q"
        transport.send(service(url), REQUEST, Deadline(PATIENCE))
        stored = f"amqp://{encoded[0]}@{host}:{rabbitmq.port}/{encoded[2]}?queue_declare=q"
        transport.send(service(stored, version=2, secrets={"password": password}), REQUEST, Deadline(PATIENCE))
    with pytest.raises(AuthenticationError) as caught:
        transport.send(service(stored, version=3, secrets={"password": "hunter22"}), REQUEST, Deadline(PATIENCE))
    assert "refused the login" in str(caught.value) and "hunter22" not in str(caught.value)
    rabbitmq.ctl("set_permissions", "-p", vhost, user, "^$", "^$", "^$")
    with pytest.raises(AuthenticationError, match="ACCESS_REFUSED"):
        transport.send(service(stored, version=4, secrets={"password": password}), REQUEST, Deadline(PATIENCE))


@pytest.mark.fault
def test_a_memory_alarm_is_a_timeout_and_passes(rabbitmq: RabbitNode, transport: AmqpTransport) -> None:
    """A broker that blocks publishers takes the message and confirms nothing: without a deadline a worker hangs."""
    bus = service(f"{rabbitmq.url}?queue_declare=q")
    transport.send(bus, REQUEST, Deadline(PATIENCE))
    rabbitmq.ctl("set_vm_memory_high_watermark", "0.0000001")

    def refused() -> TimedOutError | None:
        try:
            transport.send(bus, REQUEST, Deadline(1))
        except TimedOutError as e:
            return e
        return None

    try:
        error = eventually(refused, "the alarm, which is raised a moment after the command")
        assert error and "blocks publishers" in str(error) and error.counts_against_breaker
        with pytest.raises(TimedOutError):
            transport.send(bus, REQUEST, Deadline(1))
    finally:
        rabbitmq.ctl("set_vm_memory_high_watermark", "absolute", "1GB")
    transport.send(bus, REQUEST, Deadline(PATIENCE))


@pytest.mark.fault
def test_a_restarted_broker_costs_no_failure(rabbitmq: RabbitNode, transport: AmqpTransport) -> None:
    bus = service(f"{rabbitmq.url}?queue_declare=q")
    transport.send(bus, REQUEST, Deadline(PATIENCE))
    rabbitmq.stop()
    with pytest.raises(ConnectError):
        transport.send(bus, REQUEST, Deadline(PATIENCE))
    rabbitmq.start()
    transport.send(bus, REQUEST, Deadline(PATIENCE))
    assert "holds 2 messages" in transport.check(bus, Deadline(PATIENCE))
