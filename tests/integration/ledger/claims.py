"""Claims of tasks and their outcomes."""

from __future__ import annotations

from hub.app.lifecycle import Hub
from hub.models import (
    Claim,
    Delivery,
    Direction,
)


def outcome(claim: Claim, error: str | None = None) -> Delivery:
    return Delivery(
        direction=Direction.OUTBOUND,
        service_id=claim.service_id,
        service="crm",
        success=error is None,
        task_id=claim.id,
        rule_id=claim.rule_id,
        event_id=claim.event_id,
        event=claim.event_name,
        attempt=claim.attempt,
        tries=1,
        error=error,
        outcome="http_5xx" if error else "success",
        request_body='{"n":1}',
        response_body="no" if error else None,
        status=500 if error else 204,
    )


def taken(hub: Hub, task_id: int) -> Claim:
    claim = hub.ledger.claim(task_id)
    assert claim is not None
    return claim
