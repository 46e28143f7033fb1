"""Sends requests to external services: circuit breaker, rate limiter, tries, transport, delivery record.

Both task classes and `hub.request()` send through `Gateway`. Every attempt leaves a `Delivery`: returned on success,
attached to the error (`error.delivery`) on failure. The caller writes it in the transaction of the outcome.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from uuid import uuid4

import structlog

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
    BreakerState,
    Claim,
    Delivery,
    Direction,
    Request,
    Response,
    Service,
    ServiceType,
)
from hub.pipeline.delivery_record import record
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
                send,
                tries=service.tries,
                backoff=service.retry_backoff,
                cap=_BACKOFF_CAP,
                sleep=self._sleep,
                on_try=report,
            )
        except NotSentError:
            self._quietly(lambda: self._breakers.release(service, permit))
            raise
        except Exception as e:
            error = e if isinstance(e, DeliveryError) else self._internal_error(e, sends + 1)
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
        """Reach the service without side effects and describe the result in a sentence. Does not change the circuit."""
        check_secrets(service)
        return self._transports[service.type].check(service, Deadline(service.timeout))

    def close(self) -> None:
        """Close every transport."""
        for transport in self._transports.values():
            transport.close()

    def _permit(self, service: Service, claim: Claim | None) -> Permit:
        """Ask the circuit, unless the claim has just read that it is closed."""
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

    def _internal_error(self, e: Exception, tries: int) -> DeliveryError:
        """An unforeseen error of a transport: the attempt counts, the breaker does not move."""
        log.error("internal error while sending", exc_info=e)
        error = DeliveryError(f"the hub failed while sending ({type(e).__name__}); the service may have received it")
        error.tries = tries
        return error

    def _judge(self, service: Service, permit: Permit, error: DeliveryError) -> None:
        if error.counts_against_breaker:
            self._quietly(lambda: self._breakers.failed(service, permit))
        elif isinstance(error, TransportError) and not isinstance(error, EgressRefusedError):
            self._quietly(lambda: self._breakers.succeeded(service, permit))  # it responded, so it is alive
        else:
            self._quietly(lambda: self._breakers.release(service, permit))

    def _quietly(self, act: Callable[[], None]) -> None:
        """Run `act` and log its errors: the outcome of a send is recorded even when the circuit cannot be written."""
        try:
            act()
        except UnavailableError as e:
            log.warning("circuit not updated", error=str(e))
        except Exception:
            log.exception("circuit not updated")
