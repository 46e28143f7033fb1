"""HTTP clients with a time-out that suits a busy machine. They ignore proxy settings of the environment."""

from __future__ import annotations

from typing import Any

import httpx

from tests.support.waiting import PATIENCE


class Client(httpx.Client):  # noqa: TID251 - the one place that sets the time-out
    """An `httpx.Client` that waits `PATIENCE` seconds for a response."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**({"timeout": PATIENCE, "trust_env": False} | options))


def get(url: str, **options: Any) -> httpx.Response:
    """GET with a connection of its own."""
    with Client() as client:
        return client.get(url, **options)


def post(url: str, **options: Any) -> httpx.Response:
    """POST with a connection of its own."""
    with Client() as client:
        return client.post(url, **options)
