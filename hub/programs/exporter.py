"""`hub exporter`: `/metrics` in a process of its own, available while web server and workers are down."""

from __future__ import annotations

import signal
import threading
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import structlog

from hub.embedded import PrivatePostgres
from hub.errors import ConfigError
from hub.monitoring.access import may_scrape
from hub.monitoring.exposition import Scraper, make_counter_scraper, make_scraper
from hub.settings import Settings
from hub.store.database import Database

log = structlog.get_logger("hub.programs.exporter")
_IDLE = 10.0  # seconds that a connection may be idle


class Exporter:
    """The HTTP server.

    Args:
        listen: `host:port`; port 0 chooses a free port.
        token: bearer token that `/metrics` requires; None requires none.
    """

    def __init__(self, scraper: Scraper, listen: str, token: str | None = None) -> None:
        host, _, port = listen.rpartition(":")
        if not port.isdigit():
            raise ConfigError("expected host:port", field="HUB_EXPORTER_LISTEN")

        class Handler(_Handler):
            pass

        Handler.scraper, Handler.token = scraper, token
        try:
            self._server = _Server((host.strip("[]") or "127.0.0.1", int(port)), Handler)
        except OSError as e:
            raise ConfigError(f"cannot listen on {listen}: {e.strerror}", field="HUB_EXPORTER_LISTEN") from e

    @property
    def address(self) -> str:
        """The address, as `host:port`."""
        host, port = self._server.server_address[:2]
        return f"{host!s}:{port}"

    def start(self) -> None:
        """Serve in a thread."""
        threading.Thread(target=self._server.serve_forever, name="hub-exporter", daemon=True).start()

    def stop(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("client disconnected")


class _Handler(BaseHTTPRequestHandler):
    scraper: Scraper
    token: str | None
    timeout = _IDLE
    server_version, sys_version = "hub-exporter", ""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/healthz":
            self._respond(200, "text/plain", b"ok\n")
        elif path != "/metrics":
            self._respond(404, "text/plain", b"try /metrics\n")
        elif not may_scrape(self.headers.get("Authorization", ""), self.token):
            self._respond(401, "text/plain", b"a bearer token is required\n")
        else:
            self._respond(200, *self.scraper.response(self.headers.get("Accept", "")))

    def do_HEAD(self) -> None:
        self.do_GET()

    def _respond(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if status == 401:
            self.send_header("WWW-Authenticate", "Bearer")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        log.debug("request", line=format % args)


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Works without database and broker.

    Raises:
        ConfigError: an address or URL is invalid.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with ExitStack() as stack:
        scraper = make_counter_scraper(settings) if settings.exporter_sources == "counters" else _all(settings, stack)
        stack.callback(scraper.close)
        token = settings.metrics_token
        exporter = Exporter(scraper, settings.exporter_listen, token.get_secret_value() if token else None)
        exporter.start()
        log.info("exporter listens", at=f"http://{exporter.address}/metrics")
        stop.wait()
        exporter.stop()


def _all(settings: Settings, stack: ExitStack) -> Scraper:
    """A scraper of all sources, which `stack` closes."""
    if settings.database_url is None:
        private = PrivatePostgres(settings.home)
        stack.callback(private.stop)
        url = private.start()
    else:
        url = settings.database_url.get_secret_value()
    db = Database(url, direct_url=settings.direct_url, size=2, timeout=3.0)
    stack.callback(db.close)
    db.open()
    queues = [f"{settings.queue_prefix}.{kind}" for kind in ("dispatch", "consume", "tick")]
    return make_scraper(settings, db, queues)
