"""The dead-letter queue: `move_to_dlq()` after the last failure, and `replay()`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import structlog

from hub.errors import NotFoundError
from hub.hooks import Hooks
from hub.models import (
    Claim,
    DeadReason,
    Delivery,
    Service,
)
from hub.store.dead_letters import Chosen, DeadLetterStore
from hub.store.ledger import Ledger

log = structlog.get_logger("hub.pipeline.dead_letters")


@dataclass(frozen=True, slots=True)
class Replayed:
    """The result of a replay: new task ids, and the number of dead letters whose rule or service is deleted."""

    tasks: tuple[int, ...]
    orphans: int = 0


class DeadLetters:
    """The dead-letter queue: a table whose rows stay until a person replays or deletes them."""

    def __init__(self, ledger: Ledger, store: DeadLetterStore, hooks: Hooks) -> None:
        self._ledger = ledger
        self._store = store
        self._hooks = hooks

    def move_to_dlq(self, claim: Claim, service: Service, delivery: Delivery, reason: DeadReason) -> bool:
        """End a task as a dead letter: dead letter, delivery log row and deletion of the task in one transaction.

        Returns False, and changes nothing, when the claim has ended.
        """
        if not self._ledger.move_to_dlq(claim, delivery, reason):
            return False
        self._hooks.dead_letter(service.name, reason.value)
        self._hooks.task_finished(service.name, "dead")
        return True

    def count(self, chosen: Chosen) -> int:
        """How many dead letters match, orphans too."""
        return self._store.count(chosen)[0]

    def bounded(self, chosen: Chosen) -> Chosen:
        """The same choice without what dies from now on."""
        return chosen if chosen.up_to is not None else replace(chosen, up_to=self._store.newest())

    def would_replay(self, chosen: Chosen) -> tuple[int, int]:
        """(how many a replay would take, how many stay because their rule or service is gone). Raises as it does."""
        if chosen.ids is not None:
            self.all_there(chosen.ids)
        return self.would_replay_matching(chosen)

    def would_replay_matching(self, chosen: Chosen) -> tuple[int, int]:
        """As `would_replay`; ids that are no dead letters are left out."""
        count, orphans = self._store.count(chosen)
        return count - orphans, orphans

    def replay(self, ids: Sequence[int] | None = None, *, service: str | None = None, limit: int = 500) -> Replayed:
        """One transaction of a replay; `operations.replay` has the whole of it.

        Raises:
            NotFoundError: an id was given that is no dead letter, or a service that is none.
        """
        if ids is not None:
            self.all_there(ids)
        chosen = Chosen(ids=tuple(ids) if ids is not None else None, service=service)
        return self.replay_matching(chosen, limit=limit)

    def replay_matching(self, chosen: Chosen, *, limit: int, before: bool = False) -> Replayed:
        """Requeue at most `limit` dead letters: same rule and event, attempts from 0, a new idempotency key.

        A dead letter leaves in the transaction that makes its task, or stays. Ids that are none are left out.

        Args:
            before: they take their place in front of the tasks of their ordering keys; False: behind them.
        """
        made, orphans = self._store.requeue(chosen, limit=limit, before=before)
        by_service: dict[str, int] = {}
        for _, name in made:
            by_service[name] = by_service.get(name, 0) + 1
        for name, count in by_service.items():
            self._hooks.dead_letter_replayed(name, count)
        return Replayed(tuple(task_id for task_id, _ in made), orphans)

    def delete(self, ids: Sequence[int], *, who: str = "cli") -> int:
        """Delete dead letters; each leaves a row that names who deleted it."""
        return self._store.delete(ids, who=who)

    def all_there(self, ids: Sequence[int]) -> None:
        """Raises `NotFoundError` when one of the ids is no dead letter."""
        if missing := self._store.missing(ids):
            raise NotFoundError(f"no dead letter {missing[0]}; `hub dlq list` shows what there is")
