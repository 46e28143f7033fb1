"""What `hub.worker` and `hub.scheduler` have in common: a broker that is made when it is asked for, not at import."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import structlog

from hub.errors import HubError


def broker_of(module: str, make: Callable[[], Any]) -> Callable[[str], Any]:
    """The `__getattr__` of a module whose `broker` Dramatiq or periodiq imports.

    Args:
        module: its name.
        make: makes the broker; a `HubError` ends the process, in words instead of a traceback.
    """

    def get(name: str) -> Any:
        if name != "broker":
            raise AttributeError(name)
        try:
            made = make()
        except HubError as e:
            structlog.get_logger(module).error("not started", error=str(e))
            raise SystemExit(1) from None
        vars(sys.modules[module])["broker"] = made  # the next look finds it without asking
        return made

    return get
