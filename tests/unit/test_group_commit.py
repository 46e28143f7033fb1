"""Group commit: one execution for whoever comes at the same time, and nobody waits for a timer."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from hub.errors import UnavailableError
from hub.store.group_commit import GroupCommit
from tests.support.waiting import eventually


class Slow:
    """Runs batches while a gate is open, and remembers them."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.entered = threading.Event()

    def __call__(self, items: list[int]) -> list[int]:
        self.batches.append(items)
        self.entered.set()
        assert self.gate.wait(120)
        if any(item < 0 for item in items):
            raise ValueError("negative")
        return [item * 2 for item in items]


def test_a_lone_caller_runs_at_once() -> None:
    def add_one(items: list[int]) -> list[int]:
        return [i + 1 for i in items]

    assert GroupCommit(add_one)(1) == 2


def test_who_comes_while_a_batch_runs_forms_the_next_one() -> None:
    slow = Slow()
    commit = GroupCommit(slow)
    with ThreadPoolExecutor(20) as pool:
        first = pool.submit(commit, 0)
        assert slow.entered.wait(120)
        others = [pool.submit(commit, n) for n in range(1, 20)]
        eventually(lambda: len(commit._waiting) == 19, "all of them waiting")
        slow.gate.set()
        assert first.result(120) == 0 and [f.result(120) for f in others] == [n * 2 for n in range(1, 20)]
    assert [len(batch) for batch in slow.batches] == [1, 19]


def test_no_batch_is_larger_than_the_limit() -> None:
    slow = Slow()
    commit = GroupCommit(slow, limit=7)
    with ThreadPoolExecutor(21) as pool:
        futures = [pool.submit(commit, n) for n in range(21)]
        assert slow.entered.wait(120)
        eventually(lambda: len(commit._waiting) == 20, "all of them waiting")
        slow.gate.set()
        assert sorted(f.result(120) for f in futures) == [n * 2 for n in range(21)]
    assert [len(batch) for batch in slow.batches] == [1, 7, 7, 6]


def test_a_batch_that_fails_fails_for_each_of_its_callers_and_the_next_one_runs() -> None:
    slow = Slow()
    commit = GroupCommit(slow)
    with ThreadPoolExecutor(4) as pool:
        bad = pool.submit(commit, -1)
        assert slow.entered.wait(120)
        good = [pool.submit(commit, n) for n in (1, 2)]
        slow.gate.set()
        with pytest.raises(ValueError, match="negative"):
            bad.result(120)
        assert [f.result(120) for f in good] == [2, 4]
    assert commit(5) == 10


def test_one_that_spoils_a_batch_fails_alone() -> None:
    """A row that PostgreSQL does not take must not fail the others that happened to come along with it."""
    slow = Slow()
    commit = GroupCommit(slow)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(commit, 0)
        assert slow.entered.wait(120)
        good, bad = [pool.submit(commit, n) for n in (1, 2)], pool.submit(commit, -1)
        eventually(lambda: len(commit._waiting) == 3, "all of them waiting")
        slow.gate.set()
        with pytest.raises(ValueError, match="negative"):
            bad.result(120)
        assert [f.result(120) for f in (first, *good)] == [0, 2, 4]


def test_a_database_that_is_away_is_not_asked_for_each_of_a_batch() -> None:
    asked = []

    def away(items: list[int]) -> list[int]:
        asked.append(len(items))
        raise UnavailableError("the database does not respond")

    slow = Slow()
    commit: GroupCommit[int, int] = GroupCommit(lambda items: away(items) if slow.gate.is_set() else slow(items))
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(commit, 0)
        assert slow.entered.wait(120)
        others = [pool.submit(commit, n) for n in (1, 2, 3)]
        eventually(lambda: len(commit._waiting) == 3, "all of them waiting")
        slow.gate.set()
        assert first.result(120) == 0
        for other in others:
            with pytest.raises(UnavailableError):
                other.result(120)
    assert asked == [3]


def test_many_threads_for_a_while() -> None:
    commit: GroupCommit[int, int] = GroupCommit(lambda items: [i * 3 for i in items], limit=5)
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(commit, range(3000))) == [n * 3 for n in range(3000)]
    assert not commit._leading and not commit._waiting


def test_a_batch_that_hangs_holds_nobody_else() -> None:
    """One broken connection held the claims and events of every thread of the process."""
    release = threading.Event()
    hung = threading.Event()

    def execute(items: list[int]) -> list[int]:
        if 0 in items:
            hung.set()
            assert release.wait(120)
        return [item * 2 for item in items]

    commit = GroupCommit(execute, patience=0.05)
    with ThreadPoolExecutor(41) as pool:
        first = pool.submit(commit, 0)
        assert hung.wait(120)
        others = [pool.submit(commit, n) for n in range(1, 41)]
        assert [other.result(120) for other in others] == [n * 2 for n in range(1, 41)]
        again = [pool.submit(commit, n) for n in range(41, 61)]
        assert [one.result(120) for one in again] == [n * 2 for n in range(41, 61)]
        assert not first.done()
        release.set()
        assert first.result(120) == 0
    assert commit(7) == 14


def test_many_leaders_beside_each_other_lose_and_mix_up_nothing() -> None:
    def execute(items: list[int]) -> list[int]:
        threading.Event().wait(0.002 * (items[0] % 5))
        return [item * 2 for item in items]

    commit = GroupCommit(execute, limit=7, patience=0.001)
    with ThreadPoolExecutor(32) as pool:
        assert list(pool.map(commit, range(3000))) == [n * 2 for n in range(3000)]
