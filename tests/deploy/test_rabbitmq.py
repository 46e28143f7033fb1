"""deploy/rabbitmq's own files in a real node, and Dramatiq as the least-privileged user that they make."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dramatiq
import pika
import pytest
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from pika.exceptions import ChannelClosedByBroker, ProbableAccessDeniedError, ProbableAuthenticationError

from tests.deploy.files import DEPLOY
from tests.support.rabbit import RabbitNode

FILES = DEPLOY / "rabbitmq"
QUEUE = "hub.dispatch"


def render(folder: Path, hub: str, monitor: str) -> subprocess.CompletedProcess[str]:
    """Run start.sh as the container does, with `true` in RabbitMQ's place."""
    (folder / "hub").write_text(hub)
    (folder / "monitor").write_text(monitor)
    return subprocess.run(
        ["sh", str(FILES / "start.sh"), "true"],
        env={
            "PATH": os.environ["PATH"],
            "HUB_PASSWORD_FILE": str(folder / "hub"),
            "MONITOR_PASSWORD_FILE": str(folder / "monitor"),
            "DEFINITIONS": str(FILES / "definitions.json"),
            "RENDERED": str(folder / "definitions.json"),
        },
        capture_output=True,
        text=True,
        check=False,
    )


def rendered(folder: Path) -> tuple[str, str]:
    """Render into `folder`; returns the two passwords. As root, start.sh needs the user `rabbitmq`."""
    hub, monitor = f"h_{uuid.uuid4().hex}", f"m-{uuid.uuid4().hex}"
    done = render(folder, hub + "\n", monitor)
    assert done.returncode == 0, done.stderr
    return hub, monitor


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RabbitNode, str, str]]:
    """A node with the committed rabbitmq.conf (only address, paths and disk limit replaced) and definitions."""
    try:
        server = RabbitNode()
    except RuntimeError as e:
        pytest.fail(str(e), pytrace=False)
    secrets = tmp_path_factory.mktemp("secrets")
    hub, monitor = rendered(secrets)
    replaced = {
        "listeners.tcp.default": f"127.0.0.1:{server.port}",
        "definitions.local.path": str(server.folder / "definitions.json"),
        "disk_free_limit.absolute": "10MB",
        "log.console": "false",
    }
    lines = []
    for line in (FILES / "rabbitmq.conf").read_text().splitlines():
        key = line.partition("=")[0].strip()
        lines.append(f"{key} = {replaced.pop(key)}" if key in replaced else line)
    assert not replaced, f"rabbitmq.conf lacks {sorted(replaced)}"
    (server.folder / "rabbitmq.conf").write_text("\n".join(lines) + "\n")
    (server.folder / "definitions.json").write_text((secrets / "definitions.json").read_text())
    url = f"amqp://{{}}:{{}}@127.0.0.1:{server.port}/hub"
    server.url = url.format("hub", hub)
    try:
        server.start()
    except RuntimeError as e:
        pytest.fail(str(e), pytrace=False)
    yield server, server.url, url.format("hub-monitor", monitor)
    server.close()


@pytest.fixture
def channel_of(node: Any) -> Iterator[Callable[[str], Any]]:
    """Open channels that are closed after the test."""
    connections = []

    def open_channel(url: str) -> Any:
        connections.append(pika.BlockingConnection(pika.URLParameters(url)))
        return connections[-1].channel()

    yield open_channel
    for connection in connections:
        if connection.is_open:
            connection.close()


def test_dramatiq_can_do_all_its_work_as_the_hub_user(node: Any) -> None:
    """A permission too few would show only in production: declare, confirm, delay, consume, ack, reject to .XQ."""
    _, url, _ = node
    broker = RabbitmqBroker(url=url, confirm_delivery=True, middleware=[])
    done: list[int] = []

    def run(task_id: int) -> None:
        if task_id == 2:
            raise dramatiq.errors.RateLimitExceeded("")  # an exception that Dramatiq logs without a traceback
        done.append(task_id)

    actor = dramatiq.actor(broker=broker, queue_name=QUEUE, actor_name="run")(run)
    broker.add_middleware(_RejectFailed())
    worker = dramatiq.Worker(broker, worker_threads=1, worker_timeout=50)
    worker.start()
    try:
        actor.send(1)
        actor.send(2)
        actor.send_with_options(args=(3,), delay=100)
        broker.join(QUEUE, timeout=20_000)
        worker.join()
        channel = broker.connection.channel()
        dead = channel.queue_declare(f"{QUEUE}.XQ", passive=True).method.message_count
        assert (sorted(done), dead) == ([1, 3], 1)
    finally:
        worker.stop()
        broker.close()


class _RejectFailed(dramatiq.Middleware):
    """What the hub's middleware does with a message that Dramatiq must not repeat."""

    def after_process_message(self, broker: Any, message: Any, *, result: Any = None, exception: Any = None) -> None:
        if exception is not None:
            message.fail()


def test_the_hubs_own_broker_hands_over_as_the_hub_user(node: Any) -> None:
    """The hub's subclass may ask for more than Dramatiq does."""
    module = pytest.importorskip("hub.tasks.broker")
    _, url, _ = node
    broker = module.HubBroker(url)
    for name in module.queue_names("hub").values():
        dramatiq.actor(broker=broker, queue_name=name, actor_name=name)(lambda: None)
        broker.publish(dramatiq.Message(name, name, (), {}, {}))
        assert broker.ready(name) >= 1
    broker.close()


@pytest.mark.parametrize("name", ["other", "hubx", "amq.gen-1", "other.hub.dispatch"])
def test_the_hub_user_reaches_no_queue_but_its_own(node: Any, channel_of: Any, name: str) -> None:
    """A stolen broker URL must open nothing else that lives on the broker."""
    _, url, _ = node
    with pytest.raises(ChannelClosedByBroker, match="ACCESS_REFUSED"):
        channel_of(url).queue_declare(name, durable=True)
    with pytest.raises(ChannelClosedByBroker, match="ACCESS_REFUSED"):
        channel_of(url).basic_get(name)
    publishing = channel_of(url)
    publishing.confirm_delivery()
    with pytest.raises(ChannelClosedByBroker, match="ACCESS_REFUSED"):
        publishing.basic_publish("amq.topic", name, b"x")


def test_the_monitor_user_sees_depth_and_consumers_and_may_nothing_else(node: Any, channel_of: Any) -> None:
    """The exporter's and KEDA's URL must not be able to read an event or to take one away."""
    _, url, monitor = node
    channel_of(url).queue_declare("hub.looked_at", durable=True)
    seen = channel_of(monitor).queue_declare("hub.looked_at", passive=True).method
    assert (seen.message_count, seen.consumer_count) == (0, 0)
    acts: list[Callable[[Any], object]] = [
        lambda c: c.queue_declare("hub.new", durable=True),
        lambda c: c.basic_get("hub.looked_at"),
        lambda c: c.queue_purge("hub.looked_at"),
        lambda c: c.queue_delete("hub.looked_at"),
        lambda c: c.queue_bind("hub.looked_at", "amq.topic"),
    ]
    for forbidden in acts:
        with pytest.raises(ChannelClosedByBroker, match="ACCESS_REFUSED"):
            forbidden(channel_of(monitor))
    publishing = channel_of(monitor)
    publishing.confirm_delivery()
    with pytest.raises(ChannelClosedByBroker, match="ACCESS_REFUSED"):
        publishing.basic_publish("", "hub.looked_at", b"x")


@pytest.mark.parametrize("vhost", ["hub", "%2F"])
def test_there_is_no_guest_and_no_other_vhost(node: Any, vhost: str) -> None:
    """guest/guest is the first thing anybody tries."""
    server, url, _ = node
    with pytest.raises((ProbableAuthenticationError, ProbableAccessDeniedError)):
        pika.BlockingConnection(pika.URLParameters(f"amqp://guest:guest@127.0.0.1:{server.port}/{vhost}"))
    if vhost != "hub":
        with pytest.raises((ProbableAccessDeniedError, pika.exceptions.ConnectionClosedByBroker)):
            pika.BlockingConnection(pika.URLParameters(url.rpartition("/")[0] + "/" + vhost))


def test_the_settings_that_protect_the_hub_are_in_force(node: Any) -> None:
    """A key that RabbitMQ does not know stops it; one that it ignores would go unseen."""
    server, _, _ = node
    seconds = server.ctl("eval", "application:get_env(rabbit, consumer_timeout).")
    assert "3600000" in seconds
    assert "0.6" in server.ctl("eval", "vm_memory_monitor:get_vm_memory_high_watermark().")
    assert "hub-dead-messages-are-bounded" in server.ctl("list_policies", "-p", "hub")


@pytest.mark.parametrize("bad", ["", 'a"b', "a/b", "a b", "a\nb", "a&b"])
def test_a_password_that_could_break_the_definitions_is_refused(tmp_path: Path, bad: str) -> None:
    """The password is put into JSON by sed: nothing but plain characters may reach it, and it is not printed."""
    done = render(tmp_path, bad, "fine")
    assert done.returncode == 2
    assert not (tmp_path / "definitions.json").exists()
    assert not bad or bad not in done.stderr


def test_the_rendered_file_is_for_rabbitmq_alone(tmp_path: Path) -> None:
    """It holds two passwords."""
    rendered(tmp_path)
    assert (tmp_path / "definitions.json").stat().st_mode & 0o077 == 0


def test_no_password_and_no_hash_is_committed() -> None:
    """A committed password is a default password."""
    users = json.loads((FILES / "definitions.json").read_text())["users"]
    assert [u["password"] for u in users] == ["@HUB_PASSWORD@", "@MONITOR_PASSWORD@"]
    assert all(u["tags"] == [] and "password_hash" not in u for u in users)
