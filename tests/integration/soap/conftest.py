"""A SOAP transport and a server for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hub.settings import Settings
from hub.transports.soap.transport import SoapTransport
from tests.support.soap_server import WebServer


@pytest.fixture
def server() -> Iterator[WebServer]:
    with WebServer() as made:
        yield made


@pytest.fixture
def transport() -> Iterator[SoapTransport]:
    made = SoapTransport(Settings())
    yield made
    made.close()
