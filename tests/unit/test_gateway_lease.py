"""A worker whose lease is over sends nothing, however long it waited for the circuit before."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from hub.errors import ConnectError, UnavailableError
from hub.hooks import Hooks
from hub.models import (
    Request,
    Response,
    Service,
    ServiceType,
)
from hub.pipeline.gateway import Gateway
from hub.store.breakers import Permit

SERVICE = Service(1, "s", ServiceType.REST, "http://h", max_retries=3, retry_backoff=0)


class Parts:
    """The gateway's other parts; the lease is over from the `over`-th look on."""

    def __init__(self, over: int) -> None:
        self.sent, self.looks, self.over, self.released, self.failed_ = 0, 0, over, 0, 0

    def lease(self) -> None:
        self.looks += 1
        if self.looks >= self.over:
            raise UnavailableError("this worker's lease is over")

    def send(self, *_: Any) -> Response:
        self.sent += 1
        raise ConnectError("refused")

    def acquire(self, *_: Any) -> None: ...

    def admit(self, *_: Any, **__: Any) -> Permit:
        return Permit(1, probe=True)

    def release(self, *_: Any) -> None:
        self.released += 1

    def failed(self, *_: Any) -> None:
        self.failed_ += 1


def run(over: int) -> tuple[Parts, Exception]:
    parts: Any = Parts(over)
    gateway = Gateway(
        {ServiceType.REST: parts},
        parts,
        parts,
        Hooks(),
        now=lambda: datetime.now(UTC),
        lease=parts.lease,
        sleep=lambda _: None,
    )
    with pytest.raises(Exception) as raised:
        gateway.execute_request(SERVICE, Request())
    return parts, raised.value


def test_a_lease_that_ends_before_the_first_try_costs_nothing() -> None:
    """It ended while the circuit was looked at: nothing is sent, the probe's slot is free again."""
    parts, error = run(over=2)
    assert isinstance(error, UnavailableError)
    assert (parts.sent, parts.released, parts.failed_) == (0, 1, 0)


def test_a_lease_that_ends_between_two_tries_ends_the_attempt() -> None:
    """A try was made, so the attempt counts with that try's error; the circuit does not move."""
    parts, error = run(over=3)
    assert isinstance(error, ConnectError) and error.tries == 1
    assert (parts.sent, parts.released, parts.failed_) == (1, 1, 0)
