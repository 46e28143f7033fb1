"""The five-attempt rule as a pure function: outcome in, next step out."""

from __future__ import annotations

import random

import pytest

from hub.errors import (
    CircuitOpenError,
    ConfigError,
    ConnectError,
    InvalidPayloadError,
    NotSentError,
    RateLimitedError,
    RejectedError,
    SecretsError,
    UnavailableError,
)
from hub.pipeline.attempts import AttemptPolicy, Dead, Delivered, Released, Retry, next_step
from hub.settings import Settings

POLICY = AttemptPolicy(max_attempts=5, delays=Settings.model_fields["retry_delays"].default, retry_after_cap=3600)
COUNTING = AttemptPolicy(max_attempts=5, delays=(60,), retry_after_cap=3600, count_open_circuit=True)


@pytest.mark.parametrize("error", [ConnectError("refused"), RejectedError("no", status=500), InvalidPayloadError("x")])
@pytest.mark.parametrize("jitter", [-1.0, 0.0, 1.0])
def test_failures_1_to_4_are_retried_later_each_time_and_the_fifth_is_dead(error: Exception, jitter: float) -> None:
    steps = [next_step(error, n, POLICY, jitter=jitter) for n in range(1, 7)]
    assert steps == [*(Retry(delay * (1 + 0.1 * jitter)) for delay in (60, 120, 240, 480)), Dead(), Dead()]


def test_a_success_delivers_whatever_its_number() -> None:
    assert [next_step(None, n, POLICY) for n in (1, 5)] == [Delivered()] * 2


@pytest.mark.parametrize(
    ("error", "delay"),
    [
        (CircuitOpenError("open", retry_after=20), 20),
        (RateLimitedError("full", retry_after=0.25), 0.25),
        (SecretsError("no key", retry_after=60), 60),
        (NotSentError("no file descriptors", retry_after=3), 3),
        (UnavailableError("away"), 1),
        (ConfigError("wrong keys"), 1),
    ],
)
def test_an_attempt_that_sent_nothing_is_released_even_after_the_fifth(error: Exception, delay: float) -> None:
    for attempt in (1, 5, 9):
        assert next_step(error, attempt, POLICY) == Released(delay, str(error))


def test_a_bug_is_an_internal_error_and_releases_the_attempt_without_its_text() -> None:
    assert next_step(RuntimeError("secret"), 5, POLICY) == Released(1, "internal error: RuntimeError")


def test_an_open_circuit_counts_when_the_settings_say_so() -> None:
    error = CircuitOpenError("open", retry_after=20)
    assert next_step(error, 1, COUNTING) == Retry(60) and next_step(error, 5, COUNTING) == Dead()
    assert next_step(RateLimitedError("full", retry_after=2), 5, COUNTING) == Released(2, "full")


@pytest.mark.parametrize(("retry_after", "delay"), [(None, 60), (5, 60), (300, 300), (10**8, 3600)])
def test_retry_after_lengthens_a_delay_up_to_its_cap(retry_after: float | None, delay: float) -> None:
    assert next_step(RejectedError("no", status=429, retry_after=retry_after), 1, POLICY) == Retry(delay)


def test_more_attempts_than_delays_repeat_the_last_delay() -> None:
    assert [POLICY.delay_after(n, None, 0) for n in (1, 4, 5, 9)] == [60, 480, 480, 480]
    assert AttemptPolicy(5, (), 3600).delay_after(1, None, 1) == 0


def test_jitter_spreads_a_delay_by_a_tenth_to_both_sides() -> None:
    """Tasks must not all meet a recovered service in the same moment."""
    spread = random.Random(1)
    delays = [POLICY.delay_after(1, None, spread.uniform(-1, 1)) for _ in range(500)]
    assert 54 <= min(delays) < 56 and 64 < max(delays) <= 66
