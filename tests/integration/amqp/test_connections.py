"""Connections of the AMQP transport: reuse, heartbeats, loss, TLS, limits."""

from __future__ import annotations

import threading
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from pika.adapters.blocking_connection import BlockingChannel as Channel

from hub.errors import (
    AuthenticationError,
    ConfigError,
    ConnectError,
    EgressRefusedError,
    TimedOutError,
)
from hub.settings import Settings
from hub.transports.amqp.connection import connect
from hub.transports.amqp.transport import AmqpTransport
from hub.transports.base import Deadline
from tests.integration.amqp.sends import PATIENCE, REQUEST, service, target
from tests.support.certificates import Authority
from tests.support.proxy import Proxy, unused_port
from tests.support.waiting import eventually


def through(proxy: Proxy, broker_url: str, query: str = "", scheme: str = "amqp") -> str:
    parts = urlsplit(broker_url)
    return f"{scheme}://{parts.username}:{parts.password}@127.0.0.1:{proxy.port}{parts.path}{query}"


def test_one_connection_serves_many_sends_and_an_edit_opens_another(
    transport: AmqpTransport, broker_url: str, queue: str
) -> None:
    """A connection per message costs ten times the message; an edited password must count at once."""
    with Proxy(target(broker_url)) as proxy:
        url = through(proxy, broker_url, f"?queue_declare={queue}")
        for _ in range(5):
            transport.send(service(url), REQUEST, Deadline(PATIENCE))
        assert proxy.accepted == 1
        transport.send(service(url, version=2), REQUEST, Deadline(PATIENCE))
        assert proxy.accepted == 2
        with pytest.raises(AuthenticationError):
            transport.send(
                service(url, version=3, secrets={"password": "changed-and-wrong"}), REQUEST, Deadline(PATIENCE)
            )


def test_a_connection_cut_while_idle_is_no_failure(
    transport: AmqpTransport, broker_url: str, channel: Channel, queue: str
) -> None:
    """A broker restarted at night must not cost the first morning event an attempt."""
    with Proxy(target(broker_url)) as proxy:
        bus = service(through(proxy, broker_url, f"?queue_declare={queue}"))
        for count in range(1, 4):
            transport.send(bus, REQUEST, Deadline(PATIENCE))
            assert proxy.accepted == count
            proxy.cut()
    assert channel.queue_declare(queue, passive=True).method.message_count == 3


def test_heartbeats_are_answered_while_a_connection_is_idle(
    transport: AmqpTransport, broker_url: str, queue: str
) -> None:
    """The broker hangs up after two intervals without a heartbeat."""
    with Proxy(target(broker_url)) as proxy:
        bus = service(through(proxy, broker_url, f"?queue_declare={queue}&heartbeat=1"))
        transport.send(bus, REQUEST, Deadline(PATIENCE))
        eventually(lambda: proxy.heartbeats >= 6, "heartbeats of more than two intervals")
        transport.send(bus, REQUEST, Deadline(PATIENCE))
        assert proxy.accepted == 1


def test_an_idle_connection_is_closed_and_the_next_send_opens_another(broker_url: str, queue: str) -> None:
    transport = AmqpTransport(Settings(), idle=0.2)
    with Proxy(target(broker_url)) as proxy:
        bus = service(through(proxy, broker_url, f"?queue_declare={queue}"))
        for count in (1, 2):
            transport.send(bus, REQUEST, Deadline(PATIENCE))
            assert proxy.accepted == count
            eventually(lambda: proxy.open == 0)
    transport.close()


def test_a_confirm_that_does_not_come_is_a_timeout(transport: AmqpTransport, broker_url: str, queue: str) -> None:
    with Proxy(target(broker_url)) as proxy:
        bus = service(through(proxy, broker_url, f"?queue_declare={queue}"))
        transport.send(bus, REQUEST, Deadline(PATIENCE))
        proxy.hold()
        with pytest.raises(TimedOutError, match="in time"):
            transport.send(bus, REQUEST, Deadline(0.3))
        proxy.release()
        transport.send(bus, REQUEST, Deadline(PATIENCE))
        assert proxy.accepted == 2, "a connection with an open confirm must not be used again"


def test_a_connection_lost_before_the_confirm_is_a_connect_error(
    transport: AmqpTransport, broker_url: str, queue: str
) -> None:
    with Proxy(target(broker_url)) as proxy:
        bus = service(through(proxy, broker_url, f"?queue_declare={queue}"))
        transport.send(bus, REQUEST, Deadline(PATIENCE))
        proxy.hold()
        cutter = threading.Timer(0.3, proxy.cut)
        cutter.start()
        with pytest.raises(ConnectError, match=r"lost|closed") as caught:
            transport.send(bus, REQUEST, Deadline(PATIENCE))
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
                    transport.send(bus, REQUEST, Deadline(PATIENCE))
            except BaseException as e:
                errors.append(e)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == [] and 1 <= proxy.accepted <= 3


def test_an_ipv6_literal_is_reached(transport: AmqpTransport, broker_url: str, channel: Channel, queue: str) -> None:
    try:
        proxy = Proxy(target(broker_url), host="::1")
    except OSError:
        pytest.skip("this machine has no IPv6")
    with proxy:
        url = through(proxy, broker_url, f"?queue_declare={queue}").replace("127.0.0.1", "[::1]")
        transport.send(service(url), REQUEST, Deadline(PATIENCE))
    assert channel.basic_get(queue, auto_ack=True)[2]
    with pytest.raises(ConnectError, match=r"\[::1\]:"):
        transport.send(service(f"amqp://[::1]:{unused_port()}?routing_key=x", version=2), REQUEST, Deadline(PATIENCE))


def test_the_egress_guard_holds(transport: AmqpTransport) -> None:
    with pytest.raises(EgressRefusedError):
        transport.send(service("amqp://169.254.169.254?routing_key=x"), REQUEST, Deadline(PATIENCE))


def test_amqps_verifies_and_shows_a_client_certificate(
    transport: AmqpTransport, broker_url: str, queue: str, tmp_path: Path
) -> None:
    """The broker's side of TLS is played by the proxy; what counts here is what the hub accepts and shows."""
    authority = Authority(tmp_path / "a")
    cert, key = authority.issue("client", client=True)
    with Proxy(target(broker_url), tls=authority.server(client_ca=True)) as proxy:
        url = through(proxy, broker_url, f"?queue_declare={queue}", "amqps")
        files = {"ca_file": authority.file, "client_cert": cert, "client_key": key}
        transport.send(service(url, options=files), REQUEST, Deadline(PATIENCE))
        with pytest.raises(ConnectError, match=r"client certificate|TLS .* failed|cannot connect") as caught:
            transport.send(service(url, version=2, options={"ca_file": authority.file}), REQUEST, Deadline(PATIENCE))
        assert "amqps://" not in str(caught.value)
        with pytest.raises(ConnectError, match=r"TLS .*(self-signed|verif|local issuer)"):
            transport.send(service(url, version=3), REQUEST, Deadline(PATIENCE))
    for name in ("ca_file", "client_cert"):
        with pytest.raises(ConfigError, match=name):
            connect(service("amqps://127.0.0.1", options={name: str(tmp_path / "missing")}), Settings(), Deadline(1))


def test_closing_closes_every_connection(broker_url: str, queue: str) -> None:
    transport = AmqpTransport(Settings())
    bus = service(f"{broker_url}?queue_declare={queue}", name="closing")
    transport.send(bus, REQUEST, Deadline(PATIENCE))
    transport.close()
    transport.send(bus, REQUEST, Deadline(PATIENCE))
    eventually(lambda: not [t for t in threading.enumerate() if t.name == "amqp-closing"])
    transport.close()
