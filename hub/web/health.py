"""Health endpoints: `/healthz` (process), `/readyz` (database and broker), `/metrics` (Prometheus)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import structlog
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from hub.app.lifecycle import Hub
from hub.errors import UnavailableError
from hub.monitoring.access import may_scrape
from hub.monitoring.exposition import Scraper, make_scraper
from hub.tasks.broker import DISPATCH
from hub.web.authorization import Access, needs

log = structlog.get_logger("hub.web.health")
_METRICS: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            "text/plain": {"schema": {"type": "string"}},
            "application/openmetrics-text": {"schema": {"type": "string"}},
        }
    },
    401: {
        "description": "`HUB_METRICS_TOKEN` is set and the request has no valid token.",
        "content": {"text/plain": {}},
    },
}
_TIMEOUT = 3.0  # seconds after which a probe counts as failed


def make_health(hub: Hub) -> APIRouter:
    """The endpoints that need no token."""
    router = APIRouter(tags=["health"])
    scraper = make_scraper(hub.settings, hub.db, hub.queues.values(), hub.broker.ready)
    hub.on_close(scraper.close)
    probes = [_Probe("database", hub.db.ping), _Probe("broker", lambda: _broker(hub))]
    for probe in probes:
        hub.on_close(probe.close)

    @router.head("/healthz", include_in_schema=False)
    @router.get("/healthz", summary="The process is alive")
    @needs(Access.PUBLIC)
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @router.head("/readyz", include_in_schema=False)
    @router.get(
        "/readyz", summary="The hub can accept events", responses={503: {"description": "The database is unavailable."}}
    )
    @needs(Access.PUBLIC)
    async def readyz() -> JSONResponse:
        database, broker = await asyncio.gather(*(probe.ask() for probe in probes))
        ready = database == "ok"
        body = {"ready": ready, "database": database, "broker": broker}
        return JSONResponse(body, 200 if ready else 503, headers={} if ready else {"Retry-After": "5"})

    scrape = _Scrape(scraper)
    hub.on_close(scrape.close)

    @router.get("/metrics", summary="Metrics for Prometheus", response_class=Response, responses=_METRICS)
    @needs(Access.PUBLIC)
    async def metrics(request: Request) -> Response:
        token = hub.settings.metrics_token
        if not may_scrape(request.headers.get("authorization", ""), token.get_secret_value() if token else None):
            return Response("a bearer token is required\n", 401, {"WWW-Authenticate": "Bearer"}, "text/plain")
        kind, text = await scrape(request.headers.get("accept", ""))
        return Response(text, media_type=kind)

    return router


class _Scrape:
    """Renders metrics in a thread of its own, since requests may occupy all threads of the server.

    Scrapes that arrive during a rendering share the next one, so that they cannot form a queue.
    """

    def __init__(self, scraper: Scraper) -> None:
        self._scraper = scraper
        self._thread = ThreadPoolExecutor(1, "hub-metrics")
        self._waiting: dict[bool, asyncio.Future[tuple[str, bytes]]] = {}

    async def __call__(self, accept: str) -> tuple[str, bytes]:
        """(content type, text) for an `Accept` header."""
        kind = "application/openmetrics-text" in accept
        if kind not in self._waiting:
            loop = asyncio.get_running_loop()
            self._waiting[kind] = loop.run_in_executor(self._thread, self._render, kind, loop)
        return await asyncio.shield(self._waiting[kind])

    def _render(self, kind: bool, loop: asyncio.AbstractEventLoop) -> tuple[str, bytes]:
        loop.call_soon_threadsafe(self._waiting.pop, kind)  # later scrapes get newer values
        return self._scraper.response("application/openmetrics-text" if kind else "")

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)


class _Probe:
    """One check in a thread of its own, so that it works while all other threads hang."""

    def __init__(self, name: str, check: Callable[[], object]) -> None:
        self._name = name
        self._check = check
        self._thread = ThreadPoolExecutor(1, f"hub-probe-{name}")

    async def ask(self) -> str:
        """`ok` or `away`. The reason is only logged: the endpoint is public."""
        try:
            await asyncio.wait_for(asyncio.get_running_loop().run_in_executor(self._thread, self._check), _TIMEOUT)
        except Exception as e:
            log.warning("not ready", what=self._name, error=str(e) or f"no response within {_TIMEOUT:g} s")
            return "away"
        return "ok"

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)


def _broker(hub: Hub) -> None:
    try:
        hub.broker.ready(hub.queues[DISPATCH])
    except UnavailableError:
        hub.broker.ready(hub.queues[DISPATCH])  # the first connection may have been closed while idle
