"""Tries within one attempt: how many, how far apart, and which failures are worth another."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.domain.retry_policy import run_tries
from hub.errors import (
    ConnectError,
    DeliveryError,
    FaultError,
    InvalidPayloadError,
    NotSentError,
    RejectedError,
    TimedOutError,
    UnavailableError,
    UnroutableError,
)
from hub.models import Response


class Service:
    """Fails with the given errors one after the other, then answers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.numbers: list[int] = []
        self.slept: list[float] = []
        self.reported: list[tuple[int, str]] = []

    def send(self, number: int) -> Response:
        self.numbers.append(number)
        if self.errors:
            raise self.errors.pop(0)
        return Response(status=200)

    def report(self, number: int, error: DeliveryError | None) -> None:
        self.reported.append((number, error.outcome if error else "success"))

    def run(self, tries: int, backoff: float = 1.0, **options: float) -> tuple[Response, int]:
        return run_tries(
            self.send, tries=tries, backoff=backoff, sleep=self.slept.append, on_try=self.report, **options
        )


def test_a_success_needs_one_try() -> None:
    service = Service()
    assert service.run(3) == (Response(status=200), 1)
    assert (service.numbers, service.slept, service.reported) == ([1], [], [(1, "success")])


def test_a_passing_failure_is_tried_again() -> None:
    """MIH has a retry policy that never retries."""
    service = Service(ConnectError("refused"), RejectedError("no", status=503))
    assert service.run(3) == (Response(status=200), 3)
    assert service.numbers == [1, 2, 3]
    assert service.reported == [(1, "connect_error"), (2, "http_5xx"), (3, "success")]


@pytest.mark.parametrize(("tries", "made"), [(-1, 1), (0, 1), (1, 1), (2, 2), (5, 5)])
def test_tries_count_the_first_one_too(tries: int, made: int) -> None:
    """`max_retries * 5` is the most one dispatch may send."""
    service = Service(*[TimedOutError(f"try {n}") for n in range(1, 10)])
    with pytest.raises(TimedOutError, match=f"try {made}") as failed:
        service.run(tries)
    assert service.numbers == list(range(1, made + 1))
    assert failed.value.tries == made
    assert len(service.slept) == made - 1


@pytest.mark.parametrize(
    "error",
    [
        RejectedError("not found", status=404),
        RejectedError("redirect", status=302),
        RejectedError("too many", status=429, retry_after=5),
        RejectedError("timeout", status=408),
        RejectedError("maintenance", status=503, retry_after=120),
        UnroutableError("nobody"),
        FaultError("fault"),
    ],
    ids=str,
)
def test_an_answer_that_means_no_is_not_tried_again(error: DeliveryError) -> None:
    service = Service(error)
    with pytest.raises(type(error)) as failed:
        service.run(5)
    assert failed.value is error
    assert (failed.value.tries, service.numbers, service.slept) == (1, [1], [])


def test_the_pause_doubles_up_to_its_cap() -> None:
    service = Service(*[ConnectError("refused")] * 8)
    service.run(9, backoff=1)
    assert service.slept == [1, 2, 4, 8, 16, 32, 60, 60]
    service = Service(*[ConnectError("refused")] * 3)
    service.run(4, backoff=90, cap=5)
    assert service.slept == [5, 5, 5]


def test_no_backoff_means_no_pause() -> None:
    service = Service(*[ConnectError("refused")] * 2)
    service.run(3, backoff=0)
    assert service.slept == []


def test_the_hubs_own_fault_ends_the_tries_at_once() -> None:
    """A lost lease or database is not the service's failure: it is neither reported nor retried."""
    service = Service(ConnectError("refused"), UnavailableError("lease is over"))
    with pytest.raises(UnavailableError):
        service.run(5)
    assert service.reported == [(1, "connect_error")]


@given(st.integers(1, 2000), st.floats(0, 1e6), st.floats(0, 60))
def test_any_policy_stays_within_its_bounds(tries: int, backoff: float, cap: float) -> None:
    service = Service(*[ConnectError("refused")] * tries)
    with pytest.raises(ConnectError):
        service.run(tries, backoff, cap=cap)
    assert len(service.numbers) == tries
    assert all(pause <= cap for pause in service.slept)
    assert service.slept == sorted(service.slept)


def test_what_was_not_sent_is_no_try() -> None:
    service = Service(InvalidPayloadError("template"))
    with pytest.raises(InvalidPayloadError) as failed:
        service.run(5)
    assert (failed.value.tries, service.numbers, service.reported) == (0, [1], [])


def test_an_internal_error_before_the_first_send_makes_no_attempt() -> None:
    service = Service(NotSentError("no descriptors"))
    with pytest.raises(NotSentError):
        service.run(5)
    assert service.reported == []


def test_an_internal_error_after_a_failed_try_leaves_that_try_as_the_outcome() -> None:
    service = Service(ConnectError("refused"), NotSentError("no descriptors"))
    with pytest.raises(ConnectError) as failed:
        service.run(5)
    assert (failed.value.tries, service.reported) == (1, [(1, "connect_error")])
    assert isinstance(failed.value.__cause__, NotSentError)


def test_a_failing_token_endpoint_is_asked_again_but_is_no_try() -> None:
    down = ConnectError("the token endpoint is down")
    down.sent = False
    service = Service(down)
    assert service.run(3) == (Response(status=200), 1)
    assert service.reported == [(1, "success")]
