"""Event intake: deduplicate, match rules, write the event and its tasks in one transaction.

Enqueueing follows on a thread of its own. If the process dies before it, the outbox relay finds the tasks.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Container, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from hub.domain import rules
from hub.domain.events import check_event, deduplication_key, old_deduplication_key
from hub.domain.search_keys import SearchKeys
from hub.errors import HubError, UnavailableError
from hub.hooks import Hooks
from hub.models import Accepted, Event, Rule, TaskState
from hub.store.configuration import Configuration
from hub.store.database import Connection
from hub.store.group_commit import GroupCommit
from hub.store.intake import IntakeStore, NewEvent, Written
from hub.store.ordering import Key

_TOGETHER = 50  # most events of different callers in one transaction
_SEEN_AGAIN = 60.0  # seconds after which a name's sample is refreshed
_SAMPLE_LIMIT = 65536


@dataclass(slots=True)
class ToEnqueue:
    """What is enqueued after the commit: (service id, task id) of tasks, and ordering keys whose first task may run."""

    tasks: list[tuple[int, int]] = field(default_factory=list)
    keys: list[Key] = field(default_factory=list)


class Publisher(Protocol):
    """Enqueues tasks."""

    def admits(self, service_id: int) -> bool:
        """Whether one more task of this service is enqueued at once. False: it waits for the outbox relay."""

    def publish(self, tasks: Sequence[tuple[int, int]]) -> None:
        """Enqueue (service id, task id) pairs. Raises nothing: the outbox relay finds tasks that are not enqueued."""

    def open_keys(self, keys: Sequence[Key]) -> None:
        """Let the first task of each ordering key run. Raises nothing: the outbox relay opens what is left."""


@dataclass(frozen=True, slots=True)
class _Prepared:
    new: NewEvent | None = None
    same_as: int | None = None  # an earlier one of this call


class Intake:
    """Accepts events. Thread-safe; many processes may accept at once.

    Args:
        search_paths: paths into an event's data that it is found by, see `hub.domain.search_keys`.
        keep_unmatched: which events that match no rule are kept: all, none, or one a minute of each name (`sample`).
    """

    def __init__(
        self,
        configuration: Configuration,
        store: IntakeStore,
        publisher: Publisher,
        hooks: Hooks,
        *,
        event_limit: int,
        search_paths: Sequence[str] = (),
        keep_unmatched: Literal["all", "sample", "none"] = "all",
    ) -> None:
        self._configuration = configuration
        self._store = store
        self._publisher = publisher
        self._hooks = hooks
        self._limit = event_limit
        self._paths = tuple(search_paths)
        self._keys = SearchKeys(self._paths)
        self._indexed = not search_paths
        self._keep = keep_unmatched
        self._seen: OrderedDict[str, float] = OrderedDict()
        self._lock = threading.Lock()
        self._together: GroupCommit[Event, Accepted | Exception] = GroupCommit(self.handle_each, limit=_TOGETHER)

    def handle_event(self, event: Event) -> Accepted:
        """Accept one event; when this returns, its tasks are in the ledger.

        Threads that call it at the same time share one transaction; none waits for others to arrive.

        Raises:
            PayloadError: the event is not usable; nothing was written.
            UnavailableError: the database is away; nothing was accepted.
        """
        result = self._together(check_event(event, limit=self._limit))
        if isinstance(result, Exception):
            raise result
        return result

    def handle_each(self, events: Sequence[Event]) -> list[Accepted | Exception]:
        """Accept events of different senders in one transaction: one that fails does not fail the others.

        Raises:
            UnavailableError: the database is away; nothing was accepted.
        """
        try:
            return [*self.handle_events(events)] if events else []
        except UnavailableError:
            raise
        except Exception as e:
            return [e] if len(events) == 1 else [self.handle_each([event])[0] for event in events]

    def handle_events(self, events: Sequence[Event], *, depth: int = 0) -> list[Accepted]:
        """Accept all of them, in one transaction, or none."""
        accepted, queued = self.write(events, [depth] * len(events))
        self.enqueue(queued)
        return accepted

    def write(
        self,
        events: Sequence[Event],
        depths: Sequence[int],
        conn: Connection | None = None,
        *,
        only: int | None = None,
    ) -> tuple[list[Accepted], ToEnqueue]:
        """Write events within `conn`'s transaction; pass the second result to `enqueue` after its commit.

        Args:
            only: the id of the one rule that is matched; None: all are.
        """
        events = [check_event(event, limit=self._limit) for event in events]
        if not self._indexed:
            self._store.index(self._paths)
            self._indexed = True
        samples = self._samples(events)
        prepared = self._prepare(events, depths, samples, only)
        new = [p.new for p in prepared if p.new is not None]
        written = iter(self._store.write(new, conn) if new else [])
        accepted: list[Accepted] = []
        queued = ToEnqueue()
        counts = {"accepted": 0, "duplicate": 0, "unmatched": 0}
        for p in prepared:
            if p.new is not None:
                result: Written = next(written)
                accepted.append(Accepted(result.uid, result.duplicate, tuple(result.tasks)))
                queued.tasks += result.queued
                if result.tasks:
                    queued.keys += [Key(rule, service, key) for rule, service, _, key in p.new.tasks if key is not None]
                counts["duplicate" if result.duplicate else "accepted" if p.new.tasks else "unmatched"] += 1
            else:
                assert p.same_as is not None
                accepted.append(replace(accepted[p.same_as], duplicate=True, tasks=()))
                counts["duplicate"] += 1
        for name, count in counts.items():
            if count:
                self._hooks.event_accepted(name, count)
        self._remember(samples.values())
        return accepted, queued

    def enqueue(self, queued: ToEnqueue) -> None:
        """Enqueue what `write` returned; call it after the commit."""
        if queued.tasks:
            self._publisher.publish(queued.tasks)
        if queued.keys:
            self._publisher.open_keys(queued.keys)

    def observe(self, events: Sequence[Event], unmatched: int) -> None:
        """Count events that no rule wants and that are not written; keep samples of them. Never fails.

        Args:
            events: checked by `check_event`; at least one of each name.
            unmatched: how many there were.
        """
        if unmatched:
            self._hooks.event_accepted("unmatched", unmatched)
        self._remember(self._samples(events).values())

    def _prepare(
        self, events: Sequence[Event], depths: Sequence[int], samples: Container[int], only: int | None
    ) -> list[_Prepared]:
        known = [rule for rule in self._configuration.snapshot().rules if only in (None, rule.id)]
        at: dict[bytes, int] = {}
        prepared: list[_Prepared] = []
        for i, (event, depth) in enumerate(zip(events, depths, strict=True)):
            assert event.text is not None
            strings = rules.JsonStrings()
            matching = [rule for rule in known if rules.matches(rule, event, strings)]
            uid = event.key or str(uuid.uuid4())
            key, lifetime = deduplication_key(event, matched=bool(matching))
            if key in at:
                prepared.append(_Prepared(same_as=at[key]))
                continue
            at[key] = len(prepared)
            tasks = [self._task(rule, event) for rule in matching]
            old_key = None if event.key is None else old_deduplication_key(event.key)
            kept = bool(tasks) or self._keep == "all" or (self._keep == "sample" and i in samples)
            new = NewEvent(
                key=key,
                lifetime=lifetime,
                uid=uid,
                name=event.name,
                data=event.text,
                depth=depth,
                tasks=tasks,
                old_key=old_key,
                kept=kept,
                keys=self._keys.of(event.data, strings) if kept else (),
                source=event.source,
                cause_task=event.cause_task,
            )
            prepared.append(_Prepared(new))
        return prepared

    def _task(self, rule: Rule, event: Event) -> tuple[int, int, str, str | None]:
        """Rule, service, state and ordering key of the task that a rule makes of an event."""
        key = rules.ordering_key(rule, event) if rule.ordering_key else None
        state = self._state(rule) if key is None else TaskState.BLOCKED.value
        return rule.id, rule.service_id, state, key

    def _state(self, rule: Rule) -> str:
        live = rule.enabled and rule.service_enabled  # else the task is held until it is
        return (TaskState.QUEUED if live and self._publisher.admits(rule.service_id) else TaskState.PENDING).value

    def _samples(self, events: Sequence[Event]) -> dict[int, Event]:
        """The events, by their index, that are the first of their name within a minute."""
        now = time.monotonic()
        samples: dict[int, Event] = {}
        with self._lock:
            for i, event in enumerate(events):
                if now - self._seen.get(event.name, -_SEEN_AGAIN) >= _SEEN_AGAIN and len(samples) < 100:
                    self._seen[event.name] = now
                    self._seen.move_to_end(event.name)
                    samples[i] = event
            while len(self._seen) > 1000:
                self._seen.popitem(last=False)
        return samples

    def _remember(self, samples: Iterable[Event]) -> None:
        """Store the data of these events as samples of their names; errors are ignored."""
        texts = {event.name: event.text or "{}" for event in samples}
        if texts:
            with suppress(HubError):  # a suggestion must not fail an accepted event
                self._store.seen({name: text if len(text) <= _SAMPLE_LIMIT else "{}" for name, text in texts.items()})
