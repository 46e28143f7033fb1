"""The share of the threads that one service may hold."""

from __future__ import annotations

from hub.tasks.bulkhead import CONSUMERS, Bulkhead


def hold(bulkhead: Bulkhead, service: int, tasks: int) -> int:
    """How many of so many tasks find a thread."""
    return sum(bulkhead.enter(service, 1000 * service + i) for i in range(tasks))


def test_alone_a_service_gets_most_threads_but_never_all() -> None:
    assert hold(Bulkhead(32), 1, 100) == 24
    assert hold(Bulkhead(8), 1, 100) == 6
    assert hold(Bulkhead(2), 1, 100) == 2


def test_one_thread_serves_too() -> None:
    assert hold(Bulkhead(1), 1, 5) == 1


def test_the_next_service_finds_room_beside_a_slow_one() -> None:
    bulkhead = Bulkhead(32)
    hold(bulkhead, 1, 100)
    assert hold(bulkhead, 2, 100) >= 6
    assert hold(bulkhead, 3, 100) >= 1


def test_a_service_that_holds_no_thread_is_never_sent_to_wait() -> None:
    bulkhead = Bulkhead(4)
    for service in range(1, 5):
        assert bulkhead.enter(service, service)
    assert bulkhead.enter(5, 5)  # Dramatiq runs it, so there is a thread


def test_what_waited_is_taken_up_in_order_by_threads_of_its_service() -> None:
    bulkhead = Bulkhead(4)
    assert [bulkhead.enter(1, task) for task in (10, 11, 12, 13, 14)] == [True, True, True, False, False]
    assert not bulkhead.enter(1, 13)  # a second message for it
    assert bulkhead.next_or_leave(1) == 13
    assert bulkhead.next_or_leave(1) == 14
    assert bulkhead.next_or_leave(1) is None
    assert bulkhead.enter(1, 15)


def test_at_the_end_what_waits_goes_back_to_the_ledger_but_consumer_runs() -> None:
    bulkhead = Bulkhead(4)
    hold(bulkhead, 1, 4)
    hold(bulkhead, CONSUMERS, 3)
    assert bulkhead.close() == [1003]
    assert bulkhead.next_or_leave(1) is None
