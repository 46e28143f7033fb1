"""Health checks: the faults that alerts report, read directly, for `/readyz` and `hub stats`."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from hub.errors import HubError, UnavailableError
from hub.store.heartbeats import Heartbeats

if TYPE_CHECKING:
    from hub.app.records import Records
    from hub.settings import Settings
    from hub.store.clock import Clock
    from hub.store.database import Row

MAX_CLOCK_OFFSET = 30.0  # seconds


@dataclass(frozen=True, slots=True)
class Check:
    """The result of a check.

    Args:
        name: database, broker, worker, scheduler, relay or clock.
        ok: False: an alert reports this fault too.
        text: `ok`, or a sentence that says what is wrong.
    """

    name: str
    ok: bool = True
    text: str = "ok"


def check_database(heartbeats: Heartbeats) -> Check:
    """Check that the database accepts writes: a full disk or a standby can still be read."""
    try:
        heartbeats.probe()
    except HubError as e:
        return Check("database", False, f"the database accepts no writes: {e}")
    return Check("database")


def check_broker(consumers: Callable[[], int | None]) -> tuple[Check, int | None]:
    """Check that RabbitMQ responds; returns the consumers of the dispatch queue too, None when unknown."""
    try:
        found = consumers()
    except HubError as e:
        return Check("broker", False, str(e)), None
    return Check("broker"), found or 0


def check_processes(heartbeats: list[Row], clock: Clock, consumers: int | None = None) -> list[Check]:
    """Check for a worker, a scheduler, a leading outbox relay, and the clocks of all machines.

    Args:
        heartbeats: `component alive clock_offset` of each component.
        clock: read for the offset of this machine, if it was synchronized.
        consumers: of the dispatch queue; None: unknown.
    """
    alive = {row["component"] for row in heartbeats if row["alive"]}
    checks = [
        Check("worker"),
        Check("scheduler"),
        Check("relay"),
        _clocks(heartbeats, clock.offset),
    ]
    if "worker" not in alive:
        checks[0] = Check("worker", False, "no worker has sent a heartbeat within 60 s: nothing is delivered")
    elif consumers == 0:
        checks[0] = Check("worker", False, "no worker consumes the dispatch queue: nothing is delivered")
    if "scheduler" not in alive:
        checks[1] = Check("scheduler", False, "no tick within 180 s: response queues are not read")
    if "releaser" not in alive:
        checks[2] = Check("relay", False, "no outbox relay leads: retries and lost messages are not published")
    return checks


def check_all(records: Records) -> list[Check]:
    """Check database, broker, processes and clocks, for a command. Connects to RabbitMQ."""
    checks, consumers = [check_database(Heartbeats(records.db, f"cli:{os.getpid()}"))], None
    if records.settings.broker_url is None:
        checks.append(Check("broker"))
    else:
        check, consumers = check_broker(partial(_consumers, records.settings))
        checks.append(check)
    try:
        records.clock.sync()
    except UnavailableError:
        pass  # the check of the database reports it
    return [*checks, *check_processes(records.views.overview.heartbeats(), records.clock, consumers)]


def _consumers(settings: Settings) -> int | None:
    from hub.monitoring.collectors.queues import RabbitSource  # imports pika, which listings do not use

    assert settings.broker_url is not None
    queue = f"{settings.queue_prefix}.dispatch"
    source = RabbitSource(settings.broker_url.get_secret_value(), [queue])
    try:
        return next((int(consumers) for name, _, consumers in source.read() if name == queue), None)
    finally:
        source.close()


def _clocks(heartbeats: list[Row], own: float | None) -> Check:
    offsets = {f"a {row['component']}": row["clock_offset"] for row in heartbeats if row["clock_offset"] is not None}
    if own is not None:
        offsets["this"] = own
    where = max(offsets, key=lambda name: abs(offsets[name]), default=None)
    if where is None or abs(offsets[where]) <= MAX_CLOCK_OFFSET:
        return Check("clock")
    machine = "this machine" if where == "this" else f"the machine of {where}"
    side = "ahead of" if offsets[where] > 0 else "behind"
    return Check("clock", False, f"the clock of {machine} is {abs(offsets[where]):.0f} s {side} the database's")
