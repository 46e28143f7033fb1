"""Ten tasks of one rule."""

from __future__ import annotations

import pytest

from hub.app.lifecycle import Hub
from tests.support.hubs import add_rule, add_service, emit_many


@pytest.fixture
def tasks(hub: Hub) -> list[int]:
    """Ten tasks of one rule."""
    add_service(hub, "http://127.0.0.1:9", timeout=1)
    add_rule(hub)
    return emit_many(hub, 10)
