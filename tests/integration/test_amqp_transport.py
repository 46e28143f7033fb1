"""The AMQP transport on a real RabbitMQ: what reaches the queue, and what becomes of connections."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel as Channel

from hub.errors import (
    AuthenticationError,
    ConfigError,
    ConnectError,
    EgressRefusedError,
    InvalidPayloadError,
    TimedOutError,
    UnroutableError,
)
from hub.models import Request, Service, ServiceType
from hub.settings import Settings
from hub.transports.amqp.connection import connect
from hub.transports.amqp.transport import AmqpTransport
from hub.transports.base import Deadline
from tests.support.certificates import Authority
from tests.support.proxy import Proxy, unused_port
from tests.support.rabbit import RabbitNode
from tests.support.waiting import eventually

REQUEST = Request(body='{"a":"é"}', idempotency_key="key-1", task_id=7, event_name="\\core\\event\\x")


@pytest.fixture
def transport() -> Iterator[AmqpTransport]:
    made = AmqpTransport(Settings())
    yield made
    made.close()


@pytest.fixture
def channel(broker_url: str) -> Iterator[Channel]:
    """A second pair of eyes on the broker."""
    connection = pika.BlockingConnection(pika.URLParameters(broker_url))
    yield connection.channel()
    connection.close()


@pytest.fixture
def queue(channel: Channel, queue_prefix: str) -> Iterator[str]:
    yield f"{queue_prefix}.q"
    for name in (f"{queue_prefix}.q", f"{queue_prefix}.dead"):
        channel.connection.channel().queue_delete(name)


def service(url: str, **changes: object) -> Service:
    fields: dict[str, object] = {"id": 1, "name": "bus", "type": ServiceType.AMQP, "base_url": url, **changes}
    return Service(**fields)  # type: ignore[arg-type]


def through(proxy: Proxy, broker_url: str, query: str = "", scheme: str = "amqp") -> str:
    parts = urlsplit(broker_url)
    return f"{scheme}://{parts.username}:{parts.password}@127.0.0.1:{proxy.port}{parts.path}{query}"


def target(broker_url: str) -> tuple[str, int]:
    parts = urlsplit(broker_url)
    return str(parts.hostname), parts.port or 5672


def test_a_message_carries_everything_an_answer_needs(
    transport: AmqpTransport, broker_url: str, channel: Channel, queue: str
) -> None:
    """Consumers deduplicate by message_id and answer to reply_to with correlation_id."""
    bus = service(f"{broker_url}?queue_declare={queue}", response_queue="answers", options={"headers": {"tenant": "x"}})
    before = int(time.time())
    assert transport.send(bus, REQUEST, Deadline(5)).status is None
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
    transport.send(service(f"{broker_url}?queue_declare={queue}&dlq={dead}"), REQUEST, Deadline(5))
    channel.queue_declare(dead, durable=True)  # a mismatch would close the channel
    tag, _, _ = channel.basic_get(queue)
    assert tag is not None
    channel.basic_reject(tag.delivery_tag, requeue=False)
    found = None
    for _ in range(100):
        if (found := channel.basic_get(dead, auto_ack=True))[0]:
            break
        channel.connection.process_data_events(0.05)
    assert found and found[2] == '{"a":"é"}'.encode()


def test_an_exchange_routes_by_the_endpoint(
    transport: AmqpTransport, broker_url: str, channel: Channel, queue: str
) -> None:
    exchange = f"{queue}.x"
    channel.exchange_declare(exchange, "topic")
    channel.queue_declare(queue, durable=True)
    channel.queue_bind(queue, exchange, "orders.*")
    bus = service(f"{broker_url}?exchange={exchange}&routing_key=nobody")
    transport.send(bus, Request(endpoint="orders.new", body="1"), Deadline(5))
    assert channel.basic_get(queue, auto_ack=True)[2] == b"1"
    with pytest.raises(UnroutableError, match=r"nobody.*NO_ROUTE"):
        transport.send(bus, REQUEST, Deadline(5))
    transport.send(bus, Request(endpoint="orders.new", body="2"), Deadline(5))
    channel.exchange_delete(exchange)
    with pytest.raises(UnroutableError, match="no exchange"):
        transport.send(bus, Request(endpoint="orders.new", body="3"), Deadline(5))


def test_a_full_queue_refuses_with_a_nack(
    transport: AmqpTransport, broker_url: str, channel: Channel, queue: str
) -> None:
    channel.queue_declare(queue, durable=True, arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    bus = service(f"{broker_url}?routing_key={queue}")
    transport.send(bus, REQUEST, Deadline(5))
    with pytest.raises(UnroutableError, match="nack"):
        transport.send(bus, REQUEST, Deadline(5))


def test_a_queue_that_exists_otherwise_is_an_error_with_its_reason(
    transport: AmqpTransport, broker_url: str, channel: Channel, queue: str
) -> None:
    channel.queue_declare(queue, durable=False, exclusive=False, auto_delete=False)
    bus = service(f"{broker_url}?queue_declare={queue}")
    for _ in range(2):
        with pytest.raises(UnroutableError, match="PRECONDITION_FAILED"):
            transport.send(bus, REQUEST, Deadline(5))
    channel.queue_delete(queue)
    transport.send(bus, REQUEST, Deadline(5))


def test_a_queue_that_was_deleted_meanwhile_is_declared_again(
    transport: AmqpTransport, broker_url: str, channel: Channel, queue: str
) -> None:
    bus = service(f"{broker_url}?queue_declare={queue}")
    transport.send(bus, REQUEST, Deadline(5))
    channel.queue_delete(queue)
    transport.send(bus, REQUEST, Deadline(5))
    assert channel.basic_get(queue, auto_ack=True)[2]


def test_without_a_routing_key_nothing_is_sent(transport: AmqpTransport, broker_url: str) -> None:
    with pytest.raises(InvalidPayloadError, match="routing key"):
        transport.send(service(broker_url), REQUEST, Deadline(5))
    with pytest.raises(InvalidPayloadError, match="255"):
        transport.send(service(broker_url), Request(endpoint="k" * 256), Deadline(5))
    with pytest.raises(InvalidPayloadError, match="unknown parameter"):
        transport.send(service(f"{broker_url}?q=x"), REQUEST, Deadline(5))


def test_one_connection_serves_many_sends_and_an_edit_opens_another(
    transport: AmqpTransport, broker_url: str, queue: str
) -> None:
    """A connection per message costs ten times the message; an edited password must count at once."""
    with Proxy(target(broker_url)) as proxy:
        url = through(proxy, broker_url, f"?queue_declare={queue}")
        for _ in range(5):
            transport.send(service(url), REQUEST, Deadline(5))
        assert proxy.accepted == 1
        transport.send(service(url, version=2), REQUEST, Deadline(5))
        assert proxy.accepted == 2
        with pytest.raises(AuthenticationError):
            transport.send(service(url, version=3, secrets={"password": "changed-and-wrong"}), REQUEST, Deadline(5))


def test_a_connection_cut_while_idle_is_no_failure(
    transport: AmqpTransport, broker_url: str, channel: Channel, queue: str
) -> None:
    """A broker restarted at night must not cost the first morning event an attempt."""
    with Proxy(target(broker_url)) as proxy:
        bus = service(through(proxy, broker_url, f"?queue_declare={queue}"))
        for count in range(1, 4):
            transport.send(bus, REQUEST, Deadline(5))
            assert proxy.accepted == count
            proxy.cut()
    assert channel.queue_declare(queue, passive=True).method.message_count == 3


def test_heartbeats_are_answered_while_a_connection_is_idle(
    transport: AmqpTransport, broker_url: str, queue: str
) -> None:
    """The broker hangs up after two intervals without a heartbeat."""
    with Proxy(target(broker_url)) as proxy:
        bus = service(through(proxy, broker_url, f"?queue_declare={queue}&heartbeat=1"))
        transport.send(bus, REQUEST, Deadline(5))
        time.sleep(4)  # what is proven is that nothing happens
        transport.send(bus, REQUEST, Deadline(5))
        assert proxy.accepted == 1


def test_an_idle_connection_is_closed_and_the_next_send_opens_another(broker_url: str, queue: str) -> None:
    transport = AmqpTransport(Settings(), idle=0.2)
    with Proxy(target(broker_url)) as proxy:
        bus = service(through(proxy, broker_url, f"?queue_declare={queue}"))
        for count in (1, 2):
            transport.send(bus, REQUEST, Deadline(5))
            assert proxy.accepted == count
            eventually(lambda: proxy.open == 0)
    transport.close()


def test_a_confirm_that_does_not_come_is_a_timeout(transport: AmqpTransport, broker_url: str, queue: str) -> None:
    with Proxy(target(broker_url)) as proxy:
        bus = service(through(proxy, broker_url, f"?queue_declare={queue}"))
        transport.send(bus, REQUEST, Deadline(5))
        proxy.hold()
        with pytest.raises(TimedOutError, match="in time"):
            transport.send(bus, REQUEST, Deadline(0.3))
        proxy.release()
        transport.send(bus, REQUEST, Deadline(5))
        assert proxy.accepted == 2, "a connection with an open confirm must not be used again"


def test_a_connection_lost_before_the_confirm_is_a_connect_error(
    transport: AmqpTransport, broker_url: str, queue: str
) -> None:
    with Proxy(target(broker_url)) as proxy:
        bus = service(through(proxy, broker_url, f"?queue_declare={queue}"))
        transport.send(bus, REQUEST, Deadline(5))
        proxy.hold()
        cutter = threading.Timer(0.3, proxy.cut)
        cutter.start()
        with pytest.raises(ConnectError, match=r"lost|closed") as caught:
            transport.send(bus, REQUEST, Deadline(20))
        assert not isinstance(caught.value, TimedOutError)
        cutter.join()


@pytest.mark.parametrize("after", [0, 5, 200])
def test_a_broker_that_stops_in_mid_handshake_is_a_timeout(
    transport: AmqpTransport, broker_url: str, after: int
) -> None:
    with Proxy(target(broker_url)) as proxy:
        proxy.hold(after=after)
        with pytest.raises(TimedOutError):
            transport.send(service(through(proxy, broker_url, "?routing_key=x")), REQUEST, Deadline(0.3))


def test_the_connection_timeout_of_the_uri_counts_for_connecting(transport: AmqpTransport, broker_url: str) -> None:
    with Proxy(target(broker_url)) as proxy:
        proxy.hold()
        with pytest.raises(TimedOutError):
            transport.send(
                service(through(proxy, broker_url, "?routing_key=x&connection_timeout=0.2")), REQUEST, Deadline(60)
            )


def test_many_threads_share_one_connection(rabbitmq: RabbitNode, transport: AmqpTransport) -> None:
    """What counts is what the broker has open: a connection costs it far more than a channel."""
    bus = service(f"{rabbitmq.url}?queue_declare=shared")
    errors: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(20):
                transport.send(bus, REQUEST, Deadline(20))
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
    assert "holds 640 messages" in transport.check(bus, Deadline(5))


def test_more_sends_at_once_than_a_connection_has_channels_open_another_one(
    transport: AmqpTransport, broker_url: str, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.transports.amqp.shared.CHANNELS", 2)
    with Proxy(target(broker_url)) as proxy:
        bus = service(through(proxy, broker_url, f"?queue_declare={queue}"))
        errors: list[BaseException] = []
        barrier = threading.Barrier(4)

        def work() -> None:
            try:
                barrier.wait()
                for _ in range(20):
                    transport.send(bus, REQUEST, Deadline(20))
            except BaseException as e:
                errors.append(e)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == [] and 1 <= proxy.accepted <= 3


def test_a_response_queue_exists_before_the_first_message_leaves(
    transport: AmqpTransport, broker_url: str, channel: Channel, queue: str
) -> None:
    """A consumer may answer to `reply_to` at once; what it sends to a queue that does not exist is lost."""
    answers = f"{queue}.answers"
    transport.send(service(f"{broker_url}?queue_declare={queue}", response_queue=answers), REQUEST, Deadline(5))
    channel.queue_declare(answers, durable=True)  # a mismatch, or a missing queue, would close the channel
    channel.queue_delete(answers)
    assert transport.declare_responses(
        service(f"{broker_url}?queue_declare={queue}", response_queue=answers), Deadline(5)
    )
    assert channel.queue_declare(answers, passive=True).method.message_count == 0
    assert not transport.declare_responses(
        service(f"{broker_url}?queue_declare={queue}", response_queue=answers), Deadline(5)
    )
    channel.queue_delete(answers)


def test_a_return_of_the_hubs_own_message_is_not_held(transport: AmqpTransport, broker_url: str) -> None:
    """An unroutable message comes back whole; only its header is of use."""
    with pytest.raises(UnroutableError, match="NO_ROUTE"):
        transport.send(service(f"{broker_url}?routing_key=nobody"), Request(body="x" * 3_000_000), Deadline(10))


def test_check_says_what_it_saw_and_declares_nothing(
    transport: AmqpTransport, broker_url: str, channel: Channel, queue: str
) -> None:
    bus = service(f"{broker_url}?queue_declare={queue}")
    assert "does not exist yet" in transport.check(bus, Deadline(5))
    transport.send(bus, REQUEST, Deadline(5))
    assert "holds 1 messages" in transport.check(bus, Deadline(5))
    assert "logged in" in transport.check(service(broker_url, id=2), Deadline(5))


def test_wrong_names_are_told_apart(transport: AmqpTransport, broker_url: str) -> None:
    """Host, port, login and vhost fail with different words: a person must know what to correct."""
    host, port = target(broker_url)
    with pytest.raises(AuthenticationError, match="vhost") as caught:
        transport.send(service(f"amqp://guest:guest@{host}:{port}/no-such-vhost?routing_key=x"), REQUEST, Deadline(5))
    assert not caught.value.retriable and not caught.value.counts_against_breaker
    with pytest.raises(ConnectError, match=r"no address for nowhere\.invalid"):
        transport.send(service("amqp://nowhere.invalid?routing_key=x"), REQUEST, Deadline(5))
    with pytest.raises(ConnectError, match="refused"):
        transport.send(service(f"amqp://127.0.0.1:{unused_port()}?routing_key=x"), REQUEST, Deadline(5))
    with pytest.raises(TimedOutError), Proxy((host, port)) as proxy:
        proxy.hold()
        transport.send(service(f"amqps://127.0.0.1:{proxy.port}?routing_key=x"), REQUEST, Deadline(0.5))


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
        transport.send(service(url), REQUEST, Deadline(10))
        stored = f"amqp://{encoded[0]}@{host}:{rabbitmq.port}/{encoded[2]}?queue_declare=q"
        transport.send(service(stored, version=2, secrets={"password": password}), REQUEST, Deadline(10))
    with pytest.raises(AuthenticationError) as caught:
        transport.send(service(stored, version=3, secrets={"password": "hunter22"}), REQUEST, Deadline(10))
    assert "refused the login" in str(caught.value) and "hunter22" not in str(caught.value)
    rabbitmq.ctl("set_permissions", "-p", vhost, user, "^$", "^$", "^$")
    with pytest.raises(AuthenticationError, match="ACCESS_REFUSED"):
        transport.send(service(stored, version=4, secrets={"password": password}), REQUEST, Deadline(10))


def test_an_ipv6_literal_is_reached(transport: AmqpTransport, broker_url: str, channel: Channel, queue: str) -> None:
    try:
        proxy = Proxy(target(broker_url), host="::1")
    except OSError:
        pytest.skip("this machine has no IPv6")
    with proxy:
        url = through(proxy, broker_url, f"?queue_declare={queue}").replace("127.0.0.1", "[::1]")
        transport.send(service(url), REQUEST, Deadline(5))
    assert channel.basic_get(queue, auto_ack=True)[2]
    with pytest.raises(ConnectError, match=r"\[::1\]:"):
        transport.send(service(f"amqp://[::1]:{unused_port()}?routing_key=x", version=2), REQUEST, Deadline(5))


def test_the_egress_guard_holds(transport: AmqpTransport) -> None:
    with pytest.raises(EgressRefusedError):
        transport.send(service("amqp://169.254.169.254?routing_key=x"), REQUEST, Deadline(5))


@pytest.mark.fault
def test_a_memory_alarm_is_a_timeout_and_passes(rabbitmq: RabbitNode, transport: AmqpTransport) -> None:
    """A broker that blocks publishers takes the message and confirms nothing: without a deadline a worker hangs."""
    bus = service(f"{rabbitmq.url}?queue_declare=q")
    transport.send(bus, REQUEST, Deadline(5))
    rabbitmq.ctl("set_vm_memory_high_watermark", "0.0000001")
    try:
        with pytest.raises(TimedOutError, match="blocks publishers") as caught:
            for _ in range(50):  # the alarm is raised a moment after the command
                transport.send(bus, REQUEST, Deadline(1))
        assert caught.value.counts_against_breaker
        with pytest.raises(TimedOutError):
            transport.send(bus, REQUEST, Deadline(1))
    finally:
        rabbitmq.ctl("set_vm_memory_high_watermark", "absolute", "1GB")
    transport.send(bus, REQUEST, Deadline(20))


@pytest.mark.fault
def test_a_restarted_broker_costs_no_failure(rabbitmq: RabbitNode, transport: AmqpTransport) -> None:
    bus = service(f"{rabbitmq.url}?queue_declare=q")
    transport.send(bus, REQUEST, Deadline(5))
    rabbitmq.stop()
    with pytest.raises(ConnectError):
        transport.send(bus, REQUEST, Deadline(5))
    rabbitmq.start()
    transport.send(bus, REQUEST, Deadline(5))
    assert "holds 2 messages" in transport.check(bus, Deadline(5))


def test_amqps_verifies_and_shows_a_client_certificate(
    transport: AmqpTransport, broker_url: str, queue: str, tmp_path: Path
) -> None:
    """The broker's side of TLS is played by the proxy; what counts here is what the hub accepts and shows."""
    authority = Authority(tmp_path / "a")
    cert, key = authority.issue("client", client=True)
    with Proxy(target(broker_url), tls=authority.server(client_ca=True)) as proxy:
        url = through(proxy, broker_url, f"?queue_declare={queue}", "amqps")
        files = {"ca_file": authority.file, "client_cert": cert, "client_key": key}
        transport.send(service(url, options=files), REQUEST, Deadline(5))
        with pytest.raises(ConnectError, match=r"client certificate|TLS .* failed|cannot connect") as caught:
            transport.send(service(url, version=2, options={"ca_file": authority.file}), REQUEST, Deadline(5))
        assert "amqps://" not in str(caught.value)
        with pytest.raises(ConnectError, match=r"TLS .*(self-signed|verif|local issuer)"):
            transport.send(service(url, version=3), REQUEST, Deadline(5))
    for name in ("ca_file", "client_cert"):
        with pytest.raises(ConfigError, match=name):
            connect(service("amqps://127.0.0.1", options={name: str(tmp_path / "missing")}), Settings(), Deadline(1))


def test_closing_closes_every_connection(broker_url: str, queue: str) -> None:
    transport = AmqpTransport(Settings())
    bus = service(f"{broker_url}?queue_declare={queue}", name="closing")
    transport.send(bus, REQUEST, Deadline(5))
    transport.close()
    transport.send(bus, REQUEST, Deadline(5))
    eventually(lambda: not [t for t in threading.enumerate() if t.name == "amqp-closing"])
    transport.close()
