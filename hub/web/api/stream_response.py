"""The response to a stream of events: a list of results, or counts if the list would be too long."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import Response
from fastapi.responses import JSONResponse

from hub.codec import dumps
from hub.models import Accepted

LONGEST = 1024 * 1024
"""Bytes: limit of the list. A longer list is dropped."""


class StreamResponse:
    """Collects the results of the lines of a stream."""

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
        """202 with an array of `{id, duplicate, tasks}`, or with `{accepted, duplicates, tasks}` if it is too long."""
        if self._listed is not None:
            return Response(f"[{','.join(self._listed)}]", 202, media_type="application/json")
        return JSONResponse({"accepted": self.lines, "duplicates": self._duplicates, "tasks": self._tasks}, 202)


def shown(accepted: Accepted) -> dict[str, Any]:
    """The result of one event, as the API returns it."""
    return {"id": accepted.id, "duplicate": accepted.duplicate, "tasks": list(accepted.tasks)}
