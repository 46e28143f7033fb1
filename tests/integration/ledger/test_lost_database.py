"""Statements whose response got lost, and a database that is away."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from hub.app.lifecycle import Hub
from hub.errors import UnavailableError
from hub.models import (
    DeadReason,
)
from hub.store.leases import Leases
from hub.tasks.lease import Lease
from tests.integration.ledger.claims import outcome, taken
from tests.support.hubs import count, counts_are_exact, task
from tests.support.waiting import eventually


class Glitch:
    """The connection breaks right after the statement was committed: its answer is lost, once."""

    def __init__(self, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = 0
        real = hub.db.autocommit

        @contextmanager
        def autocommit() -> Iterator[Any]:
            with real() as conn:
                yield conn
            if self.left:
                self.left -= 1
                raise UnavailableError("the answer got lost")

        monkeypatch.setattr(hub.db, "autocommit", autocommit)


@pytest.fixture
def glitch(hub: Hub, tasks: list[int], monkeypatch: pytest.MonkeyPatch) -> Glitch:
    return Glitch(hub, monkeypatch)


def test_a_claim_whose_answer_got_lost_is_ours_and_counted_once(hub: Hub, tasks: list[int], glitch: Glitch) -> None:
    glitch.left = 2
    claim = taken(hub, tasks[0])
    assert claim.attempt == 1 and task(hub, tasks[0])["token"] == claim.token
    assert hub.ledger.finish(claim, outcome(claim))


def test_a_lost_answer_does_not_give_a_running_task_to_a_second_thread(
    hub: Hub, tasks: list[int], glitch: Glitch
) -> None:
    """The repeated statement takes what this process has claimed, but not what a thread of it works on already."""
    claim = taken(hub, tasks[0])
    glitch.left = 1
    assert hub.ledger.claim(tasks[0]) is None
    assert hub.ledger.finish(claim, outcome(claim))


@pytest.mark.parametrize("act", ["finish", "fail", "dead", "release"])
def test_a_result_whose_answer_got_lost_counts_once(hub: Hub, tasks: list[int], glitch: Glitch, act: str) -> None:
    claim = taken(hub, tasks[0])
    glitch.left = 1
    if act == "finish":
        hub.ledger.finish(claim, outcome(claim))
    elif act == "fail":
        hub.ledger.fail(claim, outcome(claim, "no"), delay=5)
    elif act == "dead":
        hub.ledger.move_to_dlq(claim, outcome(claim, "no"), DeadReason.ATTEMPTS)
    else:
        hub.ledger.release(claim)
    assert count(hub, "deliveries") == (0 if act == "release" else 1)
    assert count(hub, "dead_letters") == (1 if act == "dead" else 0) and counts_are_exact(hub)
    if act in ("fail", "release"):
        assert task(hub, tasks[0])["attempts"] == (1 if act == "fail" else 0)


def test_results_wait_for_a_database_that_is_away_until_the_process_stops(
    hub: Hub, tasks: list[int], glitch: Glitch
) -> None:
    claim = taken(hub, tasks[0])
    glitch.left = 10**9
    failed: list[Exception] = []

    def settle() -> None:
        try:
            hub.ledger.release(claim)
        except UnavailableError as e:
            failed.append(e)

    thread = threading.Thread(target=settle)
    thread.start()
    hub.ledger.stop()
    thread.join(120)
    assert len(failed) == 1


def test_a_process_that_stops_while_the_database_is_away_takes_nothing_new(
    hub: Hub, tasks: list[int], glitch: Glitch
) -> None:
    """It would be killed in the end, with results in its memory that could still have been written."""
    claim = taken(hub, tasks[0])
    glitch.left = 10**9
    hub.ledger.drain()
    with pytest.raises(UnavailableError):
        hub.ledger.claim(tasks[1])
    thread = threading.Thread(target=hub.ledger.release, args=(claim,))
    thread.start()
    glitch.left = 1
    thread.join(120)
    assert not thread.is_alive() and task(hub, tasks[0])["state"] == "pending"


def test_a_process_whose_lease_was_not_renewed_sends_no_more_until_it_is(
    hub: Hub, tasks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the reason: the thread that renews goes on trying."""
    leases = Leases(hub.db, hub.instance)
    lease = Lease(leases, seconds=1.5)
    lease.start()
    lease.check()
    broken = [UnavailableError("away"), RuntimeError("a bug")]

    def renew(*_: object, **__: object) -> None:
        raise broken[0]

    for _ in range(len(broken)):
        with monkeypatch.context() as patch:
            patch.setattr(leases, "renew", renew)
            eventually(lambda: not alive(lease), "it knows that it is over")
        eventually(lambda: alive(lease), "it is renewed")
        broken.reverse()
    lease.stop()
    assert not alive(lease) and hub.db.all("SELECT 1 FROM workers") == []


def alive(lease: Lease) -> bool:
    try:
        lease.check()
    except UnavailableError:
        return False
    return True


def test_a_standby_that_takes_no_writes_counts_as_away(hub: Hub) -> None:
    """After a failover the old primary may be read-only for a while."""
    with pytest.raises(UnavailableError), hub.db.transaction() as conn:
        conn.execute("SET TRANSACTION READ ONLY")
        conn.execute("DELETE FROM tasks")
