"""Lazy module attribute `broker` of `hub.worker` and `hub.scheduler`: made at first access, not at import."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import structlog

from hub.errors import HubError


def broker_of(module: str, make: Callable[[], Any]) -> Callable[[str], Any]:
    """Make the `__getattr__` of a module whose `broker` Dramatiq or periodiq imports.

    Args:
        module: name of the module.
        make: makes the broker. A `HubError` ends the process with a log line instead of a traceback.
    """

    def get(name: str) -> Any:
        if name != "broker":
            raise AttributeError(name)
        try:
            made = make()
        except HubError as e:
            structlog.get_logger(module).error("not started", error=str(e))
            raise SystemExit(1) from None
        vars(sys.modules[module])["broker"] = made  # later accesses find it directly
        return made

    return get
