"""The way through RabbitMQ: groups in one message, confirms, bounded waits, and acknowledgements that hit."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import dramatiq
import pika
import pytest

from hub.errors import ConfigError, UnavailableError
from hub.tasks.broker import HubBroker, InProcessBroker
from hub.tasks.broker_url import connection_parameters
from hub.tasks.connections import PublisherPool
from hub.tasks.groups import GROUP, GroupConsumer, in_groups
from tests.support.proxy import Proxy, unused_port
from tests.support.rabbit import RabbitNode
from tests.support.waiting import eventually

QUEUE = "q.dispatch"


def message(*ids: int, service: int = 1) -> dramatiq.Message[None]:
    kwargs: dict[str, Any] = {"task_ids": list(ids), "service_id": service} if len(ids) > 1 else {}
    args = (ids[0], service) if len(ids) == 1 else ()
    return dramatiq.Message(queue_name=QUEUE, actor_name="dispatch_event_task", args=args, kwargs=kwargs, options={})


@pytest.fixture
def broker(broker_url: str) -> Iterator[HubBroker]:
    broker = make_broker(broker_url)
    broker.declare_queue(QUEUE, ensure=True)
    yield broker
    broker.close()


def make_broker(url: str, **options: Any) -> HubBroker:
    """A broker with a dispatch actor that does nothing."""
    broker = HubBroker(url, **options)

    def dispatch_event_task(task_id: int, service_id: int) -> None:
        """Nothing."""

    dramatiq.actor(broker=broker, queue_name=QUEUE)(dispatch_event_task)
    return broker


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return str(parts.hostname), int(parts.port or 5672)


def _at(url: str, port: int, query: str = "") -> str:
    """The same broker through a proxy."""
    parts = urlsplit(url)
    return f"amqp://{parts.username}:{parts.password}@127.0.0.1:{port}{parts.path}{query}"


class Reader:
    """A consumer, read in the thread that made it as Dramatiq does."""

    def __init__(self, broker: HubBroker, prefetch: int = 10) -> None:
        self.consumer: GroupConsumer = broker.consume(QUEUE, prefetch=prefetch, timeout=50)

    def take(self, count: int) -> list[Any]:
        got: list[Any] = []

        def read() -> bool:
            while len(got) < count and (message := next(self.consumer)) is not None:
                got.append(message)
            return len(got) == count

        eventually(read, f"{count} messages")
        return got

    def idle(self) -> None:
        """Let the connection do what is to be done: acknowledgements go out."""
        assert next(self.consumer) is None

    def close(self) -> None:
        self.consumer.close()


def ids_of(messages: list[Any]) -> list[int]:
    return [m.args[0] for m in messages]


def test_tasks_are_grouped_by_service_and_no_group_is_too_large() -> None:
    groups = in_groups([(n % 2, n) for n in range(2 * GROUP + 10)])
    assert [(service, len(ids)) for service, ids in groups] == [(0, GROUP), (0, 5), (1, GROUP), (1, 5)]


def test_a_group_is_unpacked_and_acknowledged_when_its_last_task_is_done(broker: HubBroker) -> None:
    broker.publish(message(1, 2, 3))
    broker.publish(message(4))
    reader = Reader(broker)
    got = reader.take(4)
    assert ids_of(got) == [1, 2, 3, 4] and {m.args[1] for m in got} == {1} and len({m.message_id for m in got}) == 4
    for m in (got[1], got[0]):
        reader.consumer.ack(m)
    reader.idle()
    reader.close()
    eventually(lambda: broker.ready(QUEUE) == 2)
    reader = Reader(broker)
    again = reader.take(4)
    assert ids_of(again) == [1, 2, 3, 4] and again[0].redelivered
    for m in again:
        reader.consumer.ack(m)
    reader.idle()
    reader.close()
    assert broker.ready(QUEUE) == 0


def test_a_failed_task_of_a_group_does_not_hold_the_others_up(broker: HubBroker) -> None:
    """The ledger repeats it; a message of its own goes to `.XQ`, where somebody can look at it."""
    broker.publish(message(1, 2))
    broker.publish(message(3))
    reader = Reader(broker)
    one, two, three = reader.take(3)
    reader.consumer.nack(one)
    reader.consumer.ack(two)
    reader.consumer.nack(three)
    reader.idle()
    reader.close()
    eventually(lambda: broker.ready(f"{QUEUE}.XQ") == 1)
    assert broker.ready(QUEUE) == 0


def test_an_acknowledgement_from_before_a_reconnection_hits_no_other_message(broker: HubBroker) -> None:
    """Delivery tags count from 1 on every channel: the old 1 is not the new 1."""
    broker.publish(message(1, 2))
    old = Reader(broker)
    got = old.take(2)
    old.close()
    new = Reader(broker)
    again = new.take(2)
    assert [m._tag for m in got] == [m._tag for m in again]
    for m in got:
        new.consumer.ack(m)
    new.idle()
    new.consumer.ack(again[0])
    new.idle()
    new.close()
    eventually(lambda: broker.ready(QUEUE) == 1, what="the message is still there")


def test_an_acknowledgement_on_a_dead_connection_raises_nothing(broker: HubBroker) -> None:
    """Dramatiq would hold the thread for five seconds and try again; RabbitMQ delivers again anyway."""
    broker.publish(message(1))
    reader = Reader(broker)
    (got,) = reader.take(1)
    reader.close()
    reader.consumer.ack(got)
    eventually(lambda: broker.ready(QUEUE) == 1)


def test_many_threads_acknowledge_at_once(broker: HubBroker) -> None:
    for first in range(1, 321, GROUP):
        broker.publish(message(*range(first, first + GROUP)))
    reader = Reader(broker)
    got = reader.take(320)

    def acknowledge(part: list[Any]) -> None:
        for each in part:
            reader.consumer.ack(each)

    threads = [threading.Thread(target=acknowledge, args=(got[n::8],)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    reader.idle()
    reader.close()
    assert broker.ready(QUEUE) == 0 and not reader.consumer.known_tags


def test_a_deleted_queue_is_declared_again_and_nothing_is_dropped(broker: HubBroker) -> None:
    """Mandatory, with confirms: RabbitMQ says when nobody holds the queue."""
    broker.publish(message(1))
    with broker.pool.channel() as channel:
        channel.queue_delete(QUEUE)
    assert broker.ready(QUEUE) is None
    broker.publish(message(2))
    assert broker.ready(QUEUE) == 1


def test_threads_that_end_leave_no_connection_behind(broker: HubBroker) -> None:
    """A web server's threads come and go; each that published once kept a connection for the life of the process."""
    for n in range(20):
        thread = threading.Thread(target=broker.publish, args=(message(n),))
        thread.start()
        thread.join()
    assert broker.ready(QUEUE) == 20 and broker.pool.open == 1

    def publish() -> None:
        for n in range(10):
            broker.publish(message(n))

    threads = [threading.Thread(target=publish) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert broker.ready(QUEUE) == 100 and broker.pool.open <= 8


def test_a_cut_connection_is_replaced_within_the_call(broker_url: str) -> None:
    with Proxy(_address(broker_url)) as proxy:
        broker = HubBroker(_at(broker_url, proxy.port))
        broker.publish(message(1))
        proxy.cut()  # as a restarted broker does
        broker.publish(message(2))
        assert broker.ready(QUEUE) == 2 and broker.pool.open == 1
        broker.close()


def test_a_broker_that_is_away_is_said_at_once(broker: HubBroker) -> None:
    gone = HubBroker("amqp://guest:secret@127.0.0.1:9/")
    acts: list[Callable[[], object]] = [lambda: gone.publish(message(1)), lambda: gone.ready(QUEUE)]
    for act in acts:
        with pytest.raises(UnavailableError, match="does not respond") as e:
            act()
        assert "secret" not in str(e.value)


def test_a_url_that_is_none_names_the_setting() -> None:
    with pytest.raises(ConfigError, match="HUB_BROKER_URL") as e:
        HubBroker("amqp://guest:secret@host:port/")
    assert "secret" not in str(e.value)


@pytest.mark.fault
def test_a_broker_short_of_memory_does_not_hang_who_publishes(
    rabbitmq: RabbitNode,
) -> None:
    """RabbitMQ then stops reading: without a limit a confirmed publish waits for ever."""
    broker = HubBroker(f"{rabbitmq.url}%2f?blocked_connection_timeout=1")
    broker.publish(message(1))
    rabbitmq.ctl("set_vm_memory_high_watermark", "absolute", "1")
    result: list[Exception] = []

    def publish() -> None:
        try:
            broker.publish(message(2))
        except UnavailableError as e:
            result.append(e)

    thread = threading.Thread(target=publish, daemon=True)
    thread.start()
    thread.join(120)
    assert not thread.is_alive() and "ConnectionBlockedTimeout" in str(result[0])
    rabbitmq.ctl("set_vm_memory_high_watermark", "absolute", "1GB")
    eventually(lambda: _published(broker))
    broker.close()


def _published(broker: HubBroker) -> bool:
    try:
        broker.publish(message(3))
    except UnavailableError:
        return False
    return True


def test_no_delay_queues_are_made(broker: HubBroker) -> None:
    """Delays live in the ledger; each such queue would cost every worker process a consumer."""
    assert not broker.get_declared_delay_queues() and broker.ready(f"{QUEUE}.DQ") is None


def test_the_in_process_broker_keeps_no_dead_messages() -> None:
    broker = InProcessBroker()
    broker.declare_queue(QUEUE)
    broker.publish(message(1))
    assert broker.ready(QUEUE) == 1 and broker.ready("other") is None
    consumer = broker.consume(QUEUE)
    got = next(consumer)
    assert got.args == (1, 1)
    consumer.nack(got)
    assert broker.dead_letters == [] and len(consumer.dead_letters) == 0


def test_who_refuses_is_told_apart_from_who_is_away(broker: HubBroker) -> None:
    """A queue that somebody else holds exclusively."""
    other = pika.BlockingConnection(broker.parameters)
    other.channel().queue_declare("held", exclusive=True)
    with pytest.raises(UnavailableError, match="refuses"):
        broker.ready("held")
    other.close()


# Idle connections


def _complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Warnings and errors; pika's own are switched off in a hub."""
    return [r.getMessage() for r in caplog.records if r.levelno >= 30 and not r.name.startswith("pika.")]


def test_an_idle_connection_answers_heartbeats_and_serves_the_next_publish(
    broker_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """RabbitMQ ends a connection that misses two heartbeats; the next publish then logged a traceback."""
    with Proxy(_address(broker_url)) as proxy:
        broker = make_broker(_at(broker_url, proxy.port, "?heartbeat=1"))
        broker.publish(message(1))
        eventually(lambda: proxy.heartbeats >= 6, "heartbeats of more than two intervals")
        broker.publish(message(2))
        assert proxy.accepted == 1, "the connection was not the first one any more"
        assert broker.ready(QUEUE) == 2
        broker.close()
    assert _complaints(caplog) == []


def test_an_idle_connection_that_the_broker_ended_is_replaced_in_silence(
    broker_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Proxy(_address(broker_url)) as proxy:
        broker = make_broker(_at(broker_url, proxy.port))
        broker.publish(message(1))
        proxy.cut()
        eventually(lambda: broker.pool.open == 0, what="the end of the connection is noticed")
        broker.publish(message(2))
        assert broker.ready(QUEUE) == 2 and proxy.accepted == 2
        broker.close()
    assert _complaints(caplog) == []


def test_a_connection_that_nobody_needs_is_closed(broker_url: str) -> None:
    pool = PublisherPool(connection_parameters(broker_url), keep=0.5)
    with pool.channel():
        assert pool.open == 1
    eventually(lambda: pool.open == 0, what="the idle connection is closed")
    pool.close()


def test_a_broker_that_takes_packets_and_answers_nothing_is_given_up(broker_url: str) -> None:
    """No reset, no refusal: the confirm never comes. The other threads are not held either."""
    with Proxy(_address(broker_url)) as proxy:
        broker = make_broker(_at(broker_url, proxy.port))
        broker.pool = PublisherPool(broker.parameters, limit=1.0)
        broker.publish(message(1))
        proxy.hold()
        with pytest.raises(UnavailableError, match="no response within 1 s"):
            broker.publish(message(2))
        assert broker.pool.open == 0
        proxy.release()
        broker.publish(message(3))
        broker.close()


def test_limits_are_set_and_the_url_overrides_them() -> None:
    (made,) = connection_parameters("amqp://a:b@h/v")
    assert made.heartbeat == 15 and made.socket_timeout == 5 and made.blocked_connection_timeout == 5
    assert made.tcp_options["TCP_USER_TIMEOUT"] == 10_000 and made.tcp_options["TCP_KEEPIDLE"] == 10
    (made,) = connection_parameters(
        "amqp://a:b@h/v?heartbeat=40&socket_timeout=2&tcp_options={'TCP_USER_TIMEOUT':1000}", stack_timeout=1
    )
    assert made.heartbeat == 40 and made.socket_timeout == 2 and made.stack_timeout == 1
    assert made.tcp_options["TCP_USER_TIMEOUT"] == 1000 and made.tcp_options["TCP_KEEPIDLE"] == 10
    assert [p.host for p in connection_parameters("amqp://a:b@one/v;amqp://a:b@two/v")] == ["one", "two"]


@pytest.mark.fault
def test_a_second_broker_of_the_url_is_used_when_the_first_is_away(broker_url: str) -> None:
    broker = make_broker(f"amqp://guest:guest@127.0.0.1:{unused_port()}/;{broker_url}")
    broker.publish(message(1))
    assert broker.ready(QUEUE) == 1
    broker.close()
