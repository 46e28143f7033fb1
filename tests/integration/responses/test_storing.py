"""Every message of a response queue is stored, whatever it holds."""

from __future__ import annotations

import json
import struct
from typing import Any

import pika
import pytest

from hub.config.definitions import RuleSpec, ServiceSpec, parse_spec
from hub.inbound.messages import RESPONSE_RECEIVED
from tests.integration.responses.bench import Bench
from tests.support.fake_broker import FakeBroker


def test_everything_that_waits_is_stored_and_acknowledged_in_one_run(bench: Bench) -> None:
    """MIH takes 50 a minute and falls behind for ever."""
    erp = bench.service()
    bench.publish(*[json.dumps({"n": i}) for i in range(1234)])
    result = bench.consumer(consumer_batch=100).consume(erp)
    assert (result.outcome, result.stored, result.pending) == ("ok", 1234, 1234)
    assert [json.loads(b or "")["n"] for b in bench.bodies()] == list(range(1234))
    assert bench.left() == 0
    assert bench.hooks.messages == {"stored": 1234}
    assert bench.hooks.runs == [("erp", "ok")]
    assert bench.state(erp)["last_success_at"] is not None


def test_objects_arrays_and_scalars_are_all_stored(bench: Bench) -> None:
    """MIH fails on a JSON scalar and gets it redelivered for ever."""
    bodies = ['{"a": 1}', "[1, 2]", '"text"', "42", "-1.5e3", "true", "null", '{"nul": "\\u0000", "é": "😀"}', "{}"]
    bench.publish(*bodies)
    result = bench.consumer().consume(bench.service())
    assert (result.stored, result.malformed) == (len(bodies), 0)
    assert bench.bodies() == bodies
    assert all(row["success"] and row["outcome"] == "success" and row["raw"] is None for row in bench.rows())
    assert bench.left() == 0


@pytest.mark.parametrize(
    "body",
    [
        b"not json",
        b"",
        b"\xff\xfe\x00",
        b'{"a": NaN}',
        b"{" * 50,
        b"[" * 100_000,
        b'"\\ud800"',
        b"a\x00b",
        b"9" * 5000,
        '{"ä": 1}'.encode("latin-1"),
    ],
    ids=lambda b: repr(b[:10]),
)
def test_what_is_no_json_is_kept_with_its_bytes_and_the_reason(bench: Bench, body: bytes) -> None:
    """MIH acknowledges and drops it: nobody ever learns what the service said."""
    bench.publish('{"before": 1}', body, '{"after": 1}')
    result = bench.consumer().consume(bench.service())
    assert (result.outcome, result.stored, result.malformed) == ("ok", 2, 1)
    row = bench.rows()[1]
    assert bytes(row["raw"]) == body
    assert not row["success"] and row["outcome"] == "malformed" and row["error"]
    assert bench.left() == 0


def test_a_number_that_no_writer_can_write_becomes_no_event_but_is_stored(bench: Bench) -> None:
    """1e999 parses as infinity; it must not stop the batch it is in."""
    bench.service()
    bench.registry.rules.add(parse_spec(RuleSpec, {"name": "r", "event": RESPONSE_RECEIVED, "service": "erp"}))
    bench.publish("1", "1e999", "2")
    result = bench.consumer().consume(bench.registry.configuration.service("erp"))
    assert (result.outcome, result.stored) == ("ok", 3)
    assert "no event" in bench.rows()[1]["error"]
    assert len(bench.enqueued.tasks) == 2


def test_of_an_oversize_message_the_first_bytes_its_size_and_hash_are_kept(bench: Bench) -> None:
    """It must neither fill the memory nor block the queue."""
    bench.publish("1", b"x" * 300_000, "2")
    result = bench.consumer(message_limit=100_000).consume(bench.service())
    assert (result.stored, result.malformed) == (2, 1)
    row = bench.rows()[1]
    assert row["properties"]["size"] == 300_000 and len(row["properties"]["sha256"]) == 64
    assert row["raw"] == b"x" * 100_000 and "HUB_MESSAGE_LIMIT" in row["error"]


@pytest.mark.parametrize(("announced", "frame_size"), [(2**40, None), (1000, 2**31)])
def test_what_a_broker_announces_is_looked_at_before_it_is_read(
    bench: Bench, announced: int, frame_size: int | None
) -> None:
    """A broker that announces a terabyte, or a frame of two gigabytes, must not fill the memory."""
    with FakeBroker(announced, frame_size=frame_size) as broker:
        result = bench.consumer(consumer_run_time=20.0).consume(bench.service(url=broker.url, queue="q"))
        assert result.outcome == "error" and "announced" in (result.error or "")
        assert broker.sent < 50_000_000, "the connection was closed, not read on"


class Encoded(bytes):
    """A header's value as it goes over the wire; pika writes fewer kinds than other libraries do."""


def test_hostile_headers_do_not_block_the_queue(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """pika cannot decode some of them, and PostgreSQL cannot store some: one message would stop all."""
    plain = pika.data.encode_value

    def encode(pieces: list[bytes], value: Any) -> int:
        if isinstance(value, Encoded):
            pieces.append(bytes(value))
            return len(value)
        return int(plain(pieces, value))

    monkeypatch.setattr("pika.data.encode_value", encode)
    half = Encoded(b"d" + struct.pack(">d", 0.5))
    milliseconds = Encoded(b"T" + struct.pack(">Q", 1_800_000_000_000))
    nested: dict[str, Any] = {}
    for _ in range(60):
        nested = {"n": nested}
    headers: list[dict[str, Any]] = [
        {"half": half},
        {"nul": "a\x00b"},
        {"bytes": b"\xff\x00"},
        {"nested": nested},
        {"list": [1, "a", None, {"b": [True]}]},
        {"big": 2**62},
        {"when": milliseconds},
    ]
    bench.send([("1", pika.BasicProperties(headers=h)) for h in headers])
    bench.publish("2", timestamp=2**60, message_id="m\x00", correlation_id="9" * 40, expiration="60000", priority=3)
    result = bench.consumer().consume(bench.service())
    assert (result.outcome, result.stored) == ("ok", len(headers) + 1)
    properties = [row["properties"] for row in bench.rows()]
    assert [p.get("headers") for p in properties] == [
        {"half": 0.5},
        {"nul": "a\ufffdb"},
        {"bytes": "\\xff\ufffd"},
        {"nested": nested},
        headers[4],
        headers[5],
        {"when": "1800000000000"},
        None,
    ]
    assert properties[7]["correlation_id"] == "9" * 40 and properties[7]["timestamp"] == 2**60
    assert bench.left() == 0


def test_equal_messages_are_not_taken_for_repeats(bench: Bench) -> None:
    """MIH drops real repeats. Two answers that say the same are two answers, and two events."""
    bench.service()
    bench.registry.rules.add(parse_spec(RuleSpec, {"name": "r", "event": RESPONSE_RECEIVED, "service": "erp"}))
    bench.publish("1", "1", message_id="same")
    bench.publish("1", "1")
    result = bench.consumer().consume(bench.registry.configuration.service("erp"))
    assert (result.stored, result.repeated) == (4, 0)
    assert len(bench.enqueued.tasks) == 4


def test_configured_paths_are_masked_in_the_log(bench: Bench) -> None:
    """The mask is for what people see; rules get the whole answer."""
    spec = {"name": "erp", "type": "amqp", "base_url": bench.url, "response_queue": bench.queue, "mask": ["pin"]}
    erp = bench.registry.services.add(parse_spec(ServiceSpec, spec))
    bench.publish('{"pin": "1234", "ok": true}')
    bench.consumer().consume(erp)
    assert json.loads(bench.bodies()[0] or "") == {"pin": "***", "ok": True}
