"""Retry, cancel and purge tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hub.app.lifecycle import Hub
from hub.errors import ConflictError
from hub.store import audit

BATCH = 500  # tasks per transaction
_WHO = {"user": "console:", "token": "token ", "cli": "cli:"}


def who() -> str:
    """The current actor, as in the table `cancellations`: `cli:ann`, `console:ann`, `token NAME`."""
    actor = audit.actor()
    return _WHO.get(actor.kind, f"{actor.kind}:") + actor.name


def retry(hub: Hub, ids: Sequence[int], *, restart: bool = False) -> tuple[list[int], list[int]]:
    """Make tasks due now.

    Args:
        restart: reset the count of attempts to 0.

    Returns:
        Ids that are due now, and ids that were skipped: the task is running, has ended, or cannot run. Both in
        ascending order.

    Raises:
        ConflictError: none of the tasks can run; the text says why, such as `rule X disabled`.
    """
    cannot = blocked(hub, ids)
    if cannot and set(cannot) >= set(ids):
        task_id, why = next(iter(cannot.items()))
        raise ConflictError(f"task {task_id} cannot run now: {why}")
    due = hub.admin.retry([task_id for task_id in ids if task_id not in cannot], restart=restart)
    return sorted(due), sorted(set(ids) - set(due))


def blocked(hub: Hub, ids: Sequence[int]) -> dict[int, str]:
    """Those tasks that cannot run now, and what they wait for."""
    return {row["id"]: row["waits_for"] for row in hub.views.tasks.of_ids(ids) if row["blocked"]}


def retry_failed(hub: Hub, *, service: str | None = None, restart: bool = False, most: int | None = None) -> list[int]:
    """Make all tasks due now that failed at least once; returns their ids.

    Args:
        most: stop after about that many; the last batch is complete.
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
    """Delete tasks that are not running; returns their ids. The table `cancellations` records who did it and why."""
    cancelled = hub.admin.cancel(ids, who=who(), reason=reason)
    for _, service in cancelled:
        hub.hooks.task_finished(service, "cancelled")
    return [task_id for task_id, _ in cancelled]


def purge_orphans(hub: Hub, *, most: int | None = None, progress: Callable[[int], None] = lambda count: None) -> int:
    """Delete tasks whose rule or service was deleted; returns how many.

    Args:
        most: stop after that many.
        progress: called after each batch with the number deleted so far.
    """
    deleted = 0
    while most is None or deleted < most:
        ids = hub.admin.orphans(BATCH if most is None else min(BATCH, most - deleted))
        cancelled = cancel(hub, ids, reason="orphan purged") if ids else []
        if not cancelled:
            break
        deleted += len(cancelled)
        progress(deleted)
    return deleted
