"""The circuit's transitions, one by one and then in any order that many workers may produce."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from hub.domain.breaker import (
    Circuit,
    admit,
    on_failure,
    on_success,
)
from hub.models import BreakerState

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def opened(epoch: int = 1) -> Circuit:
    return Circuit(OPEN, 5, epoch, retry_at=after(30))


def probing(epoch: int = 2) -> Circuit:
    return Circuit(HALF_OPEN, 5, epoch, probe_until=after(100))


def test_a_closed_circuit_lets_everyone_through() -> None:
    admission = admit(Circuit(failures=4), NOW, probe_lease=10)
    assert (admission.allowed, admission.probe, admission.new_state) == (True, False, None)


def test_threshold_consecutive_failures_open_it() -> None:
    circuit = Circuit()
    for count in range(1, 5):
        moved = on_failure(circuit, 0, False, NOW, 5, 30)
        assert moved == Circuit(CLOSED, count)
        circuit = moved
    assert on_failure(circuit, 0, False, NOW, 5, 30) == Circuit(OPEN, 5, 1, retry_at=after(30))


def test_a_success_starts_the_count_again() -> None:
    assert on_success(Circuit(failures=4, epoch=3), 3, False) == Circuit(epoch=3)
    assert on_success(Circuit(epoch=3), 3, False) is None


def test_a_threshold_of_zero_switches_it_off() -> None:
    assert on_failure(Circuit(failures=99), 0, False, NOW, 0, 30) is None


def test_a_lowered_threshold_counts_from_the_next_failure() -> None:
    moved = on_failure(Circuit(failures=4), 0, False, NOW, 2, 30)
    assert moved is not None
    assert moved.state is OPEN


def test_an_open_circuit_says_how_long_to_wait() -> None:
    admission = admit(opened(), after(10), probe_lease=10)
    assert (admission.allowed, admission.retry_after, admission.new_state) == (False, 20, None)


@pytest.mark.parametrize("retry_at", [after(30), None])
def test_after_the_cooldown_exactly_one_probe_goes_through(retry_at: datetime | None) -> None:
    """In MIH everyone goes through a half-open circuit."""
    first = admit(Circuit(OPEN, 5, 1, retry_at=retry_at), after(30), probe_lease=100)
    assert first.allowed
    assert first.probe
    assert first.new_state == Circuit(HALF_OPEN, 5, 2, probe_until=after(130))
    assert not any(admit(first.new_state, after(31), probe_lease=100).allowed for _ in range(16))


@pytest.mark.parametrize(("seconds", "wait"), [(0, 1), (0.5, 1), (7, 7), (60, 30), (99.5, 0.5)])
def test_those_who_wait_for_a_probe_ask_again_soon_then_less_often(seconds: float, wait: float) -> None:
    """A probe is over in milliseconds or takes its time; neither a long park nor a stampede serves."""
    assert admit(probing(), after(seconds), probe_lease=100).retry_after == pytest.approx(wait)


def test_a_probe_whose_worker_died_frees_the_slot_after_its_lease() -> None:
    assert not admit(probing(), after(99), probe_lease=100).allowed
    second = admit(probing(), after(100), probe_lease=50)
    assert second.probe
    assert second.new_state == Circuit(HALF_OPEN, 5, 3, probe_until=after(150))


def test_a_probe_that_outlived_its_lease_does_not_speak_for_its_successor() -> None:
    successor = probing(epoch=3)
    assert on_failure(successor, 2, True, NOW, 5, 30) is None
    assert on_success(successor, 2, True) is None


def test_a_probes_success_closes() -> None:
    assert on_success(probing(), 2, True) == Circuit(CLOSED, 0, 2)


def test_a_probes_failure_opens_with_a_fresh_cooldown() -> None:
    assert on_failure(probing(), 2, True, after(40), 5, 30) == Circuit(OPEN, 6, 3, retry_at=after(70))


@pytest.mark.parametrize("circuit", [opened(), probing(), Circuit(failures=2, epoch=2)])
def test_what_began_before_the_circuit_opened_moves_nothing(circuit: Circuit) -> None:
    """Neither a late success that closes, nor a late failure that prolongs the cooldown or counts afresh."""
    assert on_success(circuit, 0, False) is None
    assert on_failure(circuit, 0, False, NOW, 5, 30) is None


@pytest.mark.parametrize("circuit", [opened(), probing()])
def test_only_a_probe_moves_a_circuit_that_is_not_closed(circuit: Circuit) -> None:
    assert on_success(circuit, circuit.epoch, False) is None
    assert on_failure(circuit, circuit.epoch, False, NOW, 5, 30) is None


@dataclass(frozen=True)
class Sent:
    """A request on its way, and what was so when it set out."""

    epoch: int
    probe: bool
    lease_until: datetime | None
    openings: int


class AnyOrder(RuleBasedStateMachine):
    """Requests set out, succeed, fail and vanish in any order while time goes on."""

    flying = Bundle("flying")
    lease = 20.0

    @initialize(threshold=st.integers(0, 4), cooldown=st.sampled_from([0.0, 5.0, 30.0]))
    def begin(self, threshold: int, cooldown: float) -> None:
        self.now, self.circuit = NOW, Circuit()
        self.threshold, self.cooldown = threshold, cooldown
        self.openings, self.in_a_row = 0, 0
        self.probe: Sent | None = None

    @rule(seconds=st.sampled_from([0.0, 0.1, 5.0, 20.0, 31.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(target=flying)
    def ask(self) -> object:
        before = self.circuit
        admission = admit(before, self.now, self.lease)
        if not admission.allowed:
            assert before.state is not CLOSED
            assert admission.new_state is None
            assert admission.retry_after > 0
            assert self.now < (before.retry_at or before.probe_until or self.now)
            return multiple()
        assert admission.probe == (before.state is not CLOSED)
        if admission.probe:
            assert admission.new_state is not None
            held = self.probe is not None and self.probe.lease_until is not None and self.now < self.probe.lease_until
            assert not held, "two probes at once"
            self.circuit = admission.new_state
        sent = Sent(self.circuit.epoch, admission.probe, self.circuit.probe_until, self.openings)
        if sent.probe:
            self.probe = sent
        return sent

    @rule(sent=consumes(flying))
    def succeed(self, sent: Sent) -> None:
        before, moved = self.circuit, on_success(self.circuit, sent.epoch, sent.probe)
        if before.state is CLOSED and sent.epoch == before.epoch:
            self.in_a_row = 0
        if moved is not None:
            if before.state is not CLOSED:
                assert sent is self.probe, "only the newest probe closes"
                assert sent.openings == self.openings
                self.in_a_row = 0
            assert moved.state is CLOSED
            self.circuit = moved
        self.landed(sent)

    @rule(sent=consumes(flying))
    def fail(self, sent: Sent) -> None:
        before = self.circuit
        moved = on_failure(before, sent.epoch, sent.probe, self.now, self.threshold, self.cooldown)
        if before.state is CLOSED and sent.epoch == before.epoch:
            self.in_a_row += 1
        if moved is not None:
            assert sent.openings == self.openings, "a failure from before an opening must not count"
            if moved.state is OPEN:
                assert sent is self.probe or self.in_a_row >= self.threshold
                assert moved.retry_at == self.now + timedelta(seconds=self.cooldown)
                assert moved.epoch > before.epoch
                self.openings += 1
            self.circuit = moved
        self.landed(sent)

    @rule(sent=consumes(flying))
    def vanish(self, sent: Sent) -> None:
        """The worker was killed: nothing is reported, the lease runs on."""

    def landed(self, sent: Sent) -> None:
        if sent is self.probe:
            self.probe = None

    @invariant()
    def is_sound(self) -> None:
        circuit = self.circuit
        assert (circuit.state is OPEN) == (circuit.retry_at is not None)
        assert (circuit.state is HALF_OPEN) == (circuit.probe_until is not None)
        if circuit.state is CLOSED:
            assert circuit.failures == (self.in_a_row if self.threshold else 0)
            assert self.threshold == 0 or circuit.failures < self.threshold
        if self.threshold == 0:
            assert circuit == Circuit()

    @invariant()
    def never_stuck(self) -> None:
        """Whatever happened, a request gets through once cooldown and lease are over."""
        assert admit(self.circuit, self.now + timedelta(seconds=100), self.lease).allowed


TestAnyOrder = AnyOrder.TestCase
