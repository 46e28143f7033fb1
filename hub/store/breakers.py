"""Circuits in PostgreSQL: locks the row, applies the transitions of `hub.domain.breaker`, writes the result.

Each transition is one short transaction, so all processes share one state and exactly one probe.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import structlog

from hub.domain import breaker
from hub.domain.breaker import Circuit
from hub.errors import CircuitOpenError
from hub.hooks import Hooks
from hub.models import BreakerState, Service
from hub.store.audit import record
from hub.store.database import Connection, Database

log = structlog.get_logger("hub.store.breakers")

_READ = """
SELECT state, failures, epoch, retry_at, probe_until, clock_timestamp() FROM {table} WHERE service_id = %s FOR UPDATE
"""
_WRITE = """
UPDATE {table} SET state = %s, failures = %s, epoch = %s, retry_at = %s, probe_until = %s,
    changed_at = CASE WHEN state = %s THEN changed_at ELSE now() END
WHERE service_id = %s
"""
_RELEASE = """
UPDATE {table} SET probe_until = clock_timestamp() WHERE service_id = %s AND epoch = %s AND state = 'half_open'
"""
_INSERT = "INSERT INTO {table} (service_id) VALUES (%s) ON CONFLICT DO NOTHING"
_TABLES = {"dispatch": "breakers", "responses": "response_breakers"}


@dataclass(frozen=True, slots=True)
class Permit:
    """Permission to send, given in an epoch of the circuit. `probe`: this is the one request of a half-open circuit."""

    epoch: int
    probe: bool = False
    clean: bool = True  # no failures are recorded, so a success need not be written


def _switched_off(circuit: Circuit, now: datetime) -> Circuit | None:
    """Close the circuit of a service whose circuit breaker was switched off while it was open."""
    return None if circuit.state is BreakerState.CLOSED else Circuit(epoch=circuit.epoch + 1)


class Breakers:
    """Per-service circuits, shared by all processes.

    Args:
        circuit: `dispatch` for what is sent to a service, `responses` for reading its response queue. Transitions of
            the first are counted in metrics, those of both are logged.
    """

    def __init__(self, db: Database, hooks: Hooks, circuit: Literal["dispatch", "responses"] = "dispatch") -> None:
        self._db = db
        self._hooks = hooks
        self._circuit = circuit
        table = _TABLES[circuit]
        self._read_sql, self._write_sql, self._release_sql, self._insert_sql = (
            sql.format(table=table).encode() for sql in (_READ, _WRITE, _RELEASE, _INSERT)
        )

    def admit(self, service: Service, *, probe_lease: float) -> Permit:
        """Ask for permission to send.

        Args:
            probe_lease: seconds after which another probe is permitted if this one never reported.

        Raises:
            CircuitOpenError: with the seconds until the next request is worthwhile.
        """
        if service.cb_failure_threshold == 0:
            self._move(service, _switched_off)
            return Permit(0)
        with self._db.transaction() as conn:
            circuit, now = self._read(conn, service)
            admission = breaker.admit(circuit, now, probe_lease)
            if admission.new_state is not None:
                self._write(conn, service, circuit, admission.new_state)
        if not admission.allowed:
            wait = max(0.1, admission.retry_after)
            raise CircuitOpenError(f"the circuit of {service.name} is open", retry_after=wait)
        if admission.new_state is not None:
            self._report(service, circuit, admission.new_state)
        current = admission.new_state or circuit
        return Permit(current.epoch, admission.probe, clean=current.failures == 0 and not admission.probe)

    def succeeded(self, service: Service, permit: Permit) -> None:
        """Record that the service responded."""
        if service.cb_failure_threshold and not permit.clean:
            self._move(service, lambda c, now: breaker.on_success(c, permit.epoch, permit.probe))

    def failed(self, service: Service, permit: Permit) -> None:
        """Record a failed request that counts against the circuit."""
        if service.cb_failure_threshold:
            self._move(
                service,
                lambda c, now: breaker.on_failure(
                    c, permit.epoch, permit.probe, now, service.cb_failure_threshold, service.cb_cooldown
                ),
            )

    def release(self, service: Service, permit: Permit) -> None:
        """Release a probe that was not sent."""
        if permit.probe:
            with self._db.autocommit() as conn:
                conn.execute(self._release_sql, [service.id, permit.epoch])

    def reset(self, service: Service) -> bool:
        """Close the circuit, for a person. Returns whether it was not closed."""
        with self._db.transaction() as conn:
            circuit, _ = self._read(conn, service)
            closed = Circuit(state=BreakerState.CLOSED, epoch=circuit.epoch + 1)
            self._write(conn, service, circuit, closed)
            before, after = {"circuit": circuit.state.value}, {"circuit": closed.state.value}
            if self._circuit == "dispatch" or circuit.state is not closed.state:
                action = "breaker.reset" if self._circuit == "dispatch" else "breaker.reset_responses"
                record(conn, action, "service", id=service.id, name=service.name, before=before, after=after)
        self._report(service, circuit, closed)
        return circuit.state != closed.state

    def _move(self, service: Service, step: Callable[[Circuit, datetime], Circuit | None]) -> bool:
        with self._db.transaction() as conn:
            circuit, now = self._read(conn, service)
            new = step(circuit, now)
            if new is not None:
                self._write(conn, service, circuit, new)
        if new is not None:
            self._report(service, circuit, new)
        return new is not None and new.state != circuit.state

    def _read(self, conn: Connection, service: Service) -> tuple[Circuit, datetime]:
        row = conn.execute(self._read_sql, [service.id]).fetchone()
        if row is None:
            conn.execute(self._insert_sql, [service.id])
            row = conn.execute(self._read_sql, [service.id]).fetchone()
        assert row is not None
        state, failures, epoch, retry_at, probe_until, now = row
        return Circuit(BreakerState(state), failures, epoch, retry_at, probe_until), now

    def _write(self, conn: Connection, service: Service, old: Circuit, new: Circuit) -> None:
        values = [new.state.value, new.failures, new.epoch, new.retry_at, new.probe_until, new.state.value, service.id]
        conn.execute(self._write_sql, values)

    def _report(self, service: Service, old: Circuit, new: Circuit) -> None:
        if old.state != new.state:
            if self._circuit == "dispatch":
                self._hooks.breaker_changed(service.name, old.state.value, new.state.value)
            log.warning(
                "circuit changed",
                service=service.name,
                circuit=self._circuit,
                was=old.state.value,
                now=new.state.value,
            )
