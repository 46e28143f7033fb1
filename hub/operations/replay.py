"""Replay dead letters in a bounded run, which leaves alone tasks that fail again while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from hub.pipeline.dead_letters import DeadLetters
from hub.store.dead_letters import Chosen

__all__ = ["Chosen", "Outcome", "replay", "replay_ids"]
BATCH = 500  # dead letters per transaction


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a replay.

    `tasks`: ids of the new tasks. `orphans`: dead letters that were not replayed, because their rule or service was
    deleted. `remaining`: not replayed because of `most`. `up_to`: id of the newest dead letter at the start; pass it
    to the next call to continue the run.
    """

    tasks: list[int]
    orphans: int
    remaining: int = 0
    up_to: int = 0


def replay(
    dead_letters: DeadLetters,
    chosen: Chosen,
    *,
    most: int | None = None,
    before: bool = False,
    progress: Callable[[int], None] = lambda count: None,
    batch: int = BATCH,
) -> Outcome:
    """Replay the dead letters that match and exist now, in batches of one transaction each.

    Ids of dead letters increase, and a task that fails again gets a new one. Ids above `up_to` are left alone.

    Args:
        most: stop after that many.
        before: place them before the tasks of their ordering keys. False: behind them.
        progress: called after each batch with the number of dead letters replayed so far.

    Raises:
        NotFoundError: there is no such service.
    """
    chosen = dead_letters.bounded(chosen)
    tasks: list[int] = []
    while most is None or len(tasks) < most:
        limit = batch if most is None else min(batch, most - len(tasks))
        done = dead_letters.replay_matching(chosen, limit=limit, before=before)
        if not done.tasks:
            return Outcome(tasks, done.orphans, 0, chosen.up_to or 0)
        tasks += done.tasks
        progress(len(tasks))
    remaining, orphans = dead_letters.would_replay_matching(chosen)
    return Outcome(tasks, orphans, remaining, chosen.up_to or 0)


def replay_ids(
    dead_letters: DeadLetters, ids: Sequence[int], *, missing_ok: bool = False, before: bool = False
) -> Outcome:
    """Replay dead letters by id.

    Args:
        missing_ok: ignore ids without a dead letter, instead of refusing all.
        before: as for `replay`.

    Raises:
        NotFoundError: an id has no dead letter; nothing was replayed.
    """
    wanted = list(dict.fromkeys(ids))
    if not missing_ok:
        dead_letters.all_there(wanted)
    tasks: list[int] = []
    for some in _batches(wanted):
        tasks += dead_letters.replay_matching(Chosen(ids=tuple(some)), limit=len(some), before=before).tasks
    return Outcome(tasks, dead_letters.count(Chosen(ids=tuple(wanted))))


def _batches(ids: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(ids), BATCH):
        yield ids[start : start + BATCH]
