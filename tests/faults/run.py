"""One run: load, faults, healing, and the verdict. Used by the short test and by the soak."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

from tests.faults.checks import broken_promises, summary
from tests.faults.history import History, collect
from tests.faults.nemesis import FAULTS, GENTLE, Nemesis
from tests.faults.rig import Rig
from tests.support import clocks
from tests.support.waiting import eventually

Say = Callable[[str], None]
_WARM_UP = 2.0
# A pool, a channel or a keep-alive connection may be open at one look and not at the other.
_MORE_FDS, _MORE_THREADS = 60, 6


class BrokenPromise(AssertionError):  # noqa: N818
    """The hub did not keep a promise; the text names the seed and where the history is."""


def schedule(seed: int, kinds: tuple[str, ...], seconds: float | None) -> list[str]:
    """Faults in the order of a seed's dice: each kind once, or, for a soak, endless (`seconds` is not None)."""
    dice = random.Random(f"{seed}/schedule")
    order = list(kinds)
    dice.shuffle(order)
    return order if seconds is None else order + [dice.choice(kinds) for _ in range(int(seconds))]


def run(
    folder: Path,
    seed: int,
    *,
    rate: float,
    gentle: float | None,
    harsh: float | None,
    say: Say = lambda _: None,
    rounds: int = 1,
    soak: bool = False,
) -> History:
    """Run, and check.

    Args:
        gentle: seconds of faults that every process lives through, None: each kind once.
        harsh: seconds of all faults, kills among them, None: each harsh kind once.
        rounds: how often both, with a look at the processes between.

    Raises:
        BrokenPromise: with everything that was found.
    """
    without = set() if soak else {"kill_scheduler"}
    if not clocks.library():
        say(clocks.MISSING)
        without.add("move_clock")
    kinds, gentle_kinds = (tuple(k for k in some if k not in without) for some in (FAULTS, GENTLE))
    wrong: list[str] = []
    with Rig(folder, seed=seed, rate=rate, witness=soak, scheduler=soak) as rig:
        nemesis = Nemesis(rig, seed)
        rig.producer.start()
        eventually(lambda: len(rig.journal_lines()) > 20, "the source's first events")
        time.sleep(_WARM_UP)
        _pause(rig, say)
        first = rig.footprint()
        rig.answers.start()
        for number in range(rounds):
            before = rig.footprint()
            rig.producer.start()
            _strike(nemesis, schedule(seed * 1000 + number, gentle_kinds, gentle), gentle, say)
            _pause(rig, say)
            wrong += _leaks(before, rig.footprint(), "gentle faults")
            rig.producer.start()
            harsh_kinds = kinds if harsh is not None else tuple(k for k in kinds if k not in GENTLE)
            _strike(nemesis, schedule(seed * 1000 + number + 500, harsh_kinds, harsh), harsh, say)
            _pause(rig, say)
        nemesis.put_clocks_right()
        rig.tide.still()
        rig.answers.stop_publishing()
        eventually(rig.answers_read, f"the reading of all answers (seed {seed})")
        if soak:
            wrong += _leaks(first, rig.footprint(), "the whole soak")
        wrong += [
            f"{p.name} had to be killed at the end" for p in [rig.producer, rig.web, *rig.workers] if not p.stop()
        ]
        if rig.scheduler:
            rig.scheduler.stop()
        history = collect(rig, nemesis.done)
    wrong += broken_promises(history)
    say(summary(history))
    if wrong:
        history.dump(folder / "history.json")
        text = "\n  ".join(wrong)
        raise BrokenPromise(f"seed {seed}, history in {folder / 'history.json'}:\n  {text}")
    return history


def _strike(nemesis: Nemesis, kinds: list[str], seconds: float | None, say: Say) -> None:
    end = time.monotonic() + (seconds if seconds is not None else 3600.0)
    for kind in kinds:
        if time.monotonic() > end:
            return
        nemesis.strike(kind)
        done = nemesis.done[-1]
        say(f"{time.strftime('%H:%M:%S')} {kind} {done['detail']} ({done['end'] - done['start']:.1f} s)")
        nemesis.seconds(0.3, 2.0 if seconds is None else 5.0)


def _pause(rig: Rig, say: Say) -> None:
    """No new events; every task ends."""
    begin = time.monotonic()
    rig.producer.stop()
    eventually(rig.drained, f"the end of all tasks (seed {rig.seed})")
    eventually(rig.live_workers_registered, f"the return of all workers (seed {rig.seed})")
    say(f"{time.strftime('%H:%M:%S')} all tasks over, {time.monotonic() - begin:.1f} s after the last event")


def _leaks(before: dict[str, dict[str, int]], after: dict[str, dict[str, int]], over: str) -> list[str]:
    """Workers that lived through it and hold more than they did."""
    found = []
    for name, now in after.items():
        was = before.get(name)
        if was is None or was["pid"] != now["pid"]:
            continue
        if now["fds"] > was["fds"] + _MORE_FDS or now["threads"] > was["threads"] + _MORE_THREADS:
            found.append(f"{name} holds {now} after {over}, {was} before")
    return found
