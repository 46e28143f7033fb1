"""The checker itself: a history in which a promise was broken is found out, one in which all were kept is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.faults import checks
from tests.faults.history import History, expected
from tests.faults.plan import event_name
from tests.faults.targets import Sighting

SEED = 1
GOOD = next(n for n in range(1000) if event_name(SEED, n) == "e.good")
BROKEN = next(n for n in range(1000) if event_name(SEED, n) == "e.broken")


def row(attempt: int, success: bool, at: float = 10.0) -> dict[str, Any]:
    outcome = "success" if success else "http_5xx"
    return {"attempt": attempt, "tries": 1, "success": success, "outcome": outcome, "error": None, "at": at}


def kept() -> History:
    """One event delivered, one dead after five attempts, one answer that is JSON and one that is none."""
    died = {"attempts": 5, "reason": "attempts", "error": "HTTP 500", "at": 10.0}
    return History(
        seed=SEED,
        faults=[],
        falls=[],
        answered={GOOD, BROKEN},
        unsure=set(),
        events={GOOD: 1, BROKEN: 2},
        repeated=[],
        sightings=[
            Sighting("good", "k1", GOOD, 10.0, 10.1, 204),
            *(Sighting("broken", "k2", BROKEN, 10.0 + i, 10.1 + i, 500) for i in range(5)),
        ],
        tasks={
            1: {"n": GOOD, "service": "good", "rows": [row(1, True)], "dead": None},
            2: {"n": BROKEN, "service": "broken", "rows": [row(i, False) for i in range(1, 6)], "dead": died},
        },
        answers={1: [{"success": True, "raw": None, "error": None, "at": 10.0}]},
        confirmed={1},
        queue=[],
        counters={
            "hub_dispatch_attempts": {("success", "good"): 1, ("http_5xx", "broken"): 5},
            "hub_network_tries": {("success", "good"): 1, ("http_5xx", "broken"): 5},
            "hub_tasks_finished": {("delivered", "good"): 1, ("dead", "broken"): 1},
            "hub_dead_letters": {("attempts", "broken"): 1},
            "hub_events_accepted": {("accepted",): 2},
            "hub_consumer_messages": {("stored", "queue"): 1},
        },
        logs=[],
        ends=[],
        ticks=[],
    )


def test_a_history_without_fault_is_clean() -> None:
    assert expected(SEED, GOOD) == ("good",)
    assert checks.broken_promises(kept()) == []


def _lost(h: History) -> None:
    del h.events[GOOD], h.tasks[1]


def _gone(h: History) -> None:
    h.tasks[1]["rows"] = [row(1, False)]


def _unseen(h: History) -> None:
    h.sightings = h.sightings[1:]


def _sixth(h: History) -> None:
    h.sightings.append(Sighting("broken", "k2", BROKEN, 20.0, 20.1, 500))


def _four(h: History) -> None:
    h.tasks[2]["rows"].pop()


def _at_once(h: History) -> None:
    h.sightings.append(Sighting("broken", "k2", BROKEN, 10.02, 10.03, 500))
    h.sightings.pop(2)


def _twice(h: History) -> None:
    h.sightings.append(Sighting("good", "k1", GOOD, 30.0, 30.1, 204))
    h.faults.append({"kind": "restart_rabbit", "start": 29.0, "end": 29.5, "detail": ""})  # excuses nothing


def _other_key(h: History) -> None:
    h.sightings.append(Sighting("good", "k9", GOOD, 30.0, 30.1, 500))


def _overtaken(h: History) -> None:
    h.sightings += [Sighting("ordered", f"o{n}", n, at, at + 0.1, 204) for n, at in ((4, 30.0), (12, 31.0), (4, 31.5))]


def _two_probes(h: History) -> None:
    h.falls = [(100.0, 110.0)]
    h.logs.append(
        {
            "message": "circuit changed",
            "service": "tide",
            "now": "open",
            "at": 101.0,
            "level": "warning",
            "logger": "hub.store.breakers",
        }
    )
    h.sightings += [Sighting("tide", f"p{i}", 5, 104.0 + i / 100, 104.5, 500) for i in range(2)]


def _answer(h: History) -> None:
    h.confirmed.add(2)


def _bytes(h: History) -> None:
    h.answers[7] = [{"success": False, "raw": b"else", "error": "not JSON", "at": 10.0}]


def _count(h: History) -> None:
    h.counters["hub_dispatch_attempts"][("success", "good")] = 2


def _claim(h: History) -> None:
    h.rest["live workers"] = [{"id": "w"}]


def _fault(h: History) -> None:
    h.logs.append({"message": "the hub's own fault", "level": "error", "logger": "hub.pipeline.dispatch"})


def _ended(h: History) -> None:
    h.ends.append({"t": 100.0, "process": "worker-a", "code": 1})
    h.faults.append({"kind": "move_clock", "start": 98.0, "end": 99.0, "detail": ""})  # excuses nothing


def _too_early(h: History) -> None:
    h.faults.append({"kind": "move_clock", "start": 98.0, "end": 99.0, "detail": ""})
    h.ticks = [60.0, 7200.0]


@pytest.mark.parametrize(
    ("breaks", "check"),
    [
        (_lost, checks.every_accepted_event_ended),
        (_gone, checks.every_accepted_event_ended),
        (_unseen, checks.delivered_means_seen),
        (_sixth, checks.five_attempts),
        (_four, checks.five_attempts),
        (_at_once, checks.never_two_at_once),
        (_twice, checks.duplicates_have_a_cause),
        (_other_key, checks.duplicates_have_a_cause),
        (_overtaken, checks.order_is_kept),
        (_two_probes, checks.one_probe),
        (_answer, checks.nothing_inbound_dropped),
        (_bytes, checks.nothing_inbound_dropped),
        (_count, checks.counters_agree),
        (_claim, checks.nothing_left),
        (_fault, checks.nothing_unforeseen),
        (_ended, checks.nothing_left),
        (_too_early, checks.no_minute_before_its_time),
    ],
)
def test_a_broken_promise_is_found_out(breaks: Callable[[History], None], check: checks.Check) -> None:
    history = kept()
    breaks(history)
    assert list(check(history))
