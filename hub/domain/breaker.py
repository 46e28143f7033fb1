"""The circuit breaker's transitions, pure functions of (circuit, now).

`store.breakers` makes them atomic.

::

    closed ----- threshold consecutive failures -----> open          retry_at = now + cooldown
    open ------- admit() at or after retry_at -------> half_open     one probe, probe_until = now + lease
    half_open -- the probe succeeds -----------------> closed
    half_open -- the probe fails --------------------> open          a fresh cooldown
    half_open -- admit() at or after probe_until ----> half_open     the probe's worker died: a new probe

Every opening and every probe starts a new `epoch`, and every permit carries the epoch it was given in. A
report with an older epoch tells how the service was before the last transition, and moves nothing: so a
success that began before the circuit opened does not close it, a late failure does not prolong the cooldown,
and a probe that outlived its lease does not speak for its successor.

Times are aware datetimes of one clock (the database's), durations are seconds. Threshold 0: the breaker
is off.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from hub.models import BreakerState

_SHORTEST_WAIT = 1.0
_LONGEST_WAIT = 30.0


@dataclass(frozen=True, slots=True)
class Circuit:
    """One service's circuit. `failures` in a row; `retry_at` when open, `probe_until` when half open."""

    state: BreakerState = BreakerState.CLOSED
    failures: int = 0
    epoch: int = 0
    retry_at: datetime | None = None
    probe_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Admission:
    """Whether a request may go out; `new_state` must be stored first. `retry_after` is seconds, or 0."""

    allowed: bool
    probe: bool = False
    retry_after: float = 0.0
    new_state: Circuit | None = None


def admit(circuit: Circuit, now: datetime, probe_lease: float) -> Admission:
    """Ask for leave to send.

    Args:
        probe_lease: seconds after which a probe that never reported frees its slot.
    """
    if circuit.state is BreakerState.CLOSED:
        return Admission(True)
    until = circuit.retry_at if circuit.state is BreakerState.OPEN else circuit.probe_until
    remaining = (until - now).total_seconds() if until is not None else 0.0
    if remaining <= 0:
        probing = replace(
            circuit,
            state=BreakerState.HALF_OPEN,
            epoch=circuit.epoch + 1,
            retry_at=None,
            probe_until=now + timedelta(seconds=probe_lease),
        )
        return Admission(True, probe=True, new_state=probing)
    if circuit.state is BreakerState.HALF_OPEN:
        # The probe is most often over long before its lease: ask again after as long as it has run so far.
        running = min(max(probe_lease - remaining, _SHORTEST_WAIT), _LONGEST_WAIT)
        remaining = min(remaining, running)
    return Admission(False, retry_after=remaining)


def on_success(circuit: Circuit, admitted_epoch: int, probe: bool) -> Circuit | None:
    """The circuit after a success that was admitted in that epoch; None when nothing changes."""
    if admitted_epoch != circuit.epoch:
        return None
    if circuit.state is BreakerState.CLOSED:
        return replace(circuit, failures=0) if circuit.failures else None
    if circuit.state is BreakerState.HALF_OPEN and probe:
        return Circuit(epoch=circuit.epoch)
    return None


def on_failure(
    circuit: Circuit, admitted_epoch: int, probe: bool, now: datetime, threshold: int, cooldown: float
) -> Circuit | None:
    """The circuit after a failure that counts against it; None when nothing changes.

    Args:
        threshold: consecutive failures that open a closed circuit; 0: never.
        cooldown: seconds until the next probe.
    """
    if threshold <= 0 or admitted_epoch != circuit.epoch:
        return None
    failures = circuit.failures + 1
    if circuit.state is BreakerState.CLOSED and failures < threshold:
        return replace(circuit, failures=failures)
    if circuit.state is BreakerState.CLOSED or (circuit.state is BreakerState.HALF_OPEN and probe):
        return Circuit(BreakerState.OPEN, failures, circuit.epoch + 1, retry_at=now + timedelta(seconds=cooldown))
    return None
