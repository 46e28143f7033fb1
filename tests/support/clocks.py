"""A wall clock per process that a test may move while the process runs: as an NTP step, or a resumed machine, does.

Only what reads the wall clock is deceived (libfaketime, preloaded); the monotonic clocks stay honest, as they do there.
"""

from __future__ import annotations

import glob
import os
from pathlib import Path

import pytest

MISSING = (
    "libfaketime is not installed, so nobody moved a clock. Run `make test` as root, or "
    "apt-get install --no-install-recommends libfaketime"
)
_PLACES = ("/usr/lib/*/faketime", "/usr/lib*/faketime", "/usr/local/lib/faketime")
_SITE = Path(__file__).with_name("faked")


def library() -> str | None:
    """The library to preload, if it is there."""
    found = (path for place in _PLACES for path in sorted(glob.glob(f"{place}/libfaketimeMT.so.1")))
    return next(found, None)


def needed() -> None:
    """Skip the test, loudly, when no clock can be moved."""
    if library() is None:
        pytest.skip(MISSING)


class WallClock:
    """The wall clock of the processes that are started with `environment`.

    Args:
        file: where the offset stands; it must stay.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self.offset = 0.0
        self.move(0.0)

    @property
    def environment(self) -> dict[str, str]:
        """What to add to a process's environment."""
        found = library()
        assert found is not None, MISSING
        return {
            "LD_PRELOAD": found,
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DISABLE_SHM": "1",
            "NO_FAKE_STAT": "1",
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",  # else every wait of a thread polls, a hundred times as slow
            "PYTHONPATH": os.pathsep.join(filter(None, [str(_SITE), os.environ.get("PYTHONPATH")])),
        }

    def move(self, seconds: float) -> None:
        """Set it so many seconds off the true time, from now on."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{seconds:+.3f}\n")
        fresh.replace(self._file)
        self.offset = seconds
