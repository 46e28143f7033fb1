"""The web server: `make_app(hub)` combines API, webhooks, console and `/metrics`; `WebServer` serves it."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import re
import socket
import threading
from functools import partial
from typing import cast

import structlog
import uvicorn
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.types import ASGIApp

from hub import __version__
from hub.app.lifecycle import Hub
from hub.errors import ConfigError, UnavailableError
from hub.settings import Settings
from hub.web import problems
from hub.web.addresses import Networks
from hub.web.api import make_api
from hub.web.authentication import Authenticator
from hub.web.authorization import check_declared
from hub.web.connection_limits import Limits, most_connections
from hub.web.connections import Connection
from hub.web.console.router import make_console
from hub.web.docs import make_docs
from hub.web.fast_accept import FastAccept
from hub.web.health import make_health
from hub.web.middleware import OuterMiddleware
from hub.web.uploads import Uploads
from hub.web.webhooks import make_webhooks

log = structlog.get_logger("hub.web.server")
_START_SECONDS = 30.0
_DRAIN_SECONDS = 10  # for running requests, at a stop
_BACKLOG = 1024
_ACCEPTED_AT_ONCE = 32  # connections; a burst must not use up the file descriptors before the limits apply
_KEEP_ALIVE = 5  # seconds that a connection stays open after a response
_STALL = 30.0  # seconds within which a client must read some of a response
_BODY_MEMORY = 64 * 1024 * 1024  # bytes of request bodies in memory, of all requests together
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - shown to people, not bound


def make_authenticator(hub: Hub) -> Authenticator:
    """What checks the API tokens of one web server."""
    return Authenticator(hub.accounts, hub.settings, hub.registry.configuration.generation)


def make_server_app(hub: Hub) -> ASGIApp:
    """`make_app` behind the fast path for single events: what a web server serves."""
    authenticator = make_authenticator(hub)
    app = make_app(hub, authenticator)
    return FastAccept(app, intake=hub.intake, authenticator=authenticator, limit=hub.settings.event_limit)


def make_app(hub: Hub, authenticator: Authenticator | None = None) -> FastAPI:
    """The ASGI application: everything that the hub serves over HTTP.

    Raises:
        RuntimeError: a route does not declare what its caller needs.
    """
    app = FastAPI(
        title="Integration Hub",
        version=__version__,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=_operation_id,
        redirect_slashes=False,  # a redirect would repeat a Host header that the caller chose
    )
    authenticator = authenticator or make_authenticator(hub)
    problems.install(app)
    app.add_middleware(OuterMiddleware, uploads=_uploads(hub.settings))
    app.include_router(make_health(hub))
    app.include_router(make_webhooks(hub))
    app.include_router(make_api(hub, authenticator))
    app.include_router(make_docs(hub, authenticator, app))
    app.include_router(make_console(hub))
    check_declared(app.routes)
    return app


def _operation_id(route: APIRoute) -> str:
    return re.sub(r"\W", "_", f"{route.tags[0]}_{route.name}" if route.tags else route.name)


def _limits(settings: Settings) -> Limits:
    most = most_connections(settings.connections)
    return Limits(
        most,
        min(settings.connections_per_address, most),
        settings.trusted_proxies,
        idle=settings.header_timeout,
        stall=_STALL,
    )


def _uploads(settings: Settings) -> Uploads:
    most = max(4, most_connections(settings.connections) // 4)
    return Uploads(
        most=most,
        per_client=most // 2,
        memory=max(_BODY_MEMORY, 8 * settings.event_limit),
        grace=settings.body_timeout,
        rate=settings.body_rate,
        trusted=Networks(settings.trusted_proxies),
    )


class _Server(uvicorn.Server):
    """uvicorn with an event that is set once it is ready."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.settled = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listening in sockets or []:
            listening.listen(_BACKLOG)  # asyncio uses one number for the queue and for accepts at once
        self.settled.set()


class WebServer:
    """Serves a hub's application in a thread.

    Raises:
        ConfigError: `HUB_LISTEN` is no address, or the address is taken.
    """

    def __init__(self, hub: Hub) -> None:
        self._socket = _bind(hub.settings.listen)
        self._server = _Server(
            uvicorn.Config(
                make_server_app(hub),
                log_config=None,
                access_log=False,
                lifespan="off",
                server_header=False,
                http=cast("type[asyncio.Protocol]", partial(Connection, _limits(hub.settings))),
                backlog=_ACCEPTED_AT_ONCE,
                timeout_keep_alive=_KEEP_ALIVE,
                forwarded_allow_ips=list(hub.settings.trusted_proxies),
                ws="none",
                timeout_graceful_shutdown=_DRAIN_SECONDS,
            )
        )
        self._thread = threading.Thread(target=self._run, name="hub-web", daemon=True)

    @property
    def url(self) -> str:
        """The address to use, as `http://host:port`."""
        host, port = self._socket.getsockname()[:2]
        host = _EVERYWHERE.get(host, host)
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def start(self) -> None:
        """Serve in a thread; returns once requests are accepted."""
        self._thread.start()
        if not self._server.settled.wait(_START_SECONDS) or not self._server.started:
            raise UnavailableError("the web server did not start; see the log")
        log.info("web server listens", at=self.url)

    def stop(self) -> None:
        """Accept no more requests and wait at most 10 s for the running ones."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(_DRAIN_SECONDS + 5)
        self._socket.close()

    def _run(self) -> None:
        try:
            self._server.run(sockets=[self._socket])
        finally:
            self._server.settled.set()

    def __enter__(self) -> WebServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _bind(listen: str) -> socket.socket:
    host, _, port = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"expected host:port, not {listen!r}", field="HUB_LISTEN")
    try:
        ipv6 = ":" in host and ipaddress.ip_address(host).version == 6
        listening = socket.create_server(
            (host or "127.0.0.1", int(port)), family=socket.AF_INET6 if ipv6 else socket.AF_INET, backlog=_BACKLOG
        )
        # asyncio sets it only on sockets that name their protocol. Without it a response may wait for an
        # acknowledgement that the client delays by 40 ms. Connections inherit the option.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except (OSError, ValueError) as e:
        why = os.strerror(e.errno) if isinstance(e, OSError) and e.errno and e.errno > 0 else str(e)
        raise ConfigError(
            f"cannot listen on {listen}: {why}; is the port in use, or the address not of this machine?",
            field="HUB_LISTEN",
        ) from None
