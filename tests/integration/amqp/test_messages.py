"""What the AMQP transport publishes, declares and reports."""

from __future__ import annotations

import time

import pytest
from pika.adapters.blocking_connection import BlockingChannel as Channel

from hub.errors import (
    AuthenticationError,
    ConnectError,
    InvalidPayloadError,
    TimedOutError,
    UnroutableError,
)
from hub.models import Request
from hub.transports.amqp.transport import AmqpTransport
from hub.transports.base import Deadline
from tests.integration.amqp.sends import PATIENCE, REQUEST, service, target
from tests.support.proxy import Proxy, unused_port
from tests.support.waiting import eventually


def test_a_message_carries_everything_an_answer_needs(
    transport: AmqpTransport, broker_url: str, channel: Channel, queue: str
) -> None:
    """Consumers deduplicate by message_id and answer to reply_to with correlation_id."""
    bus = service(f"{broker_url}?queue_declare={queue}", response_queue="answers", options={"headers": {"tenant": "x"}})
    before = int(time.time())
    assert transport.send(bus, REQUEST, Deadline(PATIENCE)).status is None
    _, properties, body = channel.basic_get(queue, auto_ack=True)
    assert body == '{"a":"é"}'.encode()
    assert properties is not None
    assert properties.content_type == "application/json"
    assert properties.delivery_mode == 2
    assert properties.message_id == "key-1"
    assert properties.correlation_id == "7"
    assert properties.reply_to == "answers"
    assert properties.app_id == "integration-hub"
    assert properties.timestamp >= before
    assert properties.headers == {"x-hub-event": "\\core\\event\\x", "x-hub-task": 7, "tenant": "x"}


def test_queue_and_dead_letter_queue_are_declared_durable_and_tied(
    transport: AmqpTransport, broker_url: str, channel: Channel, queue: str, queue_prefix: str
) -> None:
    """What a consumer rejects must not vanish."""
    dead = f"{queue_prefix}.dead"
    transport.send(service(f"{broker_url}?queue_declare={queue}&dlq={dead}"), REQUEST, Deadline(PATIENCE))
    channel.queue_declare(dead, durable=True)  # a mismatch would close the channel
    tag, _, _ = channel.basic_get(queue)
    assert tag is not None
    channel.basic_reject(tag.delivery_tag, requeue=False)
    assert eventually(lambda: channel.basic_get(dead, auto_ack=True)[2], "the message") == '{"a":"é"}'.encode()


def test_an_exchange_routes_by_the_endpoint(
    transport: AmqpTransport, broker_url: str, channel: Channel, queue: str
) -> None:
    exchange = f"{queue}.x"
    channel.exchange_declare(exchange, "topic")
    channel.queue_declare(queue, durable=True)
    channel.queue_bind(queue, exchange, "orders.*")
    bus = service(f"{broker_url}?exchange={exchange}&routing_key=nobody")
    transport.send(bus, Request(endpoint="orders.new", body="1"), Deadline(PATIENCE))
    assert channel.basic_get(queue, auto_ack=True)[2] == b"1"
    with pytest.raises(UnroutableError, match=r"nobody.*NO_ROUTE"):
        transport.send(bus, REQUEST, Deadline(PATIENCE))
    transport.send(bus, Request(endpoint="orders.new", body="2"), Deadline(PATIENCE))
    channel.exchange_delete(exchange)
    with pytest.raises(UnroutableError, match="no exchange"):
        transport.send(bus, Request(endpoint="orders.new", body="3"), Deadline(PATIENCE))


def test_a_full_queue_refuses_with_a_nack(
    transport: AmqpTransport, broker_url: str, channel: Channel, queue: str
) -> None:
    channel.queue_declare(queue, durable=True, arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    bus = service(f"{broker_url}?routing_key={queue}")
    transport.send(bus, REQUEST, Deadline(PATIENCE))
    with pytest.raises(UnroutableError, match="nack"):
        transport.send(bus, REQUEST, Deadline(PATIENCE))


def test_a_queue_that_exists_otherwise_is_an_error_with_its_reason(
    transport: AmqpTransport, broker_url: str, channel: Channel, queue: str
) -> None:
    channel.queue_declare(queue, durable=False, exclusive=False, auto_delete=False)
    bus = service(f"{broker_url}?queue_declare={queue}")
    for _ in range(2):
        with pytest.raises(UnroutableError, match="PRECONDITION_FAILED"):
            transport.send(bus, REQUEST, Deadline(PATIENCE))
    channel.queue_delete(queue)
    transport.send(bus, REQUEST, Deadline(PATIENCE))


def test_a_queue_that_was_deleted_meanwhile_is_declared_again(
    transport: AmqpTransport, broker_url: str, channel: Channel, queue: str
) -> None:
    bus = service(f"{broker_url}?queue_declare={queue}")
    transport.send(bus, REQUEST, Deadline(PATIENCE))
    channel.queue_delete(queue)
    transport.send(bus, REQUEST, Deadline(PATIENCE))
    assert channel.basic_get(queue, auto_ack=True)[2]


def test_without_a_routing_key_nothing_is_sent(transport: AmqpTransport, broker_url: str) -> None:
    with pytest.raises(InvalidPayloadError, match="routing key"):
        transport.send(service(broker_url), REQUEST, Deadline(PATIENCE))
    with pytest.raises(InvalidPayloadError, match="255"):
        transport.send(service(broker_url), Request(endpoint="k" * 256), Deadline(PATIENCE))
    with pytest.raises(InvalidPayloadError, match="unknown parameter"):
        transport.send(service(f"{broker_url}?q=x"), REQUEST, Deadline(PATIENCE))


def test_a_response_queue_exists_before_the_first_message_leaves(
    transport: AmqpTransport, broker_url: str, channel: Channel, queue: str
) -> None:
    """A consumer may answer to `reply_to` at once; what it sends to a queue that does not exist is lost."""
    answers = f"{queue}.answers"
    transport.send(service(f"{broker_url}?queue_declare={queue}", response_queue=answers), REQUEST, Deadline(PATIENCE))
    channel.queue_declare(answers, durable=True)  # a mismatch, or a missing queue, would close the channel
    channel.queue_delete(answers)
    assert transport.declare_responses(
        service(f"{broker_url}?queue_declare={queue}", response_queue=answers), Deadline(PATIENCE)
    )
    assert channel.queue_declare(answers, passive=True).method.message_count == 0
    assert not transport.declare_responses(
        service(f"{broker_url}?queue_declare={queue}", response_queue=answers), Deadline(PATIENCE)
    )
    channel.queue_delete(answers)


def test_a_return_of_the_hubs_own_message_is_not_held(transport: AmqpTransport, broker_url: str) -> None:
    """An unroutable message comes back whole; only its header is of use."""
    with pytest.raises(UnroutableError, match="NO_ROUTE"):
        transport.send(service(f"{broker_url}?routing_key=nobody"), Request(body="x" * 3_000_000), Deadline(PATIENCE))


def test_check_says_what_it_saw_and_declares_nothing(
    transport: AmqpTransport, broker_url: str, channel: Channel, queue: str
) -> None:
    bus = service(f"{broker_url}?queue_declare={queue}")
    assert "does not exist yet" in transport.check(bus, Deadline(PATIENCE))
    transport.send(bus, REQUEST, Deadline(PATIENCE))
    assert "holds 1 messages" in transport.check(bus, Deadline(PATIENCE))
    assert "logged in" in transport.check(service(broker_url, id=2), Deadline(PATIENCE))


def test_wrong_names_are_told_apart(transport: AmqpTransport, broker_url: str) -> None:
    """Host, port, login and vhost fail with different words: a person must know what to correct."""
    host, port = target(broker_url)
    with pytest.raises(AuthenticationError, match="vhost") as caught:
        transport.send(
            service(f"amqp://guest:guest@{host}:{port}/no-such-vhost?routing_key=x"), REQUEST, Deadline(PATIENCE)
        )
    assert not caught.value.retriable and not caught.value.counts_against_breaker
    with pytest.raises(ConnectError, match=r"no address for nowhere\.invalid"):
        transport.send(service("amqp://nowhere.invalid?routing_key=x"), REQUEST, Deadline(PATIENCE))
    with pytest.raises(ConnectError, match="refused"):
        transport.send(service(f"amqp://127.0.0.1:{unused_port()}?routing_key=x"), REQUEST, Deadline(PATIENCE))
    with pytest.raises(TimedOutError), Proxy((host, port)) as proxy:
        proxy.hold()
        transport.send(service(f"amqps://127.0.0.1:{proxy.port}?routing_key=x"), REQUEST, Deadline(0.5))
