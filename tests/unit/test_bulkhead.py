"""Threads are shared out so that a slow service leaves some to the others, and nobody waits for ever."""

from __future__ import annotations

import random
import threading
from collections import deque
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.pipeline.attempts import FailedAttempt
from hub.tasks.actors import _drain
from hub.tasks.bulkhead import CONSUMERS, Bulkhead


def fill(bulkhead: Bulkhead, service: int, tasks: int, first: int = 0) -> int:
    """Send so many tasks in; how many got a thread."""
    return sum(bulkhead.enter(service, service * 1000 + first + n) for n in range(tasks))


@pytest.mark.parametrize(("threads", "share"), [(1, 1), (2, 2), (4, 3), (8, 6), (32, 22)])
def test_alone_a_service_gets_most_threads_and_with_four_or_more_never_all(threads: int, share: int) -> None:
    """However quick it was: it may hang from one second to the next."""
    assert fill(Bulkhead(threads), 1, 100) == share


@pytest.mark.parametrize("threads", [1, 2, 3, 8, 64])
def test_a_service_that_holds_no_thread_always_gets_the_free_one(threads: int) -> None:
    """Otherwise a task could wait with nobody left to take it up."""
    bulkhead = Bulkhead(threads)
    for service in range(1, threads + 1):
        assert bulkhead.enter(service, service)


def test_two_slow_services_leave_room_for_a_third() -> None:
    bulkhead = Bulkhead(32)
    assert fill(bulkhead, 1, 100) == 22
    assert fill(bulkhead, 2, 100) >= 6 and fill(bulkhead, 3, 100) >= 1


def test_what_waits_is_taken_up_in_order_by_the_next_thread_that_is_done() -> None:
    bulkhead = Bulkhead(4)
    assert [bulkhead.enter(1, n) for n in range(6)] == [True, True, True, False, False, False]
    assert not bulkhead.enter(1, 4), "a second message for a task that waits is no second task"
    assert [bulkhead.next_or_leave(1) for _ in range(6)] == [3, 4, 5, None, None, None]
    assert bulkhead.enter(1, 9)


def test_at_the_end_nothing_waits_and_all_that_waited_is_told() -> None:
    bulkhead = Bulkhead(4)
    fill(bulkhead, 1, 6)
    for n in range(6):
        bulkhead.enter(CONSUMERS, n)
    left = bulkhead.close()
    assert left == [1003, 1004, 1005], "runs over response queues come again by themselves"
    assert bulkhead.next_or_leave(1) is None and bulkhead.close() == []
    assert bulkhead.enter(1, 7), "a message that is on its way is worked on to its end"


@given(st.integers(1, 12), st.lists(st.integers(0, 3), max_size=200), st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_no_task_is_lost_run_twice_or_left_waiting(threads: int, tasks: list[int], seed: int) -> None:
    """Any number of threads, any mix of services, any order of ends: every task runs once, and all threads are free."""
    rng, bulkhead = random.Random(seed), Bulkhead(threads)
    todo, ran = list(enumerate(tasks)), []
    busy: list[tuple[int, int]] = []
    while todo or busy:
        if todo and len(busy) < threads and rng.random() < 0.7:
            number, service = todo.pop(0)
            if bulkhead.enter(service, number):
                busy.append((service, number))
        elif busy:
            service, number = busy.pop(rng.randrange(len(busy)))
            ran.append(number)
            following = bulkhead.next_or_leave(service)
            if following is not None:
                busy.append((service, following))
    assert sorted(ran) == list(range(len(tasks))) and bulkhead._total == 0 and not bulkhead._waits


class Job:
    """What is done with each item: some fail, some raise."""

    def __init__(self, bad: dict[int, FailedAttempt | Exception] | None = None) -> None:
        self.bad = bad or {}
        self.done: list[int] = []
        self.recorded: list[FailedAttempt] = []

    def act(self, item: int) -> FailedAttempt | None:
        self.done.append(item)
        outcome = self.bad.get(item)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


def failed(number: int) -> FailedAttempt:
    return cast(FailedAttempt, f"the failure of {number}")


def waiting(*items: int) -> Bulkhead:
    """A service that has no room: the items wait."""
    bulkhead = Bulkhead(1)
    assert bulkhead.enter(1, 0)
    bulkhead._waiting[1] = deque(items)
    bulkhead._waits.update(items)
    bulkhead._held[1] = bulkhead._total = 0
    return bulkhead


def test_a_thread_continues_with_waiting_items_whatever_the_outcome_of_the_one_before() -> None:
    """A failure takes neither a waiting task nor the thread's place with it."""
    job, bulkhead = Job({1: failed(1), 2: ValueError("a bug"), 3: failed(3)}), waiting(2, 3, 4)
    assert _drain(bulkhead, 1, 1, job.act, job.recorded.append) is None
    assert job.done == [1, 2, 3, 4] and job.recorded == [failed(1), failed(3)]
    assert bulkhead._total == 0 and not bulkhead._waits


def test_the_last_failure_is_returned_for_the_middleware_to_record() -> None:
    job, bulkhead = Job({1: failed(1), 2: failed(2)}), waiting(2)
    assert _drain(bulkhead, 1, 1, job.act, job.recorded.append) == failed(2)
    assert job.recorded == [failed(1)] and bulkhead._total == 0


def test_an_exception_of_the_last_item_is_raised() -> None:
    job, bulkhead = Job({2: ValueError("last")}), waiting(2)
    with pytest.raises(ValueError, match="last"):
        _drain(bulkhead, 1, 1, job.act, job.recorded.append)
    assert bulkhead._total == 0


def test_many_threads_at_once() -> None:
    """As Dramatiq's threads use it."""
    bulkhead, lock = Bulkhead(8), threading.Lock()
    done: list[int] = []

    def act(item: int) -> None:
        with lock:
            done.append(item)

    def run(items: range) -> None:
        for item in items:
            _drain(bulkhead, item % 3, item, act)

    threads = [threading.Thread(target=run, args=(range(n, 800, 8),)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == list(range(800)) and bulkhead._total == 0


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def proven(clock: Clock) -> Bulkhead:
    """32 threads; service 1 has answered quickly."""
    bulkhead = Bulkhead(32, clock=clock)
    assert bulkhead.enter(1, 999)
    clock.now += 0.1
    assert bulkhead.next_or_leave(1) is None
    return bulkhead


def test_a_service_that_answers_gets_more_than_an_unknown_one_and_yet_not_all() -> None:
    assert fill(proven(Clock()), 1, 100) == 28


def test_one_that_hangs_now_takes_no_more_whatever_it_was() -> None:
    clock = Clock()
    bulkhead = proven(clock)
    assert fill(bulkhead, 1, 22) == 22
    clock.now += 1
    assert fill(bulkhead, 1, 10, first=100) == 0
    assert fill(bulkhead, 2, 10) == 7


def test_one_that_answers_displaces_one_that_hangs() -> None:
    """As the hanging attempts end, their threads go to the one that makes use of them."""
    clock = Clock()
    bulkhead = proven(clock)
    bulkhead._average[2] = 5.0
    assert fill(bulkhead, 2, 200) == 22
    assert fill(bulkhead, 1, 9) == 9
    clock.now += 0.4
    assert [bulkhead.next_or_leave(2) for _ in range(6)] == [None] * 6
    assert fill(bulkhead, 1, 100, first=100) == 5
    assert bulkhead.next_or_leave(2) is None, "and so on"


def test_as_long_as_something_waits_one_thread_stays() -> None:
    bulkhead = Bulkhead(4)
    assert fill(bulkhead, 1, 10) == 3
    for service in range(2, 7):
        bulkhead.enter(service, service)
    assert [bulkhead.next_or_leave(1) for _ in range(3)] == [None, None, 1003]
