"""The web server: `make_app(hub)` puts API, webhooks, console and `/metrics` together, `WebServer` serves it."""

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

from hub import __version__
from hub.app.lifecycle import Hub
from hub.errors import ConfigError, UnavailableError
from hub.settings import Settings
from hub.web import problems
from hub.web.addresses import Networks
from hub.web.api import make_api
from hub.web.authentication import Authenticator
from hub.web.authorization import check_declared
from hub.web.connections import Connection, Limits, most_connections
from hub.web.console.router import make_console
from hub.web.docs import make_docs
from hub.web.health import make_health
from hub.web.middleware import OuterMiddleware
from hub.web.uploads import Uploads
from hub.web.webhooks import make_webhooks

log = structlog.get_logger("hub.web")
_START_SECONDS = 30.0
_DRAIN_SECONDS = 10  # how long requests under way may take to end
_BACKLOG = 1024
_ACCEPTED_AT_ONCE = 32  # connections; a burst must not take all file descriptors before the limits see it
_KEEP_ALIVE = 5  # seconds that a connection stays open after a response
_STALL = 30.0  # seconds in which a client has to read some of a response
_BODY_MEMORY = 64 * 1024 * 1024  # bytes of request bodies held at once, of all requests together
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what to tell people who ask for an address


def make_app(hub: Hub) -> FastAPI:
    """Everything the hub serves over HTTP, as one ASGI application.

    Raises:
        RuntimeError: a route does not declare who may use it.
    """
    app = FastAPI(
        title="Integration Hub",
        version=__version__,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=_operation_id,
        redirect_slashes=False,
    )  # a redirect would repeat the Host that the caller made up
    authenticator = Authenticator(hub.accounts, hub.settings)
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
    """uvicorn, which says when it is ready."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.settled = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listening in sockets or []:
            listening.listen(_BACKLOG)  # asyncio takes one number for the queue and for how many it accepts at once
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
                make_app(hub),
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
        """Where it listens, as `http://host:port`."""
        host, port = self._socket.getsockname()[:2]
        host = _EVERYWHERE.get(host, host)
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def start(self) -> None:
        """Answer, in a thread; returns when requests are taken."""
        self._thread.start()
        if not self._server.settled.wait(_START_SECONDS) or not self._server.started:
            raise UnavailableError("the web server did not start; the log says why")
        log.info("web server listens", at=self.url)

    def stop(self) -> None:
        """Take no more requests, let those under way end (at most 10 s), and return."""
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
        # asyncio does so only for sockets that name their protocol; without it every answer may wait for an
        # acknowledgement that the client delays by 40 ms. Connections inherit it.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except (OSError, ValueError) as e:
        why = os.strerror(e.errno) if isinstance(e, OSError) and e.errno and e.errno > 0 else str(e)
        raise ConfigError(
            f"cannot listen on {listen}: {why}; is another hub running, or is the address not of this machine?",
            field="HUB_LISTEN",
        ) from None
