"""Response queues on a real RabbitMQ: everything is stored, nothing blocks, nothing is lost."""

from __future__ import annotations

import json
import signal
import struct
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pika
import pytest

from hub.config.definitions import RuleSpec, ServiceSpec, parse_spec
from hub.errors import UnavailableError
from hub.hooks import Hooks
from hub.inbound.consumer import ResponseConsumer, RunResult, response_services
from hub.inbound.events import through, wanted_by
from hub.inbound.messages import RESPONSE_RECEIVED
from hub.models import Event, Service
from hub.pipeline.intake import Intake
from hub.scheduling.schedule import CONSUME
from hub.settings import Settings
from hub.store.database import Connection, Database, Row
from hub.store.intake import IntakeStore
from hub.store.registry import Registry
from hub.store.responses import Responses
from hub.store.run_log import RunLog
from hub.store.schedules import Schedules
from hub.store.vault import Vault
from hub.store.views import Views
from tests.support.fake_broker import FakeBroker
from tests.support.rabbit import RabbitNode


class Handed:
    """Takes what the intake hands over."""

    def __init__(self) -> None:
        self.tasks: list[tuple[int, int]] = []

    def admits(self, *_: Any) -> bool:
        return True

    def publish(self, tasks: Any) -> None:
        self.tasks += tasks


class Counts(Hooks):
    """Adds up what is reported."""

    def __init__(self) -> None:
        self.runs: list[tuple[str, str]] = []
        self.messages: dict[str, int] = {}
        self.accepted: dict[str, int] = {}

    def consumer_run(self, service: str, outcome: str, seconds: float) -> None:
        self.runs.append((service, outcome))

    def consumer_messages(self, service: str, outcome: str, count: int) -> None:
        self.messages[outcome] = self.messages.get(outcome, 0) + count

    def event_accepted(self, result: str, count: int = 1) -> None:
        self.accepted[result] = self.accepted.get(result, 0) + count


@dataclass
class Bench:
    """A hub's inbound side and one service, `erp`, with a response queue."""

    settings: Settings
    db: Database
    url: str
    queue: str
    registry: Registry
    hooks: Counts = field(default_factory=Counts)
    handed: Handed = field(default_factory=Handed)

    def intake(self) -> Intake:
        return Intake(
            self.registry.configuration,
            IntakeStore(self.db, max_age=3600),
            self.handed,
            self.hooks,
            event_limit=self.settings.event_limit,
        )

    def consumer(self, emit: Any = None, **options: Any) -> ResponseConsumer:
        settings = self.settings.model_copy(update=options)
        return ResponseConsumer(
            Responses(self.db), RunLog(self.db), Schedules(self.db, claimed_by="t"), settings, self.hooks,
            emit=emit or through(self.intake()),
            wanted=lambda: bool(emit) or wanted_by(self.registry.configuration.rules()),
        )  # fmt: skip

    def service(self, name: str = "erp", queue: str | None = None, url: str | None = None) -> Service:
        spec: ServiceSpec = parse_spec(
            ServiceSpec,
            {"name": name, "type": "amqp", "base_url": url or self.url, "response_queue": queue or self.queue},
        )
        return self.registry.services.add(spec)

    def publish(self, *bodies: bytes | str, queue: str | None = None, **properties: Any) -> None:
        self.send([(b, pika.BasicProperties(**properties)) for b in bodies], queue)

    def send(self, messages: list[tuple[bytes | str, pika.BasicProperties]], queue: str | None = None) -> None:
        with pika.BlockingConnection(pika.URLParameters(self.url)) as connection:
            channel = connection.channel()
            channel.queue_declare(queue or self.queue, durable=True)
            channel.confirm_delivery()
            for body, properties in messages:
                raw = body if isinstance(body, bytes) else body.encode()
                channel.basic_publish("", queue or self.queue, raw, properties)

    def left(self, queue: str | None = None) -> int:
        with pika.BlockingConnection(pika.URLParameters(self.url)) as connection:
            return int(connection.channel().queue_declare(queue or self.queue, passive=True).method.message_count)

    def rows(self) -> list[Row]:
        return self.db.all("SELECT * FROM deliveries WHERE direction = 'inbound' ORDER BY id")

    def bodies(self) -> list[str | None]:
        return [row["response_body"] for row in self.rows()]

    def state(self, service: Service) -> Row:
        row = self.db.one("SELECT * FROM consumer_state WHERE service_id = %s", [service.id])
        assert row is not None
        return row


@pytest.fixture
def bench(settings: Settings, broker_url: str, database_url: str, queue_prefix: str) -> Iterator[Bench]:
    db = Database(database_url, size=8)
    db.open()
    assert settings.secret_keys is not None
    registry = Registry(db, Vault([settings.secret_keys.get_secret_value()]))
    yield Bench(settings, db, broker_url, f"{queue_prefix}.answers", registry)
    registry.configuration.close()
    db.close()


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
    [b"not json", b"", b"\xff\xfe\x00", b'{"a": NaN}', b"{" * 50, b"[" * 100_000, b'"\\ud800"', b"a\x00b", b"9" * 5000,
     '{"ä": 1}'.encode("latin-1")],
    ids=lambda b: repr(b[:10]),
)  # fmt: skip
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
    assert len(bench.handed.tasks) == 2


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
        {"half": half}, {"nul": "a\x00b"}, {"bytes": b"\xff\x00"}, {"nested": nested},
        {"list": [1, "a", None, {"b": [True]}]}, {"big": 2**62}, {"when": milliseconds},
    ]  # fmt: skip
    bench.send([("1", pika.BasicProperties(headers=h)) for h in headers])
    bench.publish("2", timestamp=2**60, message_id="m\x00", correlation_id="9" * 40, expiration="60000", priority=3)
    result = bench.consumer().consume(bench.service())
    assert (result.outcome, result.stored) == ("ok", len(headers) + 1)
    properties = [row["properties"] for row in bench.rows()]
    assert [p.get("headers") for p in properties] == [
        {"half": 0.5}, {"nul": "a\ufffdb"}, {"bytes": "\\xff\ufffd"}, {"nested": nested}, headers[4], headers[5],
        {"when": "1800000000000"}, None,
    ]  # fmt: skip
    assert properties[7]["correlation_id"] == "9" * 40 and properties[7]["timestamp"] == 2**60
    assert bench.left() == 0


def test_an_empty_queue_is_a_success(bench: Bench) -> None:
    """Nothing to do is not an error, and the service's page must show that it was looked at."""
    erp = bench.service()
    bench.publish()
    result = bench.consumer().consume(erp)
    assert result == RunResult("ok", seconds=result.seconds)
    assert bench.state(erp)["last_success_at"] is not None


def test_a_missing_queue_is_declared_durable(bench: Bench) -> None:
    """As MIH does: the first answer must have a place to go to."""
    result = bench.consumer().consume(bench.service())
    assert result.declared and result.outcome == "ok"
    bench.publish("1")  # declares it durable: refused if it were not
    assert bench.consumer().consume(bench.registry.configuration.service("erp")).stored == 1


def test_no_two_runs_read_one_queue_at_once(bench: Bench) -> None:
    """A slow run and the next minute's would store messages twice and out of order."""
    erp = bench.service()
    bench.publish("1", "2")
    inside, go_on = threading.Event(), threading.Event()

    def emit(*_: Any) -> Callable[[], None]:
        inside.set()
        assert go_on.wait(120)
        return lambda: None

    first = threading.Thread(target=lambda: bench.consumer(emit).consume(erp))
    first.start()
    assert inside.wait(120)
    try:
        assert bench.consumer().consume(erp).outcome == "skipped"
        other = bench.service("crm", queue=bench.queue + ".crm")
        assert bench.consumer().consume(other).outcome == "ok", "services do not wait for each other"
    finally:
        go_on.set()
        first.join(120)
    assert bench.bodies() == ["1", "2"]
    assert sorted(bench.hooks.runs) == [("crm", "ok"), ("erp", "ok"), ("erp", "skipped")]


@pytest.mark.parametrize("url", ["amqp://guest:guest@127.0.0.1:1/", "amqp://guest:wr0ng-pass@{at}"])
def test_a_broken_service_is_told_clearly_and_holds_no_other(bench: Bench, url: str) -> None:
    """Its page shows why; the secret shows nowhere."""
    bad = bench.service("bad", url=url.format(at=bench.url.partition("@")[2]))
    good = bench.service("good")
    bench.publish("1")
    result = bench.consumer().consume(bad)
    assert result.outcome == "error" and result.error
    assert "wr0ng-pass" not in str(result) + str(bench.state(bad))
    assert bench.state(bad)["last_error"] == result.error
    assert bench.consumer().consume(good).stored == 1
    run = Views(bench.db).runs.scheduled(name=CONSUME, failed=True)[0]
    assert (run["service"], run["error"]) == ("bad", result.error)
    assert Schedules(bench.db, claimed_by="t").get(CONSUME).last_result == "error"


def test_an_exclusive_queue_is_a_clear_error(bench: Bench) -> None:
    """Somebody else has the queue for himself: the broker's words reach the person."""
    with pika.BlockingConnection(pika.URLParameters(bench.url)) as connection:
        connection.channel().queue_declare(bench.queue, exclusive=True)
        result = bench.consumer().consume(bench.service())
    assert result.outcome == "error" and "405" in (result.error or "")


@pytest.mark.parametrize("there", [True, False], ids=["queue there", "queue missing"])
def test_a_missing_permission_is_told_with_what_to_do(
    bench: Bench, broker_node: RabbitNode | None, there: bool
) -> None:
    """The hub's user at the service's broker is somebody else's to set up: say exactly what it lacks."""
    if broker_node is None:
        pytest.skip("needs to make users on the broker")
    vhost, user = bench.url.rpartition("/")[2], f"u{bench.queue[:11]}"
    broker_node.ctl("add_user", user, "pw")
    broker_node.ctl("set_permissions", "-p", vhost, user, "^$", "^$", "^$")
    if there:
        bench.publish("1")
    erp = bench.service(url=f"amqp://{user}:pw@{bench.url.partition('@')[2]}")
    result = bench.consumer().consume(erp)
    assert result.outcome == "error"
    assert "permission" in (result.error or "") and "`read`" in (result.error or "")
    assert bench.queue in bench.state(erp)["last_error"]


def test_a_storage_failure_acknowledges_nothing(bench: Bench) -> None:
    """What cannot be stored stays with the broker."""
    erp = bench.service()
    bench.publish("1", "2", "3")

    def emit(*_: Any) -> Callable[[], None]:
        raise UnavailableError("the database does not answer")

    with pytest.raises(UnavailableError):
        bench.consumer(emit).consume(erp)
    assert bench.bodies() == []
    assert bench.hooks.runs == [("erp", "error")]
    assert bench.consumer().consume(erp).stored == 3


def test_a_database_that_goes_away_in_mid_run_loses_nothing(bench: Bench) -> None:
    """The session of the run is cut off between two batches: the rest stays in the queue, and comes once."""
    erp = bench.service()
    bench.publish(*map(str, range(60)), message_id="m")
    calls = []

    def emit(conn: Connection, *_: Any) -> Callable[[], None]:
        calls.append(1)
        if len(calls) == 3:
            bench.db.run("SELECT pg_terminate_backend(%s)", [conn.info.backend_pid])
        return lambda: None

    with pytest.raises(UnavailableError):
        bench.consumer(emit, consumer_batch=10).consume(erp)
    assert bench.bodies() == [str(i) for i in range(20)]
    bench.consumer().consume(erp)
    assert bench.bodies() == [str(i) for i in range(60)]


_KILLED = """
import os, signal, sys
from hub.config.definitions import ServiceSpec
from hub.hooks import Hooks
from hub.inbound.consumer import ResponseConsumer
from hub.settings import Settings
from hub.store.database import Database
from hub.store.registry import Registry
from hub.store.responses import Responses
from hub.store.run_log import RunLog
from hub.store.schedules import Schedules
from hub.store.vault import Vault
from hub.transports.amqp.response_queue import ResponseQueue

settings = Settings()
db = Database(settings.database_url.get_secret_value())
db.open()
erp = Registry(db, Vault([settings.secret_keys.get_secret_value()])).configuration.service("erp")
seen = []

def killed(self, batch):
    seen.append(batch)
    if len(seen) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    acknowledge(self, batch)

acknowledge = ResponseQueue.acknowledge
ResponseQueue.acknowledge = killed
ResponseConsumer(Responses(db), RunLog(db), Schedules(db, claimed_by="k"), settings, Hooks()).consume(erp)
"""


@pytest.mark.fault
def test_killed_between_commit_and_acknowledgement_loses_nothing_and_repeats_nothing(
    bench: Bench, hub_env: dict[str, str]
) -> None:
    """The broker sends the committed batch again; by their ids the messages are known. The lost run is shown."""
    erp = bench.service()
    bench.send([(str(i), pika.BasicProperties(message_id=f"m{i}")) for i in range(100)])
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_KILLED)],
        env={**hub_env, "HUB_CONSUMER_BATCH": "20"}, capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    assert process.returncode == -signal.SIGKILL, process.stderr.decode()
    assert len(bench.rows()) == 40
    result = bench.consumer().consume(erp)
    assert (result.outcome, result.repeated, result.stored) == ("ok", 20, 60)
    assert bench.bodies() == [str(i) for i in range(100)]
    assert bench.left() == 0
    assert [run["result"] for run in Views(bench.db).runs.scheduled(name=CONSUME)] == ["ok", "lost"]


def test_equal_messages_are_not_taken_for_repeats(bench: Bench) -> None:
    """MIH drops real repeats. Two answers that say the same are two answers, and two events."""
    bench.service()
    bench.registry.rules.add(parse_spec(RuleSpec, {"name": "r", "event": RESPONSE_RECEIVED, "service": "erp"}))
    bench.publish("1", "1", message_id="same")
    bench.publish("1", "1")
    result = bench.consumer().consume(bench.registry.configuration.service("erp"))
    assert (result.stored, result.repeated) == (4, 0)
    assert len(bench.handed.tasks) == 4


def test_a_response_is_an_event_that_rules_match_and_knows_its_task(bench: Bench) -> None:
    """Request, answer, next step: the correlation id leads from the answer to the task that asked."""
    bench.service()
    bench.registry.rules.add(parse_spec(RuleSpec, {"name": "ask", "event": "asked", "service": "erp"}))
    bench.registry.rules.add(parse_spec(RuleSpec, {"name": "next", "event": RESPONSE_RECEIVED, "service": "erp"}))
    (task,) = bench.intake().handle_event(Event("asked", {})).tasks
    bench.publish('{"done": true}', correlation_id=str(task), message_id="m1", headers={"k": "v"})
    bench.publish('{"done": false}', correlation_id="777777")
    bench.consumer().consume(bench.registry.configuration.service("erp"))
    first, second = bench.rows()
    assert first["task_id"] == task
    assert second["task_id"] is None, "no task of ours has that number"
    assert second["properties"]["correlation_id"] == "777777"
    events = bench.db.all("SELECT * FROM events WHERE name = %s ORDER BY id", [RESPONSE_RECEIVED])
    assert json.loads(events[0]["data"]) == {
        "service": "erp", "queue": bench.queue, "correlation_id": str(task), "task_id": task, "message_id": "m1",
        "headers": {"k": "v"}, "payload": {"done": True},
    }  # fmt: skip
    assert [event["depth"] for event in events] == [1, 1]
    tasks = bench.db.all("SELECT id FROM tasks WHERE event_id = ANY(%s)", [[e["id"] for e in events]])
    assert {row["id"] for row in tasks} <= {task_id for _, task_id in bench.handed.tasks}


def test_a_response_on_one_services_queue_attaches_to_no_task_of_another(bench: Bench) -> None:
    """Whoever may write to one queue must not file messages under another service's tasks."""
    bench.service()
    bench.service("crm", queue=f"{bench.queue}.crm")
    bench.registry.rules.add(parse_spec(RuleSpec, {"name": "ask", "event": "asked", "service": "crm"}))
    bench.registry.rules.add(parse_spec(RuleSpec, {"name": "next", "event": RESPONSE_RECEIVED, "service": "erp"}))
    (task,) = bench.intake().handle_events([Event("asked", {})], depth=3)[0].tasks
    bench.publish("1", correlation_id=str(task))
    bench.consumer().consume(bench.registry.configuration.service("erp"))
    bench.publish("2", correlation_id=str(task), queue=f"{bench.queue}.crm")
    bench.consumer().consume(bench.registry.configuration.service("crm"))
    foreign, own = bench.rows()
    assert foreign["task_id"] is None and foreign["properties"]["correlation_id"] == str(task)
    assert own["task_id"] == task
    depths = bench.db.all("SELECT depth FROM events WHERE name = %s", [RESPONSE_RECEIVED])
    assert {row["depth"] for row in depths} == {4}, "another service's queue is no way out of a chain's limit"


def test_a_chain_is_cut_at_the_depth_and_counted(bench: Bench) -> None:
    """A rule on answers that asks the same service again would go on for ever."""
    bench.service()
    bench.registry.rules.add(parse_spec(RuleSpec, {"name": "loop", "event": "*", "service": "erp"}))
    (task,) = bench.intake().handle_event(Event("asked", {})).tasks
    for _ in range(3):
        bench.publish("{}", correlation_id=str(task))
        result = bench.consumer(max_depth=2).consume(bench.registry.configuration.service("erp"))
        assert result.stored == 1
        row = bench.db.one("SELECT max(id) AS id FROM tasks")
        assert row is not None
        task = row["id"]
    assert result.cut == 1 and "cut" in result.summary()
    assert bench.hooks.accepted["cut"] == 1
    assert bench.rows()[-1]["properties"]["chain_cut_at"] == 3


def test_the_depth_is_known_after_the_task_was_delivered(bench: Bench) -> None:
    """Answers mostly come when their task is gone from the ledger."""
    bench.service()
    bench.registry.rules.add(parse_spec(RuleSpec, {"name": "loop", "event": "*", "service": "erp"}))
    (task,) = bench.intake().handle_events([Event("asked", {})], depth=4)[0].tasks
    bench.db.run(
        "INSERT INTO deliveries (direction, task_id, event_id, service_id, service, success, outcome)"
        " SELECT 'outbound', id, event_id, service_id, 'erp', true, 'success' FROM tasks"
    )
    bench.db.run("DELETE FROM tasks")
    bench.publish("{}", correlation_id=str(task))
    bench.consumer(max_depth=5).consume(bench.registry.configuration.service("erp"))
    assert bench.rows()[0]["task_id"] == task
    assert bench.db.one("SELECT max(depth) AS d FROM events") == {"d": 5}


def test_a_run_ends_in_time_and_the_next_takes_the_rest(bench: Bench) -> None:
    """A flood must not hold a worker for ever; nothing is skipped over."""
    erp = bench.service()
    bench.publish(*map(str, range(300)))
    result = bench.consumer(consumer_run_time=1e-9, consumer_batch=10).consume(erp)
    assert result.outcome == "ok" and result.unfinished and "next time" in result.summary()
    bench.consumer().consume(erp)
    assert bench.bodies() == [str(i) for i in range(300)]


def test_a_batch_is_bounded_by_its_bytes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """500 messages of a megabyte would be half a gigabyte."""
    monkeypatch.setattr("hub.inbound.consumer._BATCH_BYTES", 50_000)
    sizes = []

    def emit(_: Connection, events: list[Event], depths: list[int]) -> Callable[[], None]:
        sizes.append(len(events))
        return lambda: None

    bench.publish(*[json.dumps("x" * 20_000)] * 30)
    result = bench.consumer(emit).consume(bench.service())
    assert result.stored == sum(sizes) == 30
    assert len(sizes) > 1


def test_configured_paths_are_masked_in_the_log(bench: Bench) -> None:
    """The mask is for what people see; rules get the whole answer."""
    spec = {"name": "erp", "type": "amqp", "base_url": bench.url, "response_queue": bench.queue, "mask": ["pin"]}
    erp = bench.registry.services.add(parse_spec(ServiceSpec, spec))
    bench.publish('{"pin": "1234", "ok": true}')
    bench.consumer().consume(erp)
    assert json.loads(bench.bodies()[0] or "") == {"pin": "***", "ok": True}


def test_responses_that_no_rule_wants_are_counted_and_shown_as_a_suggestion(bench: Bench) -> None:
    """Who writes a rule for them picks the name from what was seen, and previews on a real one."""
    erp = bench.service()
    bench.publish("1", "2", '{"n": 3}')
    bench.consumer().consume(erp)
    assert bench.hooks.accepted == {"unmatched": 3}
    seen = bench.db.one("SELECT sample FROM event_names WHERE name = %s", [RESPONSE_RECEIVED])
    assert seen is not None and json.loads(seen["sample"])["payload"] == {"n": 3}


def test_which_services_are_consumed(bench: Bench) -> None:
    """Enabled, AMQP, with a response queue; nothing else."""
    bench.service()
    bench.service("off")
    bench.registry.services.enable("off", False)
    bench.registry.services.add(parse_spec(ServiceSpec, {"name": "rest", "base_url": "http://127.0.0.1:1"}))
    bench.registry.services.add(parse_spec(ServiceSpec, {"name": "mute", "type": "amqp", "base_url": bench.url}))
    assert [s.name for s in response_services(bench.registry.configuration.services())] == ["erp"]


def test_a_queue_deleted_while_it_is_read_is_an_error_and_what_came_is_kept(bench: Bench) -> None:
    """The broker cancels the consumer; the run must not wait for ever."""
    erp = bench.service()
    bench.publish(*map(str, range(100)))

    def emit(*_: Any) -> Callable[[], None]:
        with pika.BlockingConnection(pika.URLParameters(bench.url)) as connection:
            connection.channel().queue_delete(bench.queue)
        return lambda: None

    result = bench.consumer(emit, consumer_batch=10).consume(erp)
    assert result.outcome == "error" and result.error
    assert bench.bodies()[:10] == [str(i) for i in range(10)]
