"""The delivery log, with filters, and the page of one delivery."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from hub.app.lifecycle import Hub
from hub.errors import NotFoundError
from hub.operations.raw_message import hex_preview, raw_message
from hub.web.authorization import Access, needs
from hub.web.console.curl import as_curl
from hub.web.console.filters import beginning, digits, moment
from hub.web.console.links import link
from hub.web.console.pages import Pages

_PAGE = 50


def make_deliveries(pages: Pages) -> APIRouter:
    """Return the routes of `/deliveries`."""
    router = pages.router()
    hub = pages.hub

    @router.get("/deliveries")
    @needs(Access.ROLE_VIEW)
    def list_(
        request: Request,
        service: str = "",
        direction: str = "",
        result: str = "",
        status: str = "",
        event: str = "",
        since: str = "",
        until: str = "",
        before: str = "",
    ) -> Response:
        filters = {
            "service": service,
            "direction": direction,
            "result": result,
            "status": status,
            "event": event,
            "since": since,
            "until": until,
        }
        rows = hub.views.deliveries.list(
            service=service or None,
            direction=direction if direction in ("inbound", "outbound") else None,
            failed={"failed": True, "ok": False}.get(result),
            status=digits(status),
            event=beginning(event),
            since=moment(since),
            until=moment(until),
            before=digits(before),
            limit=_PAGE + 1,
        )
        more = link("/deliveries", **filters, before=rows[_PAGE - 1]["id"]) if len(rows) > _PAGE else ""
        services = [s.name for s in hub.configuration.services()]
        return pages.render(
            request,
            "deliveries.html",
            rows=rows[:_PAGE],
            more=more,
            filters=filters,
            services=services,
            names=hub.views.events.names(limit=200),
        )

    @router.get("/deliveries/{id_}")
    @needs(Access.ROLE_VIEW)
    def show(request: Request, id_: int) -> Response:
        row = hub.views.deliveries.get(id_)
        attempts = hub.views.deliveries.list(task=row["task_id"], limit=200)[::-1] if row["task_id"] else []
        hexed = hex_preview(hub, id_)
        return pages.render(
            request,
            "delivery.html",
            row=row,
            attempts=attempts,
            hexed=hexed,
            curl=_curl(hub, row),
            rule_exists=any(rule.name == row["rule"] for rule in hub.configuration.rules()),
            origin=hub.views.origins.get(row["task_id"]),
        )

    @router.get("/deliveries/{id_}/raw")
    @needs(Access.ROLE_MANAGE)
    def download(request: Request, id_: int) -> Response:
        headers = {"Content-Disposition": f'attachment; filename="delivery-{id_}.bin"'}
        return Response(raw_message(hub, id_), media_type="application/octet-stream", headers=headers)

    return router


def _curl(hub: Hub, row: dict[str, Any]) -> str | None:
    """The delivery as a cURL command; None if there is none, or the service was deleted."""
    try:
        return as_curl(hub.configuration.service(row["service"]), row)
    except NotFoundError:
        return None
