"""A REST transport and a server for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hub.settings import Settings
from hub.transports.rest import RestTransport


@pytest.fixture
def transport() -> Iterator[RestTransport]:
    transport = RestTransport(Settings())
    yield transport
    transport.close()
