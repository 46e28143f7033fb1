"""Retry, cancel and purge tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hub.app.lifecycle import Hub
from hub.store import audit

BATCH = 500  # tasks of one transaction
_WHO = {"user": "console:", "token": "token ", "cli": "cli:"}


def who() -> str:
    """The actor of this context, as the table `cancellations` has it: `cli:ann`, `console:ann`, `token NAME`."""
    actor = audit.actor()
    return _WHO.get(actor.kind, f"{actor.kind}:") + actor.name


def retry(hub: Hub, ids: Sequence[int], *, restart: bool = False) -> tuple[list[int], list[int]]:
    """Make tasks due now.

    Args:
        restart: count attempts from 0 again.

    Returns:
        Ids that are due now, and ids that were skipped: the task is running, or has ended. Both in ascending order.
    """
    due = hub.admin.retry(ids, restart=restart)
    return sorted(due), sorted(set(ids) - set(due))


def retry_failed(hub: Hub, *, service: str | None = None, restart: bool = False, most: int | None = None) -> list[int]:
    """Make all tasks due now that failed at least once; returns their ids.

    Args:
        most: stop after about that many; the last batch is not cut.
    """
    due: list[int] = []
    before: int | None = None
    while (most is None or len(due) < most) and (
        rows := hub.views.tasks.list(service=service, failed=True, before=before, limit=BATCH)
    ):
        before = rows[-1]["id"]
        due += hub.admin.retry([row["id"] for row in rows], restart=restart)
    return due


def cancel(hub: Hub, ids: Sequence[int], *, reason: str = "deleted") -> list[int]:
    """Delete tasks; returns the ids of those deleted. Running tasks stay.

    A row in `cancellations` says who did it and why.
    """
    cancelled = hub.admin.cancel(ids, who=who(), reason=reason)
    for _, service in cancelled:
        hub.hooks.task_finished(service, "cancelled")
    return [task_id for task_id, _ in cancelled]


def purge_orphans(hub: Hub, *, most: int | None = None, told: Callable[[int], None] = lambda count: None) -> int:
    """Delete tasks whose rule or service was deleted; returns how many.

    Args:
        most: stop after that many.
        told: called after each batch with the number deleted so far.
    """
    gone = 0
    while most is None or gone < most:
        ids = hub.admin.orphans(BATCH if most is None else min(BATCH, most - gone))
        cancelled = cancel(hub, ids, reason="orphan purged") if ids else []
        if not cancelled:
            break
        gone += len(cancelled)
        told(gone)
    return gone
