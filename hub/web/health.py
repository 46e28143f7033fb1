"""Health endpoints: `/healthz` (process), `/readyz` (all checks), `/metrics` (Prometheus)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Generic, TypeVar

import structlog
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from hub.app.lifecycle import Hub
from hub.monitoring.access import may_scrape
from hub.monitoring.exposition import Scraper, make_scraper
from hub.operations.health import Check, check_broker, check_database, check_processes
from hub.store.database import Row
from hub.tasks.broker import DISPATCH, InProcessBroker
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
_FRESH = 1.0  # seconds
# What `/readyz` says of a failed check. The reason is only logged: the endpoint is public.
_FAILED = {
    "database": "away",
    "broker": "away",
    "worker": "none",
    "scheduler": "none",
    "relay": "none",
    "clock": "off",
}
T = TypeVar("T")


def make_health(hub: Hub) -> APIRouter:
    """The endpoints that need no token."""
    router = APIRouter(tags=["health"])
    scraper = make_scraper(hub.settings, hub.db, hub.queues.values(), hub.broker.ready)
    hub.on_close(scraper.close)
    database = _Probe("database", lambda: check_database(hub.heartbeats), Check("database", False))
    broker: _Probe[tuple[Check, int | None]] = _Probe(
        "broker", partial(_check_broker, hub), (Check("broker", False), None)
    )
    heartbeats: _Probe[list[Row] | None] = _Probe("heartbeats", hub.views.overview.heartbeats, None)
    for close in (database.close, broker.close, heartbeats.close):
        hub.on_close(close)

    @router.head("/healthz", include_in_schema=False)
    @router.get("/healthz", summary="The process is alive")
    @needs(Access.PUBLIC)
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @router.head("/readyz", include_in_schema=False)
    @router.get(
        "/readyz",
        summary="The hub can accept events",
        description="`ready` says whether events are accepted. The other members are `ok`, `away`, `none` (no worker,"
        " no tick, no leading relay), `off` (a clock by more than 30 s), or `unknown`.",
        responses={503: {"description": "The database is unavailable or accepts no writes."}},
    )
    @needs(Access.PUBLIC)
    async def readyz() -> JSONResponse:
        of_database, (of_broker, consumers), rows = await asyncio.gather(database.ask(), broker.ask(), heartbeats.ask())
        checks = [of_database, of_broker, *([] if rows is None else check_processes(rows, hub.clock, consumers))]
        words = dict.fromkeys(_FAILED, "unknown") | {c.name: "ok" if c.ok else _FAILED[c.name] for c in checks}
        return JSONResponse(
            {"ready": of_database.ok, **words},
            200 if of_database.ok else 503,
            headers={} if of_database.ok else {"Retry-After": "5"},
        )

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


class _Probe(Generic[T]):
    """One check in a thread of its own, so that it works while all other threads hang.

    A result is used for a second, so that a client without a token cannot cause a query with each request.
    """

    def __init__(self, name: str, check: Callable[[], T], failed: T) -> None:
        self._name = name
        self._check = check
        self._failed = failed
        self._thread = ThreadPoolExecutor(1, f"hub-probe-{name}")
        self._known: tuple[float, T] | None = None

    async def ask(self) -> T:
        """Return the result, or `failed` when the check raises or takes too long."""
        if self._known is not None and time.monotonic() - self._known[0] < _FRESH:
            return self._known[1]
        try:
            result = await asyncio.wait_for(
                asyncio.get_running_loop().run_in_executor(self._thread, self._check), _TIMEOUT
            )
        except Exception as e:
            log.warning("not ready", what=self._name, error=str(e) or f"no response within {_TIMEOUT:g} s")
            result = self._failed
        self._known = time.monotonic(), result
        return result

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)


def _check_broker(hub: Hub) -> tuple[Check, int | None]:
    if isinstance(hub.broker, InProcessBroker):
        return Check("broker"), None
    return check_broker(partial(hub.broker.consumers, hub.queues[DISPATCH]))
