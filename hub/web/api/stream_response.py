"""The response to a stream of events: what became of each while that is short, else counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import Response
from fastapi.responses import JSONResponse

from hub.codec import dumps
from hub.models import Accepted

LONGEST = 1024 * 1024
"""Most bytes of a list; a longer one is not kept, neither in memory nor in a file."""


class StreamResponse:
    """Collects what became of the lines of a stream."""

    def __init__(self) -> None:
        self.lines = 0
        self._duplicates = 0
        self._tasks = 0
        self._size = 0
        self._listed: list[str] | None = []

    def add(self, accepted: Sequence[Accepted]) -> None:
        """Add the results of one batch."""
        self.lines += len(accepted)
        self._duplicates += sum(a.duplicate for a in accepted)
        self._tasks += sum(len(a.tasks) for a in accepted)
        if self._listed is None:
            return
        texts = [dumps(shown(a)) for a in accepted]
        self._size += sum(map(len, texts))
        self._listed = self._listed + texts if self._size <= LONGEST else None

    def response(self) -> Response:
        """202 with an array of `{id, duplicate, tasks}`; in place of a long one `{accepted, duplicates, tasks}`."""
        if self._listed is not None:
            return Response(f"[{','.join(self._listed)}]", 202, media_type="application/json")
        return JSONResponse({"accepted": self.lines, "duplicates": self._duplicates, "tasks": self._tasks}, 202)


def shown(accepted: Accepted) -> dict[str, Any]:
    """What became of one event, as the API says it."""
    return {"id": accepted.id, "duplicate": accepted.duplicate, "tasks": list(accepted.tasks)}
