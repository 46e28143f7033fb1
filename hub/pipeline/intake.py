"""Event intake: deduplicate, match rules, write the event and its tasks in one transaction.

Enqueueing follows on a thread of its own. If the process dies before it, the outbox relay finds the tasks.
"""

from __future__ import annotations

import hashlib
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Container, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from hub.codec import (
    NESTED,
    canonical,
    deeper_than,
    dumps,
)
from hub.domain import php_serialized, rules
from hub.domain.search_keys import keys_of
from hub.errors import (
    HubError,
    PayloadError,
    TooLargeError,
    UnavailableError,
)
from hub.hooks import Hooks
from hub.models import (
    JSON,
    Accepted,
    Event,
    Rule,
    TaskState,
)
from hub.store.configuration import Configuration
from hub.store.database import Connection
from hub.store.group_commit import GroupCommit
from hub.store.intake import (
    CONTENT_WINDOW,
    KEY_WINDOW,
    IntakeStore,
    NewEvent,
    Written,
)

_TOGETHER = 50  # most events of different callers in one transaction
_SEEN_AGAIN = 60.0  # seconds after which a name's sample is refreshed
_SAMPLE_LIMIT = 65536


class Publisher(Protocol):
    """Enqueues tasks."""

    def admits(self, service_id: int) -> bool:
        """Whether one more task of this service is enqueued at once. False: it waits for the outbox relay."""

    def publish(self, tasks: Sequence[tuple[int, int]]) -> None:
        """Enqueue (service id, task id) pairs. Raises nothing: the outbox relay finds tasks that are not enqueued."""


@dataclass(frozen=True, slots=True)
class _Prepared:
    new: NewEvent | None = None
    same_as: int | None = None  # an earlier one of this call


def parse_event(value: JSON, *, limit: int, key: str | None = None, source: str = "") -> Event:
    """Parse an event: `{"name", "data", "id"}` or a bare Moodle object.

    Args:
        value: parsed JSON.
        limit: most bytes of the event as JSON.
        key: the sender's own id, where it is not in the body (Idempotency-Key).
        source: who sends it, see `Event`.

    Raises:
        PayloadError: says which field is wrong.
    """
    if not isinstance(value, dict):
        raise PayloadError(f"an event is a JSON object, not {_kind(value)}")
    name: Any
    if "name" in value or "data" in value:
        if extra := sorted(set(value) - {"name", "data", "id"}):
            raise PayloadError(f"{extra[0]}: unknown field; an event has name, data and id")
        name, data = value.get("name"), value.get("data", {})
        if isinstance(data, dict) and "eventname" in data:
            data = _moodle(data)
        own = value.get("id")
        if own is not None and (isinstance(own, bool) or not isinstance(own, str | int)):
            raise PayloadError(f"id: must be a text, not {_kind(own)}")
        if own is not None:
            key = str(own)
        field = "name"
    elif "eventname" in value:
        name, data, field = value["eventname"], _moodle(value), "eventname"
    else:
        raise PayloadError('name: missing; send {"name": ..., "data": {...}} or a Moodle event with "eventname"')
    return check_event(Event(name, data, key, source), limit=limit, field=field)


def _moodle(data: dict[str, JSON]) -> dict[str, JSON]:
    """Moodle's event data with a PHP-serialized `other` decoded; one that cannot be decoded is kept as it is."""
    other = data.get("other")
    if isinstance(other, str) and php_serialized.looks_serialized(other):
        with suppress(PayloadError):
            return data | {"other": php_serialized.loads(other)}
    return data


def check_event(event: Event, *, limit: int, field: str = "name") -> Event:
    """The same event with its data's JSON text. An event that has a text was checked before.

    Raises:
        PayloadError: names the field that is wrong.
    """
    return event if event.text is not None else replace(event, text=_checked(event, limit, field))


def _checked(event: Event, limit: int, field: str) -> str:
    """The JSON text of a valid event's data."""
    name, key = event.name, event.key
    if not isinstance(name, str):
        raise PayloadError(f"{field}: must be a text, not {_kind(name)}")
    if not 1 <= len(name) <= 255 or any(c < " " or c == "\x7f" for c in name):
        raise PayloadError(f"{field}: must have 1 to 255 characters and no control characters")
    if key is not None and (not isinstance(key, str) or not 1 <= len(key) <= 255 or not key.isprintable()):
        raise PayloadError("id: must have 1 to 255 printable characters")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise PayloadError(f"{field}: holds half a surrogate pair") from None
    try:
        text = dumps(event.data)
        size = len(text) if text.isascii() else len(text.encode())
    except UnicodeEncodeError:
        raise PayloadError("data: holds half a surrogate pair (\\ud800-\\udfff)") from None
    if size > limit:
        raise TooLargeError(f"data: {size} bytes are more than the limit of {limit} (HUB_EVENT_LIMIT)")
    if text.count("[") + text.count("{") > NESTED and deeper_than(event.data, NESTED):
        raise PayloadError(f"data: nested more than {NESTED} deep")
    return text


def _kind(value: object) -> str:
    return {type(None): "null", bool: "a boolean", dict: "an object", list: "an array", str: "a text"}.get(
        type(value), "a number"
    )


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
        self, events: Sequence[Event], depths: Sequence[int], conn: Connection | None = None
    ) -> tuple[list[Accepted], list[tuple[int, int]]]:
        """Write events within `conn`'s transaction; pass the second result to `enqueue` after its commit."""
        events = [check_event(event, limit=self._limit) for event in events]
        if not self._indexed:
            self._store.index(self._paths)
            self._indexed = True
        samples = self._samples(events)
        prepared = self._prepare(events, depths, samples)
        new = [p.new for p in prepared if p.new is not None]
        written = iter(self._store.write(new, conn) if new else [])
        accepted: list[Accepted] = []
        queued: list[tuple[int, int]] = []
        counts = {"accepted": 0, "duplicate": 0, "unmatched": 0}
        for p in prepared:
            if p.new is not None:
                result: Written = next(written)
                accepted.append(Accepted(result.uid, result.duplicate, tuple(result.tasks)))
                queued += result.queued
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

    def enqueue(self, queued: Sequence[tuple[int, int]]) -> None:
        """Enqueue the tasks that `write` returned; call it after the commit."""
        if queued:
            self._publisher.publish(queued)

    def _prepare(self, events: Sequence[Event], depths: Sequence[int], samples: Container[int]) -> list[_Prepared]:
        snapshot = self._configuration.snapshot()
        at: dict[bytes, int] = {}
        prepared: list[_Prepared] = []
        for i, (event, depth) in enumerate(zip(events, depths, strict=True)):
            assert event.text is not None
            strings = rules.JsonStrings()
            matching = [rule for rule in snapshot.rules if rules.matches(rule, event, strings)]
            uid = event.key or str(uuid.uuid4())
            key, window = _key(event, matched=bool(matching))
            if key in at:
                prepared.append(_Prepared(same_as=at[key]))
                continue
            at[key] = len(prepared)
            tasks = [(rule.id, rule.service_id, self._state(rule)) for rule in matching]
            old_key = None if event.key is None else _old_key(event.key)
            kept = bool(tasks) or self._keep == "all" or (self._keep == "sample" and i in samples)
            keys = keys_of(self._paths, event.data, strings) if kept else ()
            new = NewEvent(
                key, window, uid, event.name, event.text, depth, tasks, old_key, kept, keys, event.source,
                event.cause_task,
            )  # fmt: skip
            prepared.append(_Prepared(new))
        return prepared

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


def _key(event: Event, *, matched: bool) -> tuple[bytes, float]:
    """The deduplication key of an event, and its lifetime in seconds.

    An id counts within its source and event name. Content counts whatever its source: equal content makes equal
    tasks, so no sender can suppress another's event by it. It is serialized with sorted keys, so the order of keys
    does not matter. Content that matches no rule has a key of its own: the same event is accepted at once after a
    rule for it was added.
    """
    if event.key is not None:
        own = "\0".join(("source", event.source, event.name, event.key))
        return hashlib.sha256(own.encode("utf-8", "surrogatepass")).digest(), KEY_WINDOW
    kind = b"content\0" if matched else b"unmatched\0"
    content = kind + event.name.encode() + b"\0" + canonical(event.data)
    return hashlib.sha256(content).digest(), CONTENT_WINDOW


def _old_key(key: str) -> bytes:
    """The key of an id as releases before 0.2 wrote it, one namespace for all: still a duplicate until it expires."""
    return hashlib.sha256(b"id\0" + key.encode("utf-8", "surrogatepass")).digest()
