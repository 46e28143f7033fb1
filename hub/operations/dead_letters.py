"""Delete and export dead letters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from hub.app.lifecycle import Hub
from hub.codec import readable
from hub.errors import NotFoundError
from hub.operations.tasks import who

BATCH = 500  # dead letters of one transaction, and of one page of an export


@dataclass(frozen=True, slots=True)
class Filter:
    """Selects dead letters. None matches all.

    `event`: a name, or a prefix and `*`. `until` is exclusive.
    """

    service: str | None = None
    rule: str | None = None
    event: str | None = None
    reason: str | None = None
    since: datetime | None = None
    until: datetime | None = None


def delete(hub: Hub, ids: Sequence[int], *, missing_ok: bool = False) -> int:
    """Delete dead letters and return how many. The table `cancellations` records who did it.

    Args:
        missing_ok: ignore ids without a dead letter, instead of refusing all.

    Raises:
        NotFoundError: an id has no dead letter; nothing was deleted.
    """
    wanted = list(dict.fromkeys(ids))
    if not missing_ok and (missing := hub.views.dead_letters.missing(wanted)):
        raise NotFoundError(f"no dead letter {missing[0]}")
    return sum(
        hub.dead_letters.delete(wanted[start : start + BATCH], who=who()) for start in range(0, len(wanted), BATCH)
    )


def delete_matching(hub: Hub, chosen: Filter, *, progress: Callable[[int], None] = lambda count: None) -> int:
    """Delete the dead letters that match and exist now; returns how many.

    Args:
        progress: called after each batch with the number deleted so far.
    """
    deleted = 0
    for rows in _pages(hub, chosen):
        deleted += hub.dead_letters.delete([row["id"] for row in rows], who=who())
        progress(deleted)
    return deleted


def export(hub: Hub, chosen: Filter) -> Iterator[dict[str, Any]]:
    """Dead letters that match, newest first, with `event_data` (readable JSON) and `response_body`."""
    for rows in _pages(hub, chosen, full=True):
        for row in rows:
            yield row | {"event_data": readable(row["event_data"])}


def _pages(hub: Hub, chosen: Filter, *, full: bool = False) -> Iterator[list[dict[str, Any]]]:
    """Pages from the newest id downwards. Dead letters added meanwhile are left out."""
    before: int | None = None
    while rows := hub.views.dead_letters.list(**asdict(chosen), before=before, limit=BATCH, full=full):
        before = rows[-1]["id"]
        yield rows
