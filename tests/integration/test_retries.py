"""Five attempts, then the dead-letter queue: what counts, how long until the next, and who records it."""

from __future__ import annotations

import socket
from typing import Any

import dramatiq
import pytest
from structlog.testing import capture_logs

from hub.app.lifecycle import Hub, build
from hub.errors import ConfigError, UnavailableError
from hub.models import BreakerState
from hub.pipeline.attempts import AttemptRecorder, FailedAttempt
from hub.settings import Settings
from hub.tasks.retries import AttemptFailed, TaskRetries
from tests.support.http_target import HttpTarget, Reply
from tests.support.hubs import add_rule, add_service, attempt, count, counts_are_exact, due_now, emit, task

DEFAULTS = Settings.model_fields["retry_delays"].default


def recorder(hub: Hub, jitter: float = 0.0) -> AttemptRecorder:
    settings = hub.settings.model_copy(update={"retry_delays": DEFAULTS})
    return AttemptRecorder(settings, hub.ledger, hub.dead_letters, hub.hooks, jitter=lambda: jitter)


def breaker(hub: Hub) -> tuple[str, int]:
    row = hub.db.one("SELECT state, failures FROM breakers")
    assert row is not None
    return row["state"], row["failures"]


@pytest.mark.parametrize("jitter", [-1.0, 0.0, 1.0])
def test_attempts_1_to_4_are_60_120_240_480_seconds_apart_and_the_fifth_is_the_last(
    hub: Hub, target: HttpTarget, jitter: float
) -> None:
    """The heart of the hub: +-10 % jitter, five attempts, one dead letter with the real error."""
    target.default = Reply(500, {"sorry": True})
    add_service(hub, target.url, cb_failure_threshold=0)
    add_rule(hub)
    (task_id,) = emit(hub)
    hub.attempts = recorder(hub, jitter)
    for number, delay in enumerate((60, 120, 240, 480), start=1):
        assert attempt(hub, task_id) == "failed"
        row = task(hub, task_id)
        assert (row["state"], row["attempts"]) == ("delayed", number)
        assert row["due_in"] == pytest.approx(delay * (1 + 0.1 * jitter), abs=0.01)
        assert attempt(hub, task_id) == "skipped", "it is not due"
        due_now(hub)
    assert attempt(hub, task_id) == "failed"
    assert count(hub, "tasks") == 0 and len(target.seen) == 5
    letter = hub.views.dead_letters.get(hub.views.dead_letters.list()[0]["id"])
    assert (letter["reason"], letter["attempts"], letter["status"]) == ("attempts", 5, 500)
    assert "500" in letter["error"] and letter["response_body"] == '{"sorry": true}' and letter["payload"] == '{"n":1}'
    assert [d["attempt"] for d in hub.views.deliveries.list(task=task_id)] == [5, 4, 3, 2, 1]
    assert attempt(hub, task_id) == "skipped" and counts_are_exact(hub)
    assert len({seen.headers["idempotency-key"] for seen in target.seen}) == 1


def test_a_service_may_have_its_own_attempts_and_delays(hub: Hub, target: HttpTarget) -> None:
    target.default = 500
    add_service(hub, target.url, max_attempts=3, retry_delays=[7, 9])
    add_rule(hub)
    (task_id,) = emit(hub)
    hub.attempts = recorder(hub)
    for delay in (7, 9):
        attempt(hub, task_id)
        assert task(hub, task_id)["due_in"] == pytest.approx(delay, abs=0.01)
        due_now(hub)
    attempt(hub, task_id)
    assert hub.views.dead_letters.list()[0]["attempts"] == 3 == len(target.seen)


@pytest.mark.parametrize(
    ("retry_after", "delay"), [(None, 60), (5, 60), (300, 300), (10**8, 3600), ("soon", 60), (-5, 60)]
)
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_honoured_and_capped(
    hub: Hub, target: HttpTarget, status: int, retry_after: object, delay: int
) -> None:
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    target.default = Reply(status, headers=headers)
    add_service(hub, target.url)
    add_rule(hub)
    (task_id,) = emit(hub)
    hub.attempts = recorder(hub)
    attempt(hub, task_id)
    assert task(hub, task_id)["due_in"] == pytest.approx(delay, abs=0.01)


TABLE = [  # what the service does, tries of 3 made, whether the breaker counts it
    (500, 3, True),
    (502, 3, True),
    (503, 3, True),
    (429, 1, False),
    (408, 1, True),
    (400, 1, False),
    (404, 1, False),
    (401, 1, False),
    (301, 1, False),
    (304, 1, False),
    (Reply(503, headers={"Retry-After": "1"}), 1, True),
    (Reply(204, delay=5), 3, True),
    (Reply(429, headers={"Retry-After": "1"}), 1, False),
]


@pytest.mark.parametrize(("answer", "tries", "trips"), TABLE, ids=[str(a)[:40] for a, _, _ in TABLE])
def test_every_failure_counts_as_an_attempt_and_only_a_dead_service_trips_the_breaker(
    hub: Hub, target: HttpTarget, answer: Any, tries: int, trips: bool
) -> None:
    """The table "How failures are treated". MIH opened the circuit for any answer that was no 2xx."""
    target.default = answer
    add_service(hub, target.url, max_retries=3, timeout=0.3)
    add_rule(hub)
    (task_id,) = emit(hub)
    assert attempt(hub, task_id) == "failed"
    assert len(target.seen) == tries and task(hub, task_id)["attempts"] == 1
    assert breaker(hub) == ("closed", 1 if trips else 0)
    row = hub.views.deliveries.list(task=task_id)[0]
    assert row["tries"] == tries and not row["success"] and row["error"]


def test_a_refused_connection_is_tried_again_and_trips(hub: Hub) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        add_service(hub, f"http://127.0.0.1:{free.getsockname()[1]}", max_retries=3)
        add_rule(hub)
        (task_id,) = emit(hub)
        assert attempt(hub, task_id) == "failed"
    row = hub.views.deliveries.list()[0]
    assert row["tries"] == 3 and breaker(hub) == ("closed", 1)


@pytest.mark.parametrize(("max_retries", "tries"), [(0, 1), (1, 1), (3, 3)])
def test_a_dispatch_makes_at_most_max_retries_times_five_network_tries(
    hub: Hub, target: HttpTarget, max_retries: int, tries: int
) -> None:
    target.default = 500
    add_service(hub, target.url, max_retries=max_retries, cb_failure_threshold=0)
    add_rule(hub)
    (task_id,) = emit(hub)
    while count(hub, "tasks"):
        assert attempt(hub, task_id) == "failed"
        due_now(hub)
    assert len(target.seen) == tries * 5 and len(hub.views.deliveries.list()) == 5
    assert len({seen.headers["idempotency-key"] for seen in target.seen}) == 1


def test_a_template_that_gives_no_payload_counts_moves_no_breaker_and_keeps_the_real_error(
    hub: Hub, target: HttpTarget
) -> None:
    """In MIH such a task was never counted and never became a dead letter: it came back for ever."""
    add_service(hub, target.url)
    add_rule(hub, payload={"id": "{{not.there}}"}, strict=True)
    (task_id,) = emit(hub)
    while count(hub, "tasks"):
        assert attempt(hub, task_id) == "failed"
        assert breaker(hub) == ("closed", 0)
        due_now(hub)
    letter = hub.views.dead_letters.list()[0]
    assert letter["attempts"] == 5 and "not.there" in letter["error"] and target.seen == []


def test_event_data_that_cannot_be_read_counts_and_does_not_come_back_for_ever(hub: Hub, target: HttpTarget) -> None:
    """Whatever got into the ledger once (another version, a person with SQL): five attempts, and its reason."""
    add_service(hub, target.url)
    add_rule(hub)
    (task_id,) = emit(hub)
    hub.db.run("UPDATE events SET data = '{'")
    while count(hub, "tasks"):
        assert attempt(hub, task_id) == "failed"
        due_now(hub)
    (letter,) = hub.views.dead_letters.list()
    assert letter["attempts"] == 5 and "data cannot be read" in letter["error"] and target.seen == []


def trip(hub: Hub) -> None:
    hub.db.run("UPDATE breakers SET state = 'open', failures = 5, epoch = 1, retry_at = now() + interval '20 s'")


def test_an_open_circuit_parks_and_costs_no_attempt(hub: Hub, target: HttpTarget) -> None:
    """MIH burnt all attempts of a task within the cooldown."""
    add_service(hub, target.url)
    add_rule(hub)
    (task_id,) = emit(hub)
    trip(hub)
    for _ in range(7):
        assert attempt(hub, task_id) == "parked"
        row = task(hub, task_id)
        assert (row["state"], row["attempts"]) == ("delayed", 0) and 8 < row["due_in"] <= 20
        due_now(hub)
    assert "circuit" in row["last_error"] and target.seen == [] and count(hub, "deliveries") == 0
    hub.breakers.reset(hub.configuration.service("crm"))
    assert attempt(hub, task_id) == "delivered"


def test_the_setting_count_makes_an_open_circuit_cost_attempts(alone: Settings, hub: Hub, target: HttpTarget) -> None:
    """`HUB_CIRCUIT_OPEN=count` is MIH's behaviour, for who depends on it."""
    add_service(hub, target.url)
    add_rule(hub)
    (task_id,) = emit(hub)
    trip(hub)
    with build(alone.model_copy(update={"circuit_open": "count"}), role="up") as counting:
        counting.lease.start()
        assert counting.relay is not None
        while count(hub, "tasks"):
            due_now(hub)
            counting.relay.tick()
            assert task(hub, task_id)["state"] == "queued", "the relay does not hold it back either"
            assert attempt(counting, task_id) == "failed"
    letter = hub.views.dead_letters.list()[0]
    assert letter["attempts"] == 5 and "circuit" in letter["error"] and target.seen == []


def test_a_breaker_switched_off_while_open_lets_everything_through(hub: Hub, target: HttpTarget) -> None:
    add_service(hub, target.url)
    add_rule(hub)
    trip(hub)
    hub.registry.services.update("crm", {"cb_failure_threshold": 0})
    (task_id,) = emit(hub)
    assert attempt(hub, task_id) == "delivered" and breaker(hub)[0] == BreakerState.CLOSED


def test_the_hubs_own_fault_before_a_send_costs_no_attempt(
    hub: Hub, target: HttpTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever breaks inside the hub is not the service's failure."""
    add_service(hub, target.url)
    add_rule(hub)
    (task_id,) = emit(hub)
    for fault in (UnavailableError("away"), ConfigError("wrong keys"), RuntimeError("a bug")):

        def broken(*_: object, fault: Exception = fault, **__: object) -> None:
            raise fault

        with monkeypatch.context() as patch:
            patch.setattr(hub.gateway._rate_limits, "acquire", broken)
            assert attempt(hub, task_id) == "parked"
        assert task(hub, task_id)["attempts"] == 0 and breaker(hub) == ("closed", 0)
        due_now(hub)
    assert attempt(hub, task_id) == "delivered" and len(target.seen) == 1


def test_a_worker_whose_lease_is_over_sends_nothing(hub: Hub, target: HttpTarget) -> None:
    """Others may have its tasks by now."""
    add_service(hub, target.url)
    add_rule(hub)
    (task_id,) = emit(hub)
    hub.lease._stop.set()
    hub.lease._renewed = float("-inf")
    assert attempt(hub, task_id) == "parked" and target.seen == [] and task(hub, task_id)["attempts"] == 0


class _Message:
    failed = False

    def fail(self) -> None:
        self.failed = True


def failure(hub: Hub) -> tuple[int, FailedAttempt]:
    add_service(hub, "http://127.0.0.1:9", timeout=0.2)
    add_rule(hub)
    (task_id,) = emit(hub)
    failed = hub.dispatcher.run(task_id)
    assert isinstance(failed, FailedAttempt)
    return task_id, failed


def test_a_recorded_attempt_is_an_acknowledged_message(hub: Hub) -> None:
    task_id, failed = failure(hub)
    message = _Message()
    hub.retries.after_process_message(hub.broker, message, exception=AttemptFailed(failed))
    assert not message.failed and task(hub, task_id)["state"] == "delayed"


def test_an_attempt_that_cannot_be_recorded_leaves_the_message_failed(hub: Hub) -> None:
    """Dramatiq swallows what the hook raises and acknowledges what is not marked."""
    _, failed = failure(hub)
    message = _Message()
    hub.db.close()
    hub.ledger.stop()
    with capture_logs() as lines:
        hub.retries.after_process_message(hub.broker, message, exception=AttemptFailed(failed))
    assert message.failed
    assert ("warning", "attempt not recorded; the lease recovers the task") in [
        (line["log_level"], line["event"]) for line in lines
    ]


def test_failures_of_a_drained_group_are_recorded_alike(hub: Hub, target: HttpTarget) -> None:
    """Those before the last one are recorded by the thread, the last one by the middleware."""
    target.default = 500
    add_service(hub, target.url, cb_failure_threshold=0)
    add_rule(hub)
    tasks = [emit(hub, data={"n": n})[0] for n in range(3)]
    service_id = hub.configuration.service("crm").id
    hub.bulkhead.threads = 1
    assert hub.bulkhead.enter(service_id, 0)
    for task_id in tasks[1:]:
        assert not hub.bulkhead.enter(service_id, task_id)
    with hub.bulkhead._lock:
        hub.bulkhead._held[service_id] = hub.bulkhead._total = 0
    message = _Message()
    with pytest.raises(AttemptFailed) as raised:
        hub.actors.dispatch.fn(tasks[0], service_id)
    hub.retries.after_process_message(hub.broker, message, exception=raised.value)
    rows = [task(hub, task_id) for task_id in tasks]
    assert [(row["state"], row["attempts"], row["last_error"]) for row in rows] == [
        ("delayed", 1, rows[0]["last_error"])
    ] * 3
    assert not message.failed and count(hub, "deliveries") == 3 and counts_are_exact(hub)


def test_a_process_that_stops_while_the_database_is_away_leaves_tasks_to_others_without_a_traceback(hub: Hub) -> None:
    """Dramatiq would log what an actor raises as an error with a traceback, and set its message aside for good."""
    hub.db.close()
    hub.ledger.drain()
    with capture_logs() as lines:
        hub.actors.dispatch.fn(1, 1)
    assert [(line["log_level"], line["event"]) for line in lines] == [
        ("warning", "not attempted: the process is stopping")
    ]


@pytest.mark.parametrize("exception", [RuntimeError("x"), UnavailableError("x")])
def test_any_other_exception_leaves_the_message_failed(hub: Hub, exception: Exception) -> None:
    message = _Message()
    hub.retries.after_process_message(hub.broker, message, exception=exception)
    assert message.failed
    other = _Message()
    hub.retries.after_process_message(hub.broker, other)
    assert not other.failed


def test_the_middleware_is_on_the_broker_and_stock_retries_are_not(hub: Hub) -> None:
    """Dramatiq's own would retry from delay queues, which RabbitMQ kills after 30 minutes."""
    kinds = [type(m) for m in hub.broker.middleware]
    assert TaskRetries in kinds and dramatiq.middleware.Retries not in kinds


def test_a_replay_goes_through_the_same_rule_from_attempt_0_with_a_new_key(hub: Hub, target: HttpTarget) -> None:
    """MIH's replay took any matching rule, always POSTed, and deleted before it knew."""
    target.default = 500
    add_service(hub, target.url, max_attempts=1)
    add_rule(hub, "other", endpoint="/wrong", method="POST")
    add_rule(hub, "right", endpoint="/right/{{n}}", method="PUT", payload={"v": "{{n}}"})
    for task_id in emit(hub, data={"n": 7}):
        attempt(hub, task_id)
    letter = next(d for d in hub.views.dead_letters.list() if d["rule"] == "right")
    target.default = 204
    replayed = hub.dead_letters.replay([letter["id"]])
    assert len(replayed.tasks) == 1 and count(hub, "dead_letters") == 1
    assert task(hub, replayed.tasks[0])["attempts"] == 0
    assert attempt(hub, replayed.tasks[0]) == "delivered"
    last = target.seen[-1]
    assert (last.method, last.path, last.json()) == ("PUT", "/right/7", {"v": 7})
    assert last.headers["idempotency-key"] not in {seen.headers["idempotency-key"] for seen in target.seen[:-1]}


def test_a_dead_letter_whose_rule_is_gone_stays(hub: Hub, target: HttpTarget) -> None:
    target.default = 500
    add_service(hub, target.url, max_attempts=1)
    add_rule(hub)
    attempt(hub, emit(hub)[0])
    hub.registry.rules.delete("r1")
    assert hub.dead_letters.replay().tasks == () and hub.dead_letters.replay().orphans == 1
    assert count(hub, "dead_letters") == 1 and count(hub, "tasks") == 0


def test_a_replay_still_works_when_the_event_was_purged(hub: Hub, target: HttpTarget) -> None:
    target.default = 500
    add_service(hub, target.url, max_attempts=1)
    add_rule(hub)
    attempt(hub, emit(hub)[0])
    hub.db.run("DELETE FROM events")
    target.default = 204
    (task_id,) = hub.dead_letters.replay().tasks
    assert attempt(hub, task_id) == "delivered" and target.seen[-1].json() == {"n": 1}
