"""One attempt of one task: claim, render, send, and record a success or a release.

A failed attempt that counts is returned as a `FailedAttempt`; `hub.pipeline.attempts` records it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

import structlog

from hub.codec import loads
from hub.domain import masks, rules
from hub.domain.lookups import named
from hub.domain.paths import mask_value
from hub.domain.text import MASK
from hub.errors import (
    CircuitOpenError,
    DeliveryError,
    HubError,
    InvalidPayloadError,
    NotSentError,
    PayloadError,
    SecretsError,
    UnavailableError,
)
from hub.hooks import Hooks
from hub.models import (
    JSON,
    Claim,
    Delivery,
    Request,
    Rule,
    Service,
)
from hub.pipeline.attempts import AttemptPolicy, FailedAttempt, Outcome, Released, next_step
from hub.pipeline.byte_budget import ByteBudget
from hub.pipeline.delivery_record import record
from hub.pipeline.gateway import Gateway
from hub.pipeline.lookups import Lookups
from hub.settings import Settings
from hub.store.configuration import Configuration
from hub.store.ledger import Ledger

log = structlog.get_logger("hub.pipeline.dispatch")
_RULE_UNKNOWN = 1.0  # seconds until a task whose rule this process has not read yet is tried again


class Dispatcher:
    """Runs attempts. One instance per process; thread-safe.

    Args:
        now: the deployment's clock; timezone-aware.
        budget: bounds the memory of rendered bodies.
        lookups: reads what the event's ids refer to.
        wait: whether `run` returns only when a success is in the ledger. Workers do not wait: the next
            task starts while successes are committed in groups.
    """

    def __init__(
        self,
        configuration: Configuration,
        ledger: Ledger,
        gateway: Gateway,
        hooks: Hooks,
        *,
        settings: Settings,
        now: Callable[[], datetime],
        budget: ByteBudget,
        lookups: Lookups,
        wait: bool = True,
    ) -> None:
        self._configuration = configuration
        self._ledger = ledger
        self._gateway = gateway
        self._hooks = hooks
        self._settings = settings
        self._budget = budget
        self._lookups = lookups
        self._payload_limit = max(settings.payload_limit, settings.event_limit)
        self._log_successes = settings.log_successes
        self._wait = wait
        self._now = now

    def run(self, task_id: int) -> Outcome:
        """Claim a task and make one attempt. The caller records a `FailedAttempt`.

        Raises:
            UnavailableError: the database is away and the process is stopping.
        """
        claim = self._ledger.claim(task_id)
        return "skipped" if claim is None else self.attempt(claim)

    def attempt(self, claim: Claim) -> Outcome:
        """Make one attempt of a claimed task; raises as `run` does."""
        context: dict[str, object] = {
            "task": claim.id,
            "_event": claim.event_name,
            "event_id": claim.event_uid,
            "key": claim.key,
            "attempt": claim.attempt,
        }
        service, rule = self._known(claim)
        if service is None or rule is None:  # deleted a moment ago, or not read yet: the next claim holds or finds it
            self._ledger.release(claim, delay=_RULE_UNKNOWN)
            return "parked"
        context |= {"rule": rule.name, "service": service.name}
        try:
            if not claim.bulk:  # the bulk lane waits by design
                self._hooks.queue_wait(service.name, max(0.0, (self._now() - claim.due_at).total_seconds()))
            delivery = self._attempt(claim, service, rule)
        except BaseException as e:
            step = next_step(e, claim.attempt, AttemptPolicy.of(self._settings, service))
            if isinstance(e, CircuitOpenError):
                self._hooks.parked(service.name)
            if not isinstance(step, Released):
                assert isinstance(e, DeliveryError)
                return _failed(claim, service, e, context)
            self._release(claim, service, e, step, context)
            return "parked"
        if self._wait:
            self._finished(claim, service, self._ledger.finish(claim, delivery))
        else:
            self._ledger.finish_soon(claim, delivery, partial(self._finished, claim, service))
        if self._log_successes >= 1 or _share(claim.id) < self._log_successes:
            if self._log_successes < 1:
                context |= {"sample_rate": self._log_successes}
            log.info("delivered", status=delivery.status, latency_ms=round(delivery.latency_ms or 0, 1), **context)
        return "delivered"

    def _release(
        self, claim: Claim, service: Service, error: BaseException, step: Released, context: Mapping[str, object]
    ) -> None:
        if isinstance(error, SecretsError):
            self._hooks.locked_out(service.name)
        self._ledger.release(claim, delay=step.delay, why=step.why)
        if isinstance(error, DeliveryError):
            log.info("parked", why=step.why, retry_after=step.delay, **context)
        elif isinstance(error, NotSentError):
            log.warning("released: nothing was sent", why=step.why, retry_after=step.delay, **context)
        elif not isinstance(error, UnavailableError):
            log.error("internal error; the attempt does not count", exc_info=error, **context)

    def _finished(self, claim: Claim, service: Service, done: bool) -> None:
        if done:
            seconds = max(0.0, (self._now() - claim.accepted_at).total_seconds())
            self._hooks.task_finished(service.name, "delivered", None if claim.bulk else seconds)

    def _known(self, claim: Claim) -> tuple[Service | None, Rule | None]:
        """The task's service and rule, as far as this process can read them."""
        try:
            return self._configuration.service_by_id(claim.service_id), self._configuration.rule_by_id(claim.rule_id)
        except HubError as e:
            log.warning("configuration not read", error=str(e), task=claim.id)
            return None, None

    def _attempt(self, claim: Claim, service: Service, rule: Rule) -> Delivery:
        request = Request(method=rule.method, endpoint=rule.endpoint, task_id=claim.id, event_name=claim.event_name)
        self._budget.check(service.id, len(claim.event_data))  # before rendering
        now = self._now()
        shaped = rule
        if claim.own_payload is not None:
            shaped = replace(shaped, payload=None)
        if claim.own_endpoint is not None:
            shaped = replace(shaped, endpoint="")

        def render(data: JSON, extra: dict[str, JSON]) -> tuple[str | None, str]:
            body, endpoint = rules.render(
                shaped,
                event_name=claim.event_name,
                event_data=data,
                event_id=claim.event_uid,
                task_id=claim.id,
                now=now,
                limit=self._payload_limit,
                kind=service.type,
                extra=extra,
            )
            return (
                body if claim.own_payload is None else claim.own_payload,
                endpoint if claim.own_endpoint is None else claim.own_endpoint,
            )

        try:
            data = _data(claim)
            extra = self._lookups.read(named(shaped.payload, shaped.endpoint), data, claim.event_source)
            body, endpoint = render(data, extra)
        except DeliveryError as e:
            e.delivery = record(service, request, claim, tries=0, seconds=0.0, error=e)
            self._hooks.attempt_finished(service.name, e.outcome, 0.0)
            raise
        request = Request(
            endpoint=endpoint,
            method=rule.method,
            body=body,
            idempotency_key=claim.key,
            task_id=claim.id,
            event_name=claim.event_name,
            event_id=claim.event_uid,
        )
        if paths := self._masked_paths(claim, service, rule, data):
            request = replace(request, **_loggable(data, extra, paths, render))
        with self._budget.hold(service.id, body, request.log_body):
            return self._gateway.execute_request(service, request, claim)

    def _masked_paths(self, claim: Claim, service: Service, rule: Rule, data: JSON) -> list[str]:
        """Paths into the event's data that no log may show: masked by the service, or by the event's source."""

        def mask_of(name: str) -> list[str]:
            return next((s.options.get("mask") or [] for s in self._configuration.services() if s.name == name), [])

        paths = masks.event_paths(service.options.get("mask") or [], rule.payload)
        return paths + masks.source_paths(claim.event_name, data, mask_of)


def _failed(claim: Claim, service: Service, error: DeliveryError, context: Mapping[str, object]) -> FailedAttempt:
    delivery = error.delivery
    if delivery is None:
        delivery = record(service, Request(task_id=claim.id), claim, tries=0, seconds=0.0, error=error)
    return FailedAttempt(claim, service, error, delivery, context)


def _loggable(
    data: JSON,
    extra: dict[str, JSON],
    paths: list[str],
    render: Callable[[JSON, dict[str, JSON]], tuple[str | None, str]],
) -> dict[str, Any]:
    """The loggable fields of a `Request`, rendered from masked data."""
    seen: list[JSON] = []
    try:
        body, endpoint = render(mask_value(data, paths, seen), mask_value(extra, paths, seen))
    except DeliveryError:  # a template that asks for the masked value's type
        body, endpoint = MASK, MASK
    hidden = masks.texts(seen)
    return {"log_body": body, "log_endpoint": endpoint.replace("%2A%2A%2A", MASK), "hidden": hidden}


def _data(claim: Claim) -> JSON:
    """The event's data. Data that cannot be read counts as a failure, else the task would never end."""
    try:
        return loads(claim.event_data)
    except PayloadError as e:
        raise InvalidPayloadError(f"the event's data cannot be read: {e}") from e


def _share(task_id: int) -> float:
    """Return a number in [0, 1) that is spread evenly over consecutive ids (Knuth's multiplicative hash)."""
    return (task_id * 2654435769 & 0xFFFFFFFF) / 2**32
