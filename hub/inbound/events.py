"""Turns the responses of a batch into events, in the transaction that stores the responses.

The event of a response is one level deeper than the event of its task; a chain of `HUB_MAX_DEPTH` events ends here.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TypeAlias

from hub.domain import rules
from hub.errors import PayloadError
from hub.hooks import Hooks
from hub.inbound.messages import RESPONSE_RECEIVED, Parsed
from hub.models import Event, Rule, Service
from hub.pipeline.intake import Intake
from hub.store.database import Connection

# Writes events with their depths in a transaction; the returned function is called after the commit.
Emit: TypeAlias = Callable[[Connection, Sequence[Event], Sequence[int]], Callable[[], None]]


def through(intake: Intake) -> Emit:
    """An `Emit` that writes events by the intake."""

    def emit(conn: Connection, events: Sequence[Event], depths: Sequence[int]) -> Callable[[], None]:
        _, queued = intake.write(events, depths, conn)
        return lambda: intake.enqueue(queued)

    return emit


def wanted_by(all_rules: Iterable[Rule]) -> bool:
    """Whether any rule matches responses, ignoring its conditions."""
    event = Event(RESPONSE_RECEIVED, {})
    return any(rules.matches(replace(rule, conditions=None), event) for rule in all_rules)


class ResponseEvents:
    """Writes the events of stored responses.

    Args:
        emit: writes events of responses; None: responses are only stored.
        wanted: whether any rule matches such events. Building unmatched events would halve the throughput.
        max_depth: most events of a chain.
    """

    def __init__(self, emit: Emit | None, wanted: Callable[[], bool], hooks: Hooks, *, max_depth: int) -> None:
        self._emit = emit
        self._wanted = wanted
        self._hooks = hooks
        self._max_depth = max_depth

    def write(
        self, conn: Connection, service: Service, new: list[Parsed], depths: dict[int, int]
    ) -> tuple[int, Callable[[], None]]:
        """Write the events of a batch; returns (number of chains cut, function to call after the commit)."""
        if self._emit is None:
            return 0, _nothing
        cut = 0
        chosen: list[tuple[Parsed, int]] = []
        for p in new:
            if not p.row.success:
                continue
            # Without a task of the hub, which has the depth, a response is the first of its chain.
            depth = depths.get(p.correlation, 0) + 1 if p.correlation is not None else 1
            if depth > self._max_depth:
                cut += 1
                p.row.properties["chain_cut_at"] = depth
                continue
            chosen.append((p, depth))
        if len(chosen) > 1 and not self._wanted():
            self._hooks.event_accepted("unmatched", len(chosen) - 1)
            del chosen[:-1]  # one is kept as an example of such events
        if not chosen:
            return cut, _nothing
        events, levels = [_event(service, p) for p, _ in chosen], [depth for _, depth in chosen]
        try:
            with conn.transaction():
                return cut, self._emit(conn, events, levels)
        except PayloadError:  # one of them exceeds a limit of events: write the others one by one
            calls = []
            for (p, depth), event in zip(chosen, events, strict=True):
                try:
                    with conn.transaction():
                        calls.append(self._emit(conn, [event], [depth]))
                except PayloadError as e:
                    p.row.error = f"stored, but became no event: {e}"
            return cut, lambda: _all(calls)


def _nothing() -> None:
    """Do nothing after the commit."""


def _all(calls: list[Callable[[], None]]) -> None:
    for call in calls:
        call()


def _event(service: Service, p: Parsed) -> Event:
    """The event of a response. It has an id of its own, because two equal responses are two events."""
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
    return Event(RESPONSE_RECEIVED, data, str(uuid.uuid4()), cause_task=p.row.task_id)
