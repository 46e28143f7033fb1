"""The overview page: health, failures, throughput, services, processes."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from hub.web.authorization import Access, needs
from hub.web.console import charts
from hub.web.console.pages import Pages


def make_overview(pages: Pages) -> APIRouter:
    """Return the route of `/`."""
    router = pages.router()
    hub = pages.hub

    @router.get("/")
    @needs(Access.ROLE_VIEW)
    def overview(request: Request) -> Response:
        stats = hub.views.overview.stats()
        minutes = hub.activity.minutes(60)
        lately = hub.activity.services(3600)
        circuits = {row["service"]: row for row in stats["breakers"]}
        services = [
            {
                "service": s,
                "circuit": circuits.get(s.name, {"state": "closed", "failures": 0, "retry_at": None}),
                "counts": stats["services"].get(s.name, {}),
                "lately": lately.get(s.name, {"ok": 0, "failed": 0, "p50": None, "p95": None}),
            }
            for s in hub.configuration.services()
        ]
        services.sort(
            key=lambda row: (row["circuit"]["state"] == "closed", not row["lately"]["failed"], row["service"].name)
        )
        ok, failed = sum(m["ok"] for m in minutes), sum(m["failed"] for m in minutes)
        return pages.render(
            request,
            "overview.html",
            stats=stats,
            services=services,
            failing=hub.activity.failing(900),
            outcomes=charts.outcomes(minutes),
            latency=charts.latency(minutes),
            share=charts.share,
            ok=ok,
            failed=failed,
            runs=hub.views.runs.scheduled(limit=6),
            open_circuits=[row for row in stats["breakers"] if row["state"] != "closed"],
            alive={row["component"]: row for row in stats["heartbeats"]},
            rules=len(hub.configuration.rules()),
            begun=bool(hub.views.deliveries.list(limit=1)),
        )

    return router
