"""Consumes response queues: one run reads the queue of one service, and stores, commits and acknowledges batches.

Nothing is dropped: a message that is not JSON is stored as raw bytes with the reason; a message that cannot be stored
is not acknowledged. A message is stored at least once. One that is redelivered because its acknowledgement was lost is
recognised by its `message_id`; without a `message_id` it is stored twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import structlog

from hub.errors import CircuitOpenError, DeliveryError, HubError, UnavailableError
from hub.hooks import Hooks
from hub.inbound.events import Emit, ResponseEvents
from hub.inbound.messages import mark, parse
from hub.models import Delivery, Service, ServiceType
from hub.settings import Settings
from hub.store.responses import Responses, Session
from hub.store.run_log import RunLog
from hub.store.schedules import CONSUME, Schedules
from hub.transports.amqp.connection import connect
from hub.transports.amqp.response_queue import Message, ResponseQueue
from hub.transports.auth import check_secrets
from hub.transports.base import Deadline

log = structlog.get_logger("hub.inbound.consumer")

_Storing = tuple[list[Message], Future[Callable[[], None]]]  # a batch that is being stored
_BATCH_BYTES = 16 * 1024 * 1024  # bytes at which a batch is stored


def response_services(services: Iterable[Service]) -> list[Service]:
    """The services whose responses are consumed: enabled, AMQP, with a response queue."""
    return [s for s in services if s.enabled and s.type is ServiceType.AMQP and s.response_queue]


def fan_out(services: Iterable[Service], send: Callable[[int], None]) -> int:
    """Enqueue one run per service; `send` gets the service's id. Returns the number of runs."""
    targets = response_services(services)
    for service in targets:
        send(service.id)
    return len(targets)


@dataclass(slots=True)
class RunResult:
    """The result of a run. `outcome` is ok, error or skipped (another run reads the queue, or its circuit is open).

    Attributes:
        stored: JSON messages that were stored.
        malformed: messages that were stored but are not JSON, or are too large.
        repeated: messages that an earlier run had stored; they were only acknowledged.
        cut: stored messages without an event, because their chain has reached `HUB_MAX_DEPTH`.
        pending: waiting messages at the start.
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
        parts += ["time limit reached, the rest in the next run"] if self.unfinished else []
        return ", ".join(parts)


class ResponseConsumer:
    """Reads response queues. One instance per process, used from many threads.

    Args:
        emit: writes events of responses; None: responses are only stored.
        wanted: whether any rule matches such events. Building unmatched events would halve the throughput.
        stopping: whether the process is stopping; a run then ends after the current batch.
        execute: `Gateway.execute_consumption`, which adds circuit and tries to a run.
        log: writes the delivery row of a run that failed.
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
        execute: Callable[[Service, Callable[[], None]], None] = lambda service, read: read(),
        log: Callable[[list[Delivery]], object] = lambda deliveries: None,
    ) -> None:
        self._responses = responses
        self._runs = runs
        self._schedules = schedules
        self._settings = settings
        self._hooks = hooks
        self._events = ResponseEvents(emit, wanted, hooks, max_depth=settings.max_depth)
        self._stopping = stopping
        self._execute = execute
        self._log = log

    def consume(self, service: Service) -> RunResult:
        """One run: read all messages of the service's response queue, including those that arrive meanwhile.

        Errors of the service or its broker are in the result, in `consumer_state` and in the run log.

        Raises:
            UnavailableError: the ledger is unavailable; no message was acknowledged that is not stored.
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
        summary = (
            result.error or "another run was reading the queue" if result.outcome == "skipped" else result.summary()
        )
        self._runs.finish(run, result.outcome, summary=summary, error=result.error)
        self._schedules.finished(CONSUME, result.outcome)
        return result

    def _guarded(self, session: Session, service: Service, result: RunResult, run: int) -> None:
        context = {"service": service.name, "queue": service.response_queue}
        try:
            self._execute(service, lambda: self._run(session, service, result))
        except CircuitOpenError as e:
            result.outcome, result.error = "skipped", str(e)
            log.info("response queue not read", error=result.error, **context)
        except BaseException as e:
            ours = not isinstance(e, HubError) or isinstance(e, UnavailableError)
            result.error = str(e) if isinstance(e, HubError) else f"ended by {type(e).__name__}"
            log.warning("response queue not read", error=result.error, summary=result.summary(), **context)
            try:
                if isinstance(e, DeliveryError) and e.delivery is not None:
                    self._log([e.delivery])
                self._responses.failed(service.id, result.error)
                if ours:
                    self._runs.finish(run, "error", summary=result.summary(), error=result.error)
            except UnavailableError:
                pass  # the next run records that this one was lost
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
        check_secrets(service)
        connection = connect(service, settings, Deadline(service.timeout), keep=settings.message_limit)
        queue = ResponseQueue(connection, service, batch=settings.consumer_batch, batch_bytes=_BATCH_BYTES)
        try:
            result.pending = queue.open()
            result.declared = queue.declared
            known = session.last_batch()
            # While one batch is stored, the next is read; a batch is acknowledged after its commit.
            with ThreadPoolExecutor(1, "hub-responses") as storing:
                in_progress: _Storing | None = None
                for batch in queue.batches(deadline, self._stopping):
                    self._acknowledge(queue, in_progress)
                    in_progress = batch, storing.submit(self._store, session, service, batch, known, result)
                self._acknowledge(queue, in_progress)
            result.unfinished = queue.unfinished
        finally:
            queue.close()

    def _acknowledge(
        self, queue: ResponseQueue, in_progress: tuple[list[Message], Future[Callable[[], None]]] | None
    ) -> None:
        """Wait until a batch is stored, then acknowledge it. Raises as `_store`."""
        if in_progress is not None:
            batch, stored = in_progress
            after = stored.result()
            queue.acknowledge(batch)
            after()

    def _store(
        self, session: Session, service: Service, batch: list[Message], known: set[bytes], result: RunResult
    ) -> Callable[[], None]:
        """Store a batch and its events in one transaction; returns what to call after the acknowledgement."""
        marks = [mark(m) for m in batch]
        new = [
            parse(m, service, self._settings)
            for m, known_by in zip(batch, marks, strict=True)
            if not (m.redelivered and known_by is not None and known_by in known)
        ]
        with session.transaction() as conn:
            depths, own = session.depths(sorted({p.correlation for p in new if p.correlation is not None}))
            for p in new:
                if p.correlation in own:
                    p.row.task_id = p.correlation
            cut, after = self._events.write(conn, service, new, depths)
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
