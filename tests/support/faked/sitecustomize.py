"""Read by Python at its start in a process whose clock is faked.

libfaketime 0.9.10, which Debian and Ubuntu have, takes the absolute monotonic time up to which `time.sleep` waits for
wall-clock time, and every sleep fails. Nothing else that Python waits with is touched by it.
"""

import select
import time


def _sleep(seconds: float) -> None:
    select.select([], [], [], seconds)


time.sleep = _sleep  # type: ignore[assignment]
