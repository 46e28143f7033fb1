"""Results that are written together behind the callers' backs."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from hub.errors import UnavailableError
from hub.store.write_behind import WriteBehind


class Store:
    """Remembers batches; holds the first one until `go` is set."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.told: list[tuple[int, int]] = []
        self.busy, self.go = threading.Event(), threading.Event()

    def write(self, items: list[int]) -> list[int]:
        self.busy.set()
        assert self.go.wait(120)
        self.batches.append(items)
        if -1 in items:
            raise UnavailableError("away")
        if 13 in items:
            raise ValueError("cannot be written")
        return [10 * item for item in items]

    def then(self, item: int, result: int) -> None:
        self.told.append((item, result))


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def finisher(store: Store) -> Iterator[WriteBehind[int, int]]:
    made: WriteBehind[int, int] = WriteBehind(store.write, store.then, limit=4)
    yield made
    store.go.set()
    made.close()


def test_what_gathers_while_a_batch_is_written_is_the_next_batch(store: Store, finisher: WriteBehind[int, int]) -> None:
    finisher.add(1)
    assert store.busy.wait(120)
    finisher.add(2)
    finisher.add(3)
    store.go.set()
    assert finisher.flush(10)
    assert store.batches == [[1], [2, 3]]
    assert store.told == [(1, 10), (2, 20), (3, 30)]


def test_no_more_than_the_limit_is_under_way(store: Store, finisher: WriteBehind[int, int]) -> None:
    for item in range(4):
        finisher.add(item)
    fifth = threading.Thread(target=finisher.add, args=(4,), daemon=True)
    fifth.start()
    fifth.join(0.1)
    assert fifth.is_alive()
    store.go.set()
    fifth.join(10)
    assert not fifth.is_alive()
    assert finisher.flush(10)
    assert sorted(item for item, _ in store.told) == [0, 1, 2, 3, 4]


def test_one_that_cannot_be_written_does_not_spoil_the_others(store: Store, finisher: WriteBehind[int, int]) -> None:
    finisher.add(0)
    assert store.busy.wait(120)
    for item in (12, 13, 14):
        finisher.add(item)
    store.go.set()
    assert finisher.flush(10)
    assert store.told == [(0, 0), (12, 120), (14, 140)]


def test_a_store_that_went_away_ends_nothing(store: Store, finisher: WriteBehind[int, int]) -> None:
    store.go.set()
    finisher.add(-1)
    assert finisher.flush(10)
    finisher.add(5)
    assert finisher.flush(10)
    assert store.told == [(5, 50)]


def test_it_starts_anew_after_its_end(store: Store, finisher: WriteBehind[int, int]) -> None:
    assert finisher.flush(1)  # nothing was left behind
    store.go.set()
    finisher.add(1)
    finisher.close()
    assert store.told == [(1, 10)]
    finisher.add(2)
    finisher.close()
    assert store.told == [(1, 10), (2, 20)]
