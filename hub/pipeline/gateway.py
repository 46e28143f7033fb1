"""Sends requests to external services: `execute_request()`: breaker -> retry policy -> transport -> delivery record.

Both of the hub's tasks, and `hub.request()`, go through here. Whatever happens leaves a `Delivery`: returned
on success, attached to the error (`error.delivery`) on failure. The caller writes it, in the
same transaction as what it means for the task.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from uuid import uuid4

import structlog

from hub.domain.masks import hide, masked, texts
from hub.domain.paths import mask_body
from hub.domain.retry_policy import longest_run, run_tries
from hub.errors import (
    ConfigError,
    DeliveryError,
    EgressRefusedError,
    NotSentError,
    TransportError,
    UnavailableError,
)
from hub.hooks import Hooks
from hub.models import (
    JSON,
    BreakerState,
    Claim,
    Delivery,
    Direction,
    Request,
    Response,
    Service,
    ServiceType,
)
from hub.store.breakers import Breakers, Permit
from hub.store.rate_limits import RateLimits
from hub.transports.auth import check_secrets
from hub.transports.base import CONFIG_RECHECK, Deadline, Transport

log = structlog.get_logger("hub.pipeline.gateway")
_BACKOFF_CAP = 60.0


class Gateway:
    """Sends requests to external services.

    Args:
        responses: the circuits of response queues.
        now: the deployment's clock; timezone-aware.
        lease: raises `UnavailableError` when this process may no longer send (its lease is over).
        sleep: waits between tries; injected in tests.
    """

    def __init__(
        self,
        transports: Mapping[ServiceType, Transport],
        breakers: Breakers,
        rate_limits: RateLimits,
        hooks: Hooks,
        *,
        now: Callable[[], datetime],
        lease: Callable[[], None] = lambda: None,
        responses: Breakers | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._transports = transports
        self._breakers = breakers
        self._rate_limits = rate_limits
        self._hooks = hooks
        self._now = now
        self._lease = lease
        self._responses = responses or breakers
        self._sleep = sleep

    def execute_request(self, service: Service, request: Request, claim: Claim | None = None) -> Delivery:
        """Send within one attempt; at most `service.tries` network tries.

        Args:
            claim: the task behind it; None for a direct request.

        Raises:
            CircuitOpenError, RateLimitedError, SecretsError: nothing was sent; release the attempt.
            UnavailableError (NotSentError): an internal error before anything was sent; release the attempt.
            DeliveryError: the attempt failed; `.delivery` says how. `.delivery.tries` is 0 when nothing was sent.
        """
        self._lease()
        check_secrets(service)
        if request.idempotency_key is None:  # one key for all tries
            request = replace(request, idempotency_key=f"msg_{uuid4().hex}")
        permit = self._permit(service, claim)
        try:
            self._rate_limits.acquire(service)
        except BaseException:
            self._quietly(lambda: self._breakers.release(service, permit))
            raise
        transport = self._transports[service.type]
        started = time.perf_counter()
        sends = 0

        def send(_: int) -> Response:
            try:
                self._lease()  # before the first, too: the circuit's row may have been waited for
                return transport.send(service, replace(request, at=self._now()), Deadline(service.timeout))
            except NotSentError:
                raise
            except ConfigError as e:  # by contract raised before a transport sends
                raise NotSentError(str(e), retry_after=CONFIG_RECHECK) from e
            except UnavailableError as e:
                raise NotSentError(str(e)) from e

        def report(number: int, error: DeliveryError | None) -> None:
            nonlocal sends
            sends = number
            self._hooks.try_finished(service.name, error.outcome if error else "success")

        try:
            response, tries = run_tries(
                send, tries=service.tries, backoff=service.retry_backoff, cap=_BACKOFF_CAP,
                sleep=self._sleep, on_try=report,
            )  # fmt: skip
        except NotSentError:
            self._quietly(lambda: self._breakers.release(service, permit))
            raise
        except Exception as e:
            error = e if isinstance(e, DeliveryError) else self._own_fault(e, sends + 1)
            seconds = time.perf_counter() - started
            if isinstance(error.__cause__, NotSentError):  # an internal error ended the tries
                self._quietly(lambda: self._breakers.release(service, permit))
            else:
                self._judge(service, permit, error)
            self._hooks.attempt_finished(service.name, error.outcome, seconds)
            error.delivery = record(service, request, claim, tries=error.tries, seconds=seconds, error=error)
            if error is e:
                raise
            raise error from e
        seconds = time.perf_counter() - started
        self._quietly(lambda: self._breakers.succeeded(service, permit))
        self._hooks.attempt_finished(service.name, "success", seconds)
        return record(service, request, claim, tries=tries, seconds=seconds, response=response)

    def check(self, service: Service) -> str:
        """Reach the service without side effects; what was seen, in a sentence. Moves no breaker."""
        check_secrets(service)
        return self._transports[service.type].check(service, Deadline(service.timeout))

    def close(self) -> None:
        """Close every transport."""
        for transport in self._transports.values():
            transport.close()

    def _permit(self, service: Service, claim: Claim | None) -> Permit:
        """The claim read the circuit a moment ago: a closed one needs no second look."""
        if claim is not None and claim.breaker == BreakerState.CLOSED:
            return Permit(claim.breaker_epoch, clean=claim.breaker_failures == 0)
        longest = longest_run(
            tries=service.tries, timeout=service.timeout, backoff=service.retry_backoff, cap=_BACKOFF_CAP
        )
        return self._breakers.admit(service, probe_lease=longest + 5)

    def execute_consumption(self, service: Service, read: Callable[[], None]) -> None:
        """Read a service's response queue within one run: circuit, tries, delivery record.

        The circuit is one of its own, so a broker whose queue cannot be read parks no dispatches.

        Args:
            read: reads what is pending; called again when a try fails. What it acknowledged stays acknowledged.

        Raises:
            CircuitOpenError: nothing was read.
            DeliveryError: the run failed; `.delivery` is its inbound row.
            UnavailableError: an internal error; counts against nothing.
        """
        check_secrets(service)
        longest = longest_run(
            tries=service.tries, timeout=service.timeout, backoff=service.retry_backoff, cap=_BACKOFF_CAP
        )
        permit = self._responses.admit(service, probe_lease=longest + 60)
        started = time.perf_counter()

        def send(number: int) -> Response:
            read()
            return Response()

        try:
            run_tries(
                send,
                tries=service.tries,
                backoff=service.retry_backoff,
                cap=_BACKOFF_CAP,
                sleep=self._sleep,
                on_try=lambda number, error: None,
            )
        except DeliveryError as e:
            step = self._responses.failed if e.counts_against_breaker else self._responses.release
            self._quietly(lambda: step(service, permit))
            e.delivery = Delivery(
                direction=Direction.INBOUND,
                service_id=service.id,
                service=service.name,
                success=False,
                endpoint=service.response_queue,
                method="AMQP",
                tries=e.tries,
                latency_ms=(time.perf_counter() - started) * 1000,
                outcome=e.outcome,
                error=str(e),
            )
            raise
        except BaseException:
            self._quietly(lambda: self._responses.release(service, permit))
            raise
        self._quietly(lambda: self._responses.succeeded(service, permit))

    def _own_fault(self, e: Exception, tries: int) -> DeliveryError:
        """An unforeseen error of a transport: the attempt counts, the breaker does not move."""
        log.error("internal error while sending", exc_info=e)
        error = DeliveryError(f"the hub failed while sending ({type(e).__name__}); the service may have got it")
        error.tries = tries
        return error

    def _judge(self, service: Service, permit: Permit, error: DeliveryError) -> None:
        if error.counts_against_breaker:
            self._quietly(lambda: self._breakers.failed(service, permit))
        elif isinstance(error, TransportError) and not isinstance(error, EgressRefusedError):
            self._quietly(lambda: self._breakers.succeeded(service, permit))  # it responded: the service is alive
        else:
            self._quietly(lambda: self._breakers.release(service, permit))

    def _quietly(self, act: Callable[[], None]) -> None:
        """The outcome of a send must reach the ledger even when the breaker's row cannot be written."""
        try:
            act()
        except UnavailableError as e:
            log.warning("circuit not updated", error=str(e))
        except Exception:
            log.exception("circuit not updated")


def record(
    service: Service,
    request: Request,
    claim: Claim | None,
    *,
    tries: int,
    seconds: float,
    response: Response | None = None,
    error: DeliveryError | None = None,
) -> Delivery:
    """The delivery row of one attempt; what the service's `mask` covers is hidden in all of it."""
    mask = service.options.get("mask") or []
    seen: list[JSON] = []
    body = request.log_body if request.log_body is not None else request.body
    if mask and request.body:
        mask_body(request.body, mask, seen)
    hidden = (*texts(seen), *request.hidden) if seen or request.hidden else ()
    status = response.status if response else error.status if error else None
    answer = response.body if response else error.response_body if error else None
    return Delivery(
        direction=Direction.OUTBOUND,
        service_id=service.id,
        service=service.name,
        success=error is None,
        task_id=claim.id if claim else request.task_id,
        rule_id=claim.rule_id if claim else None,
        event_id=claim.event_id if claim else None,
        event=claim.event_name if claim else request.event_name,
        endpoint=hide(request.endpoint if request.log_endpoint is None else request.log_endpoint, hidden),
        method=request.method if service.type is ServiceType.REST else service.type.value.upper(),
        attempt=claim.attempt if claim else None,
        tries=tries,
        status=status,
        latency_ms=seconds * 1000,
        outcome=error.outcome if error else "success",
        error=hide(str(error), hidden) if error else None,
        request_body=masked(body, mask, hidden),
        response_body=masked(answer, mask, hidden),
        response=answer,
    )
