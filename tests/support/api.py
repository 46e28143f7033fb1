"""A web server for tests: real uvicorn on a free port, with clients that carry tokens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from hub.app.lifecycle import Hub
from hub.store.tokens import Scope
from hub.web.server import WebServer
from tests.support import clients


class Api:
    """The server of a hub, and clients of it."""

    def __init__(self, hub: Hub, url: str) -> None:
        self.hub = hub
        self.url = url
        self._clients: list[clients.Client] = []
        self._count = 0

    def client(self, scope: Scope | None = "manage", **headers: str) -> clients.Client:
        """A client with a new token of that scope; None: without a token."""
        if scope is not None:
            self._count += 1
            headers["Authorization"] = f"Bearer {self.hub.accounts.tokens.add(f'{scope} {self._count}', scope)[1]}"
        client = clients.Client(base_url=self.url, headers=headers)
        self._clients.append(client)
        return client

    def close(self) -> None:
        for client in self._clients:
            client.close()


@contextmanager
def serving(hub: Hub) -> Iterator[Api]:
    """Serve a hub whose settings say port 0."""
    with WebServer(hub) as server:
        hub.registry.configuration.listen()  # as every web process does
        api = Api(hub, server.url)
        try:
            yield api
        finally:
            api.close()


def problem(response: httpx.Response, status: int, field: str | None = None) -> dict[str, Any]:
    """The problem details of a refusal; checks their form, and that the field is named."""
    assert response.status_code == status, (response.status_code, response.text)
    assert response.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = response.json()
    assert found["status"] == status and found["title"] and found["detail"]
    if field is not None:
        assert any(error["field"] == field for error in found["errors"]), found
    return found
