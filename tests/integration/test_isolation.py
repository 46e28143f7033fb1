"""One service that hangs does not keep the others from being served."""

from __future__ import annotations

import threading

import pytest

from hub.app.lifecycle import Hub
from hub.programs.up import work
from tests.support.http_target import HttpTarget, Seen
from tests.support.hubs import add_rule, add_service, count, emit_many
from tests.support.waiting import eventually


@pytest.mark.parametrize("before", ["unknown", "quick"])
def test_a_service_that_hangs_does_not_stop_another(hub: Hub, target: HttpTarget, before: str) -> None:
    """Neither one that hangs from its first request, nor one that was quick until a moment ago."""
    release = threading.Event()

    def hang(_: Seen) -> int:
        release.wait(60)
        return 204

    for name in ("bad", "good"):
        add_service(hub, target.url, name, timeout=60, cb_failure_threshold=0)
        add_rule(hub, name, name, name, endpoint=f"/{name}")
    try:
        with work(hub, threads=4):
            if before == "quick":
                emit_many(hub, 50, "bad")
                eventually(lambda: count(hub, "tasks") == 0)
            target.on("/bad", hang)
            emit_many(hub, 100, "bad", start=1000)
            eventually(lambda: len(target.at("/bad")) >= 3)
            emit_many(hub, 100, "good")
            eventually(lambda: len(target.at("/good")) == 100, "the good service is served")
            assert count(hub, "running") >= 3, "the bad one still hangs"
            release.set()
            eventually(lambda: count(hub, "tasks") == 0)
    finally:
        release.set()
    assert len({seen.body for seen in target.at("/bad")}) == len(target.at("/bad"))
