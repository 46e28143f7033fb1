"""URLs of the console."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlencode

from fastapi import Request


def back(request: Request, default: str) -> str:
    """The `next` value of the form if it is a path of this site, else `default`."""
    given = request.state.form.get("next") if hasattr(request.state, "form") else ""
    return given if given.startswith("/") and not given.startswith(("//", "/\\")) else default


def link(path: str, /, **query: Any) -> str:
    """A URL with the query parameters that are set."""
    wanted = {name: value for name, value in query.items() if value not in (None, "", False)}
    return f"{quote(path)}?{urlencode(wanted)}" if wanted else quote(path)
