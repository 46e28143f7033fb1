"""The row of the delivery log that one attempt leaves."""

from __future__ import annotations

from hub.domain.masks import hide, masked, texts
from hub.domain.paths import mask_body
from hub.errors import DeliveryError
from hub.models import JSON, Claim, Delivery, Direction, Request, Response, Service, ServiceType


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
    """Build the delivery of one attempt. What the `mask` of the service covers is hidden in all of it."""
    mask = service.options.get("mask") or []
    seen: list[JSON] = []
    body = request.log_body if request.log_body is not None else request.body
    if mask and request.body:
        mask_body(request.body, mask, seen)
    hidden = (*texts(seen), *request.hidden) if seen or request.hidden else ()
    status = response.status if response else error.status if error else None
    response_body = response.body if response else error.response_body if error else None
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
        response_body=masked(response_body, mask, hidden),
        response=response_body,
    )
