"""Messages in the hub's own queues that the hub did not make: counted, logged, set aside; the rest goes on."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import dramatiq
import pika
import pytest
import structlog.testing
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from hub.monitoring.metrics import REJECTIONS
from hub.settings import Settings
from hub.tasks.broker import HubBroker
from hub.tasks.groups import GroupConsumer
from hub.tasks.messages import SIZE_LIMIT
from hub.transports.amqp.pika_internals import CutBody
from tests.support.waiting import eventually
from tests.support.workers import workers

QUEUES = {"f.dispatch": "dispatch_event_task", "f.consume": "consume_responses_task", "f.tick": "tick_task"}
GOOD: dict[str, dict[str, Any]] = {
    "f.dispatch": {"args": [], "kwargs": {"task_ids": [1, 2], "service_id": 3}},
    "f.consume": {"args": [4], "kwargs": {}},
    "f.tick": {"args": [], "kwargs": {}, "options": {"scheduled_at": "2026-11-24 22:00:00+00:00"}},
}


def good(queue: str, **changed: Any) -> dict[str, Any]:
    """A message as the hub makes it."""
    made: dict[str, Any] = {
        "queue_name": queue,
        "actor_name": QUEUES[queue],
        "options": {},
        "message_id": "m",
        "message_timestamp": 1_700_000_000_000,
    }
    return made | GOOD[queue] | changed


class Rig:
    """Real queues, a consumer of each, and a bare connection that puts anything into them."""

    def __init__(self, url: str) -> None:
        self.counted: Counter[tuple[str, str]] = Counter()
        self.broker = HubBroker(url, report_rejected=lambda kind, reason: self.counted.update([(kind, reason)]))

        dispatch, consume, tick = QUEUES

        @dramatiq.actor(broker=self.broker, queue_name=dispatch)
        def dispatch_event_task(task_id: int, service_id: int) -> None: ...

        @dramatiq.actor(broker=self.broker, queue_name=consume)
        def consume_responses_task(service_id: int) -> None: ...

        @dramatiq.actor(broker=self.broker, queue_name=tick)
        def tick_task() -> None: ...

        self.consumers: dict[str, GroupConsumer] = {queue: self.broker.consume(queue, 50, 20) for queue in QUEUES}
        self.connection = pika.BlockingConnection(pika.URLParameters(url))
        self.channel = self.connection.channel()
        self.channel.confirm_delivery()

    def put(self, queue: str, body: bytes) -> None:
        self.channel.basic_publish("", queue, body, pika.BasicProperties(delivery_mode=2))

    def take(self, queue: str, count: int) -> list[Any]:
        """`count` messages, acknowledged."""
        got: list[Any] = []

        def read() -> bool:
            if (m := next(self.consumers[queue])) is not None:
                got.append(m)
            return len(got) >= count

        eventually(read, what=f"{count} messages came")
        for m in got:
            self.consumers[queue].ack(m)
        next(self.consumers[queue])
        return got

    def close(self) -> None:
        for consumer in self.consumers.values():
            consumer.close()
        self.broker.close()
        self.connection.close()


@pytest.fixture
def rig(broker_url: str) -> Iterator[Rig]:
    rig = Rig(broker_url)
    yield rig
    rig.close()


KNOWN: list[tuple[dict[str, Any], str]] = [
    ({"kwargs": {"task_ids": [1, 2]}}, "invalid_arguments"),
    ({"kwargs": []}, "invalid_arguments"),
    ({"args": {}}, "invalid_arguments"),
    ({"kwargs": {"task_ids": ["1"], "service_id": 1}}, "invalid_arguments"),
    ({"kwargs": {"task_ids": [True], "service_id": 1}}, "invalid_arguments"),
    ({"kwargs": {"task_ids": [2**63], "service_id": 1}}, "invalid_arguments"),
    ({"kwargs": {"task_ids": [], "service_id": 1}}, "invalid_arguments"),
    ({"kwargs": {"task_ids": [1] * 1001, "service_id": 1}}, "invalid_arguments"),
    ({"kwargs": {"task_ids": [1], "service_id": None}}, "invalid_arguments"),
    ({"args": [1], "kwargs": {}}, "invalid_arguments"),
    ({"args": [1, 2, 3], "kwargs": {}}, "invalid_arguments"),
    ({"args": [1.0, 2], "kwargs": {}}, "invalid_arguments"),
    ({"actor_name": "os.system"}, "unknown_actor"),
    ({"actor_name": None}, "unknown_actor"),
    ({"actor_name": "tick_task"}, "unknown_actor"),
    ({"queue_name": "f.tick"}, "wrong_queue"),
    ({"queue_name": {}}, "wrong_queue"),
    ({"options": {"eta": 99999999999999}}, "invalid_fields"),
    ({"options": {"throws": "x"}}, "invalid_fields"),
    ({"options": None}, "invalid_fields"),
    ({"options": {"scheduled_at": "soon"}}, "invalid_fields"),
    ({"message_id": 7}, "invalid_fields"),
    ({"message_id": "x" * 201}, "invalid_fields"),
    ({"message_timestamp": "now"}, "invalid_fields"),
    ({"more": 1}, "invalid_fields"),
]
RAW = [
    (b"", "not_json"),
    (b"\xff\xfe", "not_json"),
    (b"[" * 50_000, "not_json"),
    (b'{"a": ' + b"9" * 5000 + b"}", "not_json"),
    (b"null", "invalid_fields"),
    (b"[]", "invalid_fields"),
    (b"{}", "invalid_fields"),
    (b" " * (SIZE_LIMIT + 1), "too_large"),
    (b"x" * 5_000_000, "too_large"),
]


def test_only_the_first_bytes_of_a_message_over_the_limit_are_received(broker_url: str) -> None:
    rig = Rig(broker_url)
    try:
        rig.put("f.tick", b"x" * 3_000_000)
        consumer = rig.consumers["f.tick"]
        got: list[bytes] = []

        def read() -> bool:
            _, _, body = next(consumer.iterator)
            got.extend([body] if body else [])
            return bool(got)

        eventually(read, what="the message came")
        assert isinstance(got[0], CutBody) and len(got[0]) == SIZE_LIMIT + 1 and got[0].size == 3_000_000
    finally:
        rig.close()


def test_each_kind_is_counted_by_its_reason_and_set_aside(rig: Rig) -> None:
    forged = [(json.dumps(good("f.dispatch", **change)).encode(), reason) for change, reason in KNOWN] + RAW
    for body, _ in forged:
        rig.put("f.dispatch", body)
    rig.put("f.dispatch", json.dumps(good("f.dispatch")).encode())
    assert [m.args for m in rig.take("f.dispatch", 2)] == [(1, 3), (2, 3)]
    assert rig.counted == Counter(("dispatch", reason) for _, reason in forged)
    eventually(lambda: rig.broker.ready("f.dispatch.XQ") == len(forged))
    assert rig.broker.ready("f.dispatch") == 0


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def _forged(draw: st.DrawFn, queue: str) -> bytes:
    """Bytes, JSON, or a good message with one part replaced, added or taken away."""
    kind = draw(st.sampled_from(("bytes", "json", "replaced", "added", "missing", "argument")))
    if kind == "bytes":
        return draw(st.binary(max_size=200))
    if kind == "json":
        return json.dumps(draw(_json)).encode()
    made = good(queue)
    field = draw(st.sampled_from(sorted(made)))
    if kind == "missing":
        del made[field]
    elif kind == "added":
        made[draw(st.text(min_size=1, max_size=10).filter(lambda name: name not in made))] = draw(_json)
    elif kind == "argument":
        made["args"] = draw(st.lists(_json, max_size=3))
    else:
        made[field] = draw(_json)
    return json.dumps(made).encode()


@pytest.mark.parametrize("queue", sorted(QUEUES))
@hypothesis_settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_is_put_into_a_queue_what_follows_is_read(rig: Rig, queue: str, data: st.DataObject) -> None:
    """Every forged message is either rejected and counted, or one that the actors can take."""
    bodies = data.draw(st.lists(_forged(queue), min_size=1, max_size=5))
    before = rig.counted.total()
    for body in bodies:
        rig.put(queue, body)
    rig.put(queue, json.dumps(good(queue, message_id="the last")).encode())
    got: list[Any] = []

    def read() -> bool:
        if (m := next(rig.consumers[queue])) is not None:
            got.append(m)
            rig.consumers[queue].ack(m)
        return bool(got) and got[-1].message_id.startswith("the last")

    eventually(read, what="the good message came")
    for m in got:
        assert m.actor_name == QUEUES[queue] and all(type(id_) is int for id_ in m.args) and not m.kwargs
    assert rig.counted.total() - before + len({m._tag for m in got}) == len(bodies) + 1
    assert {kind for kind, _ in rig.counted} <= {queue.removeprefix("f.")}
    assert {reason for _, reason in rig.counted} <= set(REJECTIONS)
    if queue == "f.dispatch":
        while next(rig.consumers[queue]) is not None:
            pass


def test_log_lines_are_few_and_hold_nothing_of_the_message(rig: Rig) -> None:
    for _ in range(200):
        rig.put("f.dispatch", b'{"password": "canary-7"}')
    rig.put("f.dispatch", json.dumps(good("f.dispatch")).encode())
    with structlog.testing.capture_logs() as lines:
        rig.take("f.dispatch", 2)
    assert 1 <= len(lines) <= 60 and "canary" not in str(lines) and "password" not in str(lines)
    assert rig.counted == {("dispatch", "invalid_fields"): 200}


def test_a_worker_delivers_on_after_forged_messages_in_all_queues(settings: Settings) -> None:
    """The trial: `task_ids` without `service_id` stopped all deliveries until somebody purged the queue."""
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
    from threading import Thread

    from hub.app.lifecycle import build
    from tests.support.hubs import add_rule, add_service, count, emit_many

    class Target(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    target = ThreadingHTTPServer(("127.0.0.1", 0), Target)
    Thread(target=target.serve_forever, daemon=True).start()
    assert settings.broker_url
    with build(settings) as hub:
        add_service(hub, f"http://127.0.0.1:{target.server_port}")
        add_rule(hub)
        connection = pika.BlockingConnection(pika.URLParameters(settings.broker_url.get_secret_value()))
        channel = connection.channel()
        for name, queue in hub.queues.items():
            hub.broker.declare_queue(queue, ensure=True)  # type: ignore[call-arg]
            for change, _ in KNOWN:
                forged = json.dumps(good(f"f.{name}", **({"queue_name": queue} | change)))
                channel.basic_publish("", queue, forged.encode())
        with workers(settings):
            emit_many(hub, 10)
            eventually(lambda: count(hub, "delivered") == 10, what="10 deliveries")
            eventually(lambda: not any(hub.broker.ready(queue) for queue in hub.queues.values()), "empty queues")
        connection.close()
    target.shutdown()
    target.server_close()
