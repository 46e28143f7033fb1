"""Submitted HTML forms: reading with limits, access to values."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qs

from fastapi import Request

from hub.web import bodies
from hub.web.problems import Problem

FORM_LIMIT = 2 * 1024 * 1024  # bytes
OPEN_FORM_LIMIT = 16 * 1024  # bytes; before sign-in


class Form:
    """Values of a submitted form."""

    def __init__(self, values: Mapping[str, list[str]]) -> None:
        self._values = values

    def get(self, name: str, default: str = "") -> str:
        """The last value of a name, stripped."""
        return self.raw(name, default).strip()

    def raw(self, name: str, default: str = "") -> str:
        """The last value of a name as typed, with line ends as `\\n`."""
        return self._values.get(name, [default])[-1].replace("\r\n", "\n")

    def all(self, name: str) -> list[str]:
        """All values of a name."""
        return list(self._values.get(name, []))

    def __contains__(self, name: str) -> bool:
        return name in self._values


async def read_form(request: Request, limit: int = FORM_LIMIT) -> Form:
    """Read the form of a request; raises `Problem` 413 or 415."""
    kind = bodies.media_type(request)
    if kind not in ("", "application/x-www-form-urlencoded"):
        raise Problem(415, "send the form as application/x-www-form-urlencoded")
    text = (await bodies.read(request, limit)).decode("utf-8", "replace")
    try:
        return Form(parse_qs(text, keep_blank_values=True, max_num_fields=20_000))
    except ValueError:
        raise Problem(413, "the form has too many fields") from None
