"""The services of the demo: one small HTTP server with a path for each, which records its requests.

| Path | Response |
|---|---|
| `/directory/...` | 503 to the first four requests of an `Idempotency-Key`, then 200 |
| `/gradebook/...` | 422, once repaired 201 |
| `/analytics/...` | 500, once repaired 200; the first 200 is slow |
| anything else | 201 |

`python -m hub.demo.target [PORT]` runs it alone and prints its requests, for a first rule of your own.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

DIRECTORY_RESTARTS = 4  # requests that the directory refuses
PROBE_SECONDS = 0.6  # duration of the first successful response of analytics


@dataclass(frozen=True, slots=True)
class Received:
    """One request and its response; `begun` and `ended` are seconds of one clock."""

    method: str
    path: str
    key: str | None
    authorized: bool
    body: object
    status: int
    begun: float
    ended: float


class Target:
    """Listens on 127.0.0.1 until closed.

    Args:
        port: 0 chooses a free port.
        token: the token of services that need credentials.
        on_request: called for every request.
    """

    def __init__(self, *, port: int = 0, token: str = "", on_request: Callable[[Received], None] | None = None) -> None:
        self.received: list[Received] = []
        self._token = token
        self._on_request = on_request
        self._repaired: set[str] = set()
        self._seen: Counter[str | None] = Counter()
        self._lock = threading.Lock()

        class Handler(_Handler):
            target = self

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        serve = partial(self._server.serve_forever, 0.05)  # seconds between two checks whether to stop
        self._thread = threading.Thread(target=serve, name="hub-demo-target", daemon=True)
        self._thread.start()

    def repair(self, service: str) -> None:
        """Make `gradebook` or `analytics` work from now on."""
        with self._lock:
            self._repaired.add(service)

    def at(self, service: str, *, key: str | None = None) -> list[Received]:
        """Requests to one service, in order of arrival; with `key` only those of one task."""
        with self._lock:
            mine = [r for r in self.received if r.path.startswith(f"/{service}/") and key in (None, r.key)]
        return sorted(mine, key=lambda r: r.begun)

    def wait(self) -> None:
        """Serve until the process is interrupted."""
        self._thread.join()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def respond(self, method: str, path: str, headers: dict[str, str], raw: bytes) -> tuple[int, dict[str, object]]:
        """Record a request and choose its response."""
        begun = time.monotonic()
        key = headers.get("idempotency-key")
        service = path.split("/")[1]
        with self._lock:
            self._seen[key] += 1
            status, why = self._judge(service, key)
            first = status == 200 and not any(
                r.status == 200 for r in self.received if r.path.startswith(f"/{service}")
            )
        if service == "analytics" and first:
            time.sleep(PROBE_SECONDS)
        authorized = not self._token or self._token in (headers.get("authorization", "") + headers.get("x-api-key", ""))
        try:
            body: object = json.loads(raw) if raw else None
        except ValueError:
            body = raw.decode(errors="replace")
        seen = Received(method, path, key, authorized, body, status, begun, time.monotonic())
        with self._lock:
            self.received.append(seen)
        if self._on_request is not None:
            self._on_request(seen)
        return status, why

    def _judge(self, service: str, key: str | None) -> tuple[int, dict[str, object]]:
        if service == "directory":
            if self._seen[key] <= DIRECTORY_RESTARTS:
                return 503, {"error": "restarting"}
            return 200, {"ok": True}
        if service == "gradebook":
            if service not in self._repaired:
                return 422, {"error": "unknown quiz 31: the course was not synchronised yet"}
            return 201, {"ok": True}
        if service == "analytics":
            if service not in self._repaired:
                return 500, {"error": "out of disk space"}
            return 200, {"ok": True}
        return 201, {"ok": True}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    target: Target

    def _serve(self) -> None:
        length = self.headers.get("Content-Length", "0")
        raw = self.rfile.read(int(length) if length.isdigit() else 0)
        headers = {name.lower(): value for name, value in self.headers.items()}
        status, response = self.target.respond(self.command, self.path, headers, raw)
        body = json.dumps(response).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _serve  # noqa: N815 - the library's names

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: `on_request` shows requests."""


def _show(seen: Received) -> None:
    print(f"{seen.method} {seen.path} -> {seen.status}   Idempotency-Key: {seen.key}", flush=True)
    if seen.body is not None:
        print("    " + json.dumps(seen.body, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    alone = Target(port=int(sys.argv[1]) if len(sys.argv) > 1 else 9000, on_request=_show)
    print(f"a sample service listens on {alone.url}; Ctrl-C stops it", flush=True)
    try:
        alone.wait()
    except KeyboardInterrupt:
        alone.close()
