"""Stage 11: answers come in. One run reads one service's response queue: store a batch, commit, acknowledge.

Nothing is dropped: what is no JSON is kept with its bytes and the reason; what cannot be stored is not
acknowledged. A message is stored at least once; when it comes again because its acknowledgement was lost,
it is known by its `message_id` if it has one, else it is stored twice.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import structlog

from hub import rules
from hub.codec import loads
from hub.errors import HubError, PayloadError, UnavailableError
from hub.hooks import Hooks
from hub.models import JSON, Event, Rule, Service, ServiceType
from hub.observer import Observer
from hub.paths import mask_body
from hub.settings import Settings
from hub.store.database import Connection
from hub.store.log import clean
from hub.store.responses import MARK, Inbound, Responses, Session
from hub.store.runs import RunLog
from hub.store.schedules import CONSUME, Schedules
from hub.transports.amqp_connection import connect
from hub.transports.base import Deadline, bounded
from hub.transports.response_queue import Message, ResponseQueue

log = structlog.get_logger("hub.responses")

RESPONSE_RECEIVED = "hub.response_received"
_BATCH_BYTES = 16 * 1024 * 1024  # a batch is stored when it holds so much, however few messages that is

# Writes events (with their depths) in a transaction; what it returns is called after the commit.
Emit: TypeAlias = Callable[[Connection, Sequence[Event], Sequence[int]], Callable[[], None]]


def through(observer: Observer) -> Emit:
    """Responses become events by way of the observer."""

    def emit(conn: Connection, events: Sequence[Event], depths: Sequence[int]) -> Callable[[], None]:
        _, queued = observer.write(events, depths, conn)
        return lambda: observer.hand_over(queued)

    return emit


def wanted_by(all_rules: Iterable[Rule]) -> bool:
    """Whether any of the rules is for responses, its conditions aside."""
    event = Event(RESPONSE_RECEIVED, {})
    return any(rules.matches(replace(rule, conditions=None), event) for rule in all_rules)


def response_services(services: Iterable[Service]) -> list[Service]:
    """The services whose answers are consumed: enabled, AMQP, with a response queue."""
    return [s for s in services if s.enabled and s.type is ServiceType.AMQP and s.response_queue]


def fan_out(services: Iterable[Service], send: Callable[[int], None]) -> int:
    """Start one run per service, each on its own; `send` gets the service's id. Returns how many."""
    targets = response_services(services)
    for service in targets:
        send(service.id)
    return len(targets)


@dataclass(slots=True)
class RunResult:
    """What one run did. `outcome` is ok, error or skipped (another run is reading the queue).

    Attributes:
        stored: messages stored that are JSON.
        malformed: messages stored that are not, or are too large.
        repeated: messages that were stored by an earlier run already, only acknowledged now.
        cut: stored ones that became no event, for their chain is as long as `HUB_MAX_DEPTH`.
        pending: messages that waited at the start.
    """

    outcome: str = "ok"
    stored: int = 0
    malformed: int = 0
    repeated: int = 0
    cut: int = 0
    pending: int = 0
    declared: bool = False
    unfinished: bool = False
    seconds: float = 0.0
    error: str | None = None

    def summary(self) -> str:
        """One line for the run log."""
        parts = [f"{self.stored} stored"]
        parts += [f"{n} {word}" for n, word in ((self.malformed, "malformed"), (self.repeated, "repeated")) if n]
        parts += [f"{self.cut} chains cut"] if self.cut else []
        parts += ["queue declared"] if self.declared else []
        parts += ["time is up, the rest next time"] if self.unfinished else []
        return ", ".join(parts)


@dataclass(slots=True)
class _Parsed:
    row: Inbound
    correlation: int | None
    value: JSON = None


class ResponseConsumer:
    """Reads response queues. One instance per process, used from many threads.

    Args:
        emit: makes events of responses; None: responses are only stored.
        wanted: whether any rule is for such events; building them for nobody would halve the speed.
        stopping: says that the process is to end; a run then ends after the batch it is at.
    """

    def __init__(
        self,
        responses: Responses,
        runs: RunLog,
        schedules: Schedules,
        settings: Settings,
        hooks: Hooks,
        *,
        emit: Emit | None = None,
        wanted: Callable[[], bool] = lambda: True,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._responses = responses
        self._runs = runs
        self._schedules = schedules
        self._settings = settings
        self._hooks = hooks
        self._emit = emit
        self._wanted = wanted
        self._stopping = stopping

    def consume(self, service: Service) -> RunResult:
        """One run: everything that waits in the service's response queue, and what comes meanwhile.

        What the service or its broker does wrong is in the result, in `consumer_state` and in the run log.

        Raises:
            UnavailableError: the hub's own database is away; nothing was acknowledged that is not stored.
        """
        started = time.monotonic()
        result = RunResult(outcome="error")
        try:
            with self._responses.alone(service) as session:
                if session is None:
                    result.outcome = "skipped"
                    run = self._runs.start(CONSUME, service.name)
                else:
                    run = self._runs.start(CONSUME, service.name, alone=True)
                    self._guarded(session, service, result, run)
        finally:
            result.seconds = time.monotonic() - started
            self._hooks.consumer_run(service.name, result.outcome, result.seconds)
        summary = "another run was reading the queue" if result.outcome == "skipped" else result.summary()
        self._runs.finish(run, result.outcome, summary=summary, error=result.error)
        self._schedules.finished(CONSUME, result.outcome)
        return result

    def _guarded(self, session: Session, service: Service, result: RunResult, run: int) -> None:
        context = {"service": service.name, "queue": service.response_queue}
        try:
            self._run(session, service, result)
        except BaseException as e:
            ours = not isinstance(e, HubError) or isinstance(e, UnavailableError)
            result.error = str(e) if isinstance(e, HubError) else f"ended by {type(e).__name__}"
            log.warning("response queue not read", error=result.error, summary=result.summary(), **context)
            try:
                self._responses.failed(service.id, result.error)
                if ours:
                    self._runs.finish(run, "error", summary=result.summary(), error=result.error)
            except UnavailableError:
                pass  # the next run writes that this one was lost
            if ours:
                raise
        else:
            result.outcome = "ok"
            self._responses.succeeded(service.id)
            if result.stored or result.malformed or result.repeated:
                log.info("response queue read", summary=result.summary(), **context)

    def _run(self, session: Session, service: Service, result: RunResult) -> None:
        settings = self._settings
        deadline = Deadline(settings.consumer_run_time)
        connection = connect(service, settings, Deadline(service.timeout))
        queue = ResponseQueue(
            connection, service, batch=settings.consumer_batch, batch_bytes=_BATCH_BYTES,
            message_limit=settings.message_limit,
        )  # fmt: skip
        try:
            result.pending = queue.open()
            result.declared = queue.declared
            known = session.last_batch()
            # While one batch is being stored, the next is being read; an acknowledgement waits for its commit.
            with ThreadPoolExecutor(1, "hub-responses") as storing:
                under_way: tuple[list[Message], Future[Callable[[], None]]] | None = None
                for batch in queue.batches(deadline, self._stopping):
                    self._settle(queue, under_way)
                    under_way = batch, storing.submit(self._store, session, service, batch, known, result)
                self._settle(queue, under_way)
            result.unfinished = queue.unfinished
        finally:
            queue.close()

    def _settle(self, queue: ResponseQueue, under_way: tuple[list[Message], Future[Callable[[], None]]] | None) -> None:
        """Wait until a batch is stored, then acknowledge it; raises what storing raised."""
        if under_way is not None:
            batch, stored = under_way
            handed = stored.result()
            queue.acknowledge(batch)
            handed()

    def _store(
        self, session: Session, service: Service, batch: list[Message], known: set[bytes], result: RunResult
    ) -> Callable[[], None]:
        """Store a batch and its events in one transaction; returns what to do once it is acknowledged."""
        marks = [_mark(m) for m in batch]
        new = [
            self._parse(service, m)
            for m, mark in zip(batch, marks, strict=True)
            if not (m.redelivered and mark is not None and mark in known)
        ]
        after: Callable[[], None] = _nothing
        cut = 0
        with session.transaction() as conn:
            depths = session.depths(sorted({p.correlation for p in new if p.correlation is not None}))
            for p in new:
                if p.correlation in depths:
                    p.row.task_id = p.correlation
            if self._emit is not None:
                cut, after = self._make_events(conn, service, new, depths)
            session.add([p.row for p in new])
            if any(marks):
                session.remember([m for m in marks if m is not None])
        malformed = sum(not p.row.success for p in new)
        result.repeated += len(batch) - len(new)
        result.malformed += malformed
        result.stored += len(new) - malformed
        result.cut += cut
        for outcome, count in (("stored", len(new) - malformed), ("malformed", malformed)):
            if count:
                self._hooks.consumer_messages(service.name, outcome, count)
        if cut:
            self._hooks.event_accepted("cut", cut)
            log.warning("chains of events cut", service=service.name, count=cut, depth=self._settings.max_depth)
        return after

    def _parse(self, service: Service, message: Message) -> _Parsed:
        correlation, properties = _properties(message, service.response_queue)
        row = Inbound(properties, event=RESPONSE_RECEIVED)
        parsed = _Parsed(row, correlation)
        body = message.body
        if body is None:
            properties["size"], properties["sha256"] = message.size, message.sha256
            row.success, row.outcome = False, "malformed"
            row.error = (
                f"{message.size} bytes are more than the limit of {self._settings.message_limit}"
                " (HUB_MESSAGE_LIMIT): kept by hash and size only"
            )
            return parsed
        try:
            parsed.value = loads(body)
            row.body = body.decode().removeprefix("\ufeff")
            if mask := service.options.get("mask"):
                row.body = mask_body(row.body, mask)
        except PayloadError as e:
            row.success, row.outcome, row.error, row.raw = False, "malformed", str(e), body
            row.body = bounded(clean(body.decode("utf-8", "replace")), self._settings.body_limit)
        return parsed

    def _make_events(
        self, conn: Connection, service: Service, new: list[_Parsed], depths: dict[int, int]
    ) -> tuple[int, Callable[[], None]]:
        """Write the events of a batch; returns (how many chains were cut, what to do after the commit)."""
        assert self._emit is not None
        cut = 0
        chosen: list[tuple[_Parsed, int]] = []
        for p in new:
            if not p.row.success:
                continue
            # Without a task of ours to tell the depth, an answer is taken for the first of its chain.
            depth = depths.get(p.correlation, 0) + 1 if p.correlation is not None else 1
            if depth > self._settings.max_depth:
                cut += 1
                p.row.properties["chain_cut_at"] = depth
                continue
            chosen.append((p, depth))
        if len(chosen) > 1 and not self._wanted():
            self._hooks.event_accepted("unmatched", len(chosen) - 1)
            del chosen[:-1]  # one of them shows what such events look like
        if not chosen:
            return cut, _nothing
        events, levels = [_event(service, p) for p, _ in chosen], [depth for _, depth in chosen]
        try:
            with conn.transaction():
                return cut, self._emit(conn, events, levels)
        except PayloadError:  # one of them is too much for an event: find it, keep it, let the others through
            calls = []
            for (p, depth), event in zip(chosen, events, strict=True):
                try:
                    with conn.transaction():
                        calls.append(self._emit(conn, [event], [depth]))
                except PayloadError as e:
                    p.row.error = f"stored, but became no event: {e}"
            return cut, lambda: _all(calls)


def _nothing() -> None:
    """Nothing is to be done after the commit."""


def _all(calls: list[Callable[[], None]]) -> None:
    for call in calls:
        call()


def _event(service: Service, p: _Parsed) -> Event:
    """The event of a response. Its own id, because two equal answers are two answers."""
    properties = p.row.properties
    data = {
        "service": service.name,
        "queue": service.response_queue,
        "correlation_id": properties.get("correlation_id"),
        "task_id": p.row.task_id,
        "message_id": properties.get("message_id"),
        "headers": properties.get("headers", {}),
        "payload": p.value,
    }
    return Event(RESPONSE_RECEIVED, data, str(uuid.uuid4()))


def _mark(message: Message) -> bytes | None:
    """What a message is known by when it comes again; None when it has no id."""
    message_id = message.properties.message_id
    if not message_id:
        return None
    body = message.body if message.body is not None else (message.sha256 or "").encode()
    known_by = b"%s\0%s" % (str(message_id).encode("utf-8", "replace"), body)
    return hashlib.blake2b(known_by, digest_size=MARK).digest()


def _properties(message: Message, queue: str | None) -> tuple[int | None, dict[str, JSON]]:
    """(the task id that the correlation names, if any; everything about a message but its body)."""
    found: dict[str, JSON] = {
        name: value if type(value) is int else _plain(value)
        for name, value in vars(message.properties).items()
        if value is not None
    }
    if message.redelivered:
        found["redelivered"] = True
    if message.exchange or message.routing_key != queue:  # else it was sent to the queue itself
        found["exchange"], found["routing_key"] = _plain(message.exchange), _plain(message.routing_key)
    correlation = found.get("correlation_id")
    if isinstance(correlation, str) and correlation.isascii() and correlation.isdigit() and len(correlation) < 19:
        return int(correlation), found
    return None, found


def _plain(value: Any) -> JSON:
    """An AMQP value as JSON that PostgreSQL takes."""
    if isinstance(value, str):
        return value if value.isascii() and "\0" not in value else clean(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, bytes):
        return clean(value.decode("utf-8", "backslashreplace"))
    if isinstance(value, dict):
        return {str(_plain(k)): _plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
