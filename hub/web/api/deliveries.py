"""`/api/v1/deliveries`: the log of attempts and of inbound messages."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from starlette.responses import Response

from hub.app.lifecycle import Hub
from hub.operations.raw_message import hex_dump, raw_message
from hub.web.api import parameters, shapes
from hub.web.api.routers import routers
from hub.web.authentication import Authenticator


def make_deliveries(hub: Hub, authenticator: Authenticator) -> APIRouter:
    """The endpoints of the delivery log."""
    r = routers(hub, authenticator, "/deliveries", "deliveries")

    @r.view.get("", summary="List deliveries", response_model=shapes.Page[shapes.Delivery])
    def list_deliveries(
        service: parameters.OfService = None,
        direction: Literal["inbound", "outbound"] | None = None,
        failed: Annotated[bool | None, Query(description="true: only failures, false: only successes.")] = None,
        task: Annotated[int | None, Query(ge=1, le=2**63 - 1, description="All attempts of one task.")] = None,
        event: parameters.OfEvent = None,
        status: Annotated[int | None, Query(ge=100, le=999, description="HTTP status.")] = None,
        since: parameters.Since = None,
        until: parameters.Since = None,
        before: parameters.Before = None,
        after: Annotated[
            int | None,
            Query(ge=0, le=2**63 - 1, description="To follow the log: items after this id, oldest first."),
        ] = None,
        limit: parameters.Limit = 50,
    ) -> dict[str, Any]:
        """Newest first. To follow the log, give `after`; `next` is then the `after` of the next request."""
        rows = hub.views.deliveries.list(
            service=service,
            direction=direction,
            failed=failed,
            task=task,
            event=event,
            status=status,
            since=since,
            until=until,
            before=before,
            after=after,
            limit=limit,
        )
        if after is not None:
            return {"items": rows, "next": rows[-1]["id"] if rows else after}
        return shapes.page(rows, limit)

    @r.view.get("/{delivery_id:id}", summary="Show a delivery", response_model=shapes.DeliveryDetail)
    def show_delivery(delivery_id: parameters.Id) -> dict[str, Any]:
        row = hub.views.deliveries.get(delivery_id)
        return row | {"origin": hub.views.origins.get(row["task_id"])}

    @r.manage.get(
        "/{delivery_id:id}/raw",
        summary="Download a message's bytes",
        response_class=Response,
        responses={200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}},
    )
    def download_message(
        delivery_id: parameters.Id,
        form: Annotated[Literal["bytes", "hex"], Query(alias="format", description="`hex`: a hex dump.")] = "bytes",
    ) -> Response:
        """The raw bytes of an inbound message that is not JSON, up to the limit. They are not masked."""
        if form == "hex":
            return Response(hex_dump(raw_message(hub, delivery_id)), media_type="text/plain; charset=utf-8")
        name = f'attachment; filename="delivery-{delivery_id}.bin"'
        return Response(
            raw_message(hub, delivery_id),
            media_type="application/octet-stream",
            headers={"Content-Disposition": name, "X-Content-Type-Options": "nosniff"},
        )

    return r.joined()
