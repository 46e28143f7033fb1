"""The web server: one FastAPI application, on uvicorn in a thread of the hub's process."""

from __future__ import annotations

import hmac
import socket
import threading
from importlib.util import find_spec

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from hub import __version__
from hub.app import Hub
from hub.errors import ConfigError, HubError, UnavailableError
from hub.scrape import CONTENT_TYPE_LATEST, make_scraper

_STOP_SECONDS = 10


def make_app(hub: Hub) -> FastAPI:
    """The application: health and metrics here, API, webhooks and console from their own modules."""
    app = FastAPI(title="Integration Hub", version=__version__, docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/healthz", include_in_schema=False)
    async def healthz() -> PlainTextResponse:
        """The process answers."""
        return PlainTextResponse("ok\n")

    @app.get("/readyz", include_in_schema=False)
    def readyz() -> JSONResponse:
        """The database answers: events can be accepted. A broker that is away delays them, and refuses none."""
        try:
            hub.db.one("SELECT 1 AS x")
            database = "ok"
        except HubError as e:
            database = str(e)
        ready = database == "ok"
        return JSONResponse(
            {"ready": ready, "database": database, "broker": _broker(hub)}, status_code=200 if ready else 503
        )

    scraper = make_scraper(hub.settings, hub.db, hub.queues.values(), getattr(hub.broker, "ready", None))
    hub.on_close(scraper.close)

    @app.get("/metrics", include_in_schema=False)
    def metrics(request: Request) -> Response:
        """Counters of this machine's processes, state of the ledger and the queues."""
        token = hub.settings.metrics_token
        given = request.headers.get("authorization", "")
        if token and not hmac.compare_digest(given.encode(), f"Bearer {token.get_secret_value()}".encode()):
            return PlainTextResponse("a bearer token is needed\n", 401, headers={"WWW-Authenticate": "Bearer"})
        return Response(scraper.render(), media_type=CONTENT_TYPE_LATEST)

    return app


def _broker(hub: Hub) -> str:
    try:
        hub.broker.ready(next(iter(hub.queues.values())))
    except UnavailableError as e:
        return str(e)
    return "ok"


class WebServer:
    """Serves `make_app(hub)` on `HUB_LISTEN` until stopped.

    Raises:
        ConfigError: the address is wrong or taken.
    """

    def __init__(self, hub: Hub) -> None:
        listen = hub.settings.listen
        host, _, port = listen.rpartition(":")
        host = host.strip("[]") or "127.0.0.1"
        if not port.isdigit() or int(port) > 65535:
            raise ConfigError(f"{listen!r} is not host:port", field="HUB_LISTEN")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((host, int(port)))
            self._socket.listen(512)
        except OSError as e:
            self._socket.close()
            raise ConfigError(f"cannot listen on {listen}: {e.strerror}", field="HUB_LISTEN") from None
        bound = self._socket.getsockname()
        shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
        self.url = f"http://{shown}:{bound[1]}"
        self._server = uvicorn.Server(
            uvicorn.Config(
                make_app(hub),
                log_config=None,
                access_log=False,
                server_header=False,
                lifespan="off",
                http="httptools" if find_spec("httptools") else "h11",
                timeout_graceful_shutdown=_STOP_SECONDS,
                h11_max_incomplete_event_size=65536,
            )
        )
        self._thread = threading.Thread(target=self._run, name="hub-web", daemon=True)

    def _run(self) -> None:
        self._server.run(sockets=[self._socket])

    def start(self) -> None:
        """Answer in a thread; signals stay with the caller."""
        self._thread.start()

    def stop(self) -> None:
        """Finish the requests under way (bounded), then close."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(timeout=_STOP_SECONDS + 5)
        self._socket.close()
