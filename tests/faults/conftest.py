"""What tests of whole processes share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.http_target import HttpTarget


@pytest.fixture
def target() -> Iterator[HttpTarget]:
    with HttpTarget() as target:
        yield target
