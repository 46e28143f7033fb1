"""Waiting for a condition."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
PATIENCE = 120.0  # seconds; far beyond any expected duration, so that a busy machine fails no test


def eventually(condition: Callable[[], T], what: str = "the condition") -> T:
    """Poll until `condition()` is true, and return its value. Fails the test after `PATIENCE` seconds."""
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not happen within {PATIENCE:.0f} s"
        time.sleep(0.02)
    return value
