"""The short form of the history checker: fixed seeds, every kind of fault once. `make soak` is the long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.run import run

pytestmark = pytest.mark.fault


@pytest.mark.parametrize("seed", [20261122])
def test_every_promise_is_kept_under_faults(seed: int, tmp_path: Path) -> None:
    history = run(tmp_path, seed, rate=30, gentle=None, harsh=None, say=print)
    assert history.events and history.faults
