"""What one rule or event can take of a worker and its network is bounded, and the limits say their names."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from hub.app.lifecycle import Hub, build
from hub.settings import Settings
from tests.support.http_target import HttpTarget, Seen
from tests.support.hubs import add_rule, add_service, attempt, emit, task
from tests.support.waiting import eventually


@pytest.fixture
def small(alone: Settings) -> Iterator[Hub]:
    with build(alone.model_copy(update={"bodies_in_flight": 1_048_576})) as hub:
        yield hub


def test_an_endpoint_that_is_too_long_fails_the_attempt_and_reaches_no_network(hub: Hub, target: HttpTarget) -> None:
    add_service(hub, target.url)
    add_rule(hub, endpoint="/{{a}}")
    (task_id,) = emit(hub, data={"a": "x" * 900_000})
    assert attempt(hub, task_id) == "failed"
    assert not target.seen
    row = hub.db.one("SELECT * FROM deliveries WHERE task_id = %s", [task_id])
    assert row is not None and "endpoint: has more than 8192 characters" in row["error"] and row["tries"] == 0
    assert task(hub, task_id)["attempts"] == 1


def test_a_large_body_waits_while_a_service_that_hangs_holds_its_share(small: Hub, target: HttpTarget) -> None:
    """It costs no attempt, and a body of another service goes through."""
    release = threading.Event()

    def hang(_: Seen) -> int:
        release.wait(60)
        return 204

    for name in ("bad", "good"):
        add_service(small, target.url, name, timeout=60)
        add_rule(small, name, name, name, endpoint=f"/{name}")
    target.on("/bad", hang)
    data = {"a": "x" * 400_000}
    first, second = emit(small, "bad", data)[0], emit(small, "bad", data | {"b": 1})[0]
    thread = threading.Thread(target=attempt, args=(small, first))
    thread.start()
    try:
        eventually(lambda: len(target.at("/bad")) == 1)
        assert attempt(small, second) == "parked"
        row = task(small, second)
        assert row["attempts"] == 0 and "HUB_BODIES_IN_FLIGHT" in row["last_error"]
        assert attempt(small, emit(small, "good", data)[0]) == "delivered"
    finally:
        release.set()
        thread.join()
    small.db.run("UPDATE tasks SET state = 'pending', next_run_at = now() WHERE id = %s", [second])
    assert attempt(small, second) == "delivered"
