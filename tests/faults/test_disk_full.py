"""The disk under PostgreSQL is full: what cannot be kept is refused, what was accepted is delivered later."""

from __future__ import annotations

from collections import Counter

import pytest
from pydantic import SecretStr

from hub.app.lifecycle import build
from hub.settings import Settings
from hub.store.migrate import migrate
from hub.store.state import State
from tests.faults import small_disk
from tests.faults.source import BATCH, Source
from tests.support.http_target import HttpTarget, Reply
from tests.support.hubs import add_rule, add_service, count, counts_are_exact
from tests.support.waiting import eventually
from tests.support.workers import workers

pytestmark = pytest.mark.fault
_TEXT = "x" * 20_000


def test_a_full_disk_refuses_events_and_loses_none(settings: Settings, target: HttpTarget) -> None:
    """First tables cannot grow, then the write-ahead log cannot either and PostgreSQL goes down until there is room."""
    small_disk.needed()
    target.default = Reply(204, delay=0.005)
    with small_disk.SmallDisk() as disk:
        settings = settings.model_copy(update={"database_url": SecretStr(disk.url)})
        with build(settings, role="web", check=False) as hub:
            migrate(hub.db)
            hub.configuration.listen()
            add_service(hub, target.url)
            add_rule(hub)
            with workers(settings) as group:
                source = Source(hub, _TEXT)
                eventually(lambda: len(target.seen) > 30, "deliveries")
                alive = group.pids()
                disk.fill()
                eventually(lambda: any("disk is full" in text for text in source.refusals), "the refusal")
                eventually(lambda: not State(hub.db).writable(), "the check that the alert HubLedgerReadOnly uses")
                disk.end_log()
                source.stop()  # the last batch stays refused: it must be there whole, or not at all
                assert group.pids() == alive
                disk.free()
                eventually(disk.answers, "PostgreSQL's return")
                eventually(State(hub.db).writable, "writes")
                eventually(lambda: count(hub, "events") >= source.accepted and count(hub, "tasks") == 0, "every end")
                again = Source(hub, _TEXT)
                eventually(lambda: again.accepted > source.accepted + 30, "more is accepted")
                again.stop()
                eventually(lambda: count(hub, "tasks") == 0, "every task ends")
                assert group.pids() == alive, "the workers lived through it"
                group.stop()
            events = count(hub, "events")
            assert events % BATCH == 0 and events >= again.accepted
            assert {seen.json()["n"] for seen in target.seen} == set(range(events)), "every accepted event arrived"
            assert count(hub, "delivered") == events and count(hub, "dead_letters") == 0 and counts_are_exact(hub)
            assert count(hub, "running") == count(hub, "queued") == 0
            times = Counter(seen.headers["idempotency-key"] for seen in target.seen)
            assert len(times) == events and max(times.values()) <= 5
            assert hub.db.all("SELECT state, failures FROM breakers") in ([], [{"state": "closed", "failures": 0}])
