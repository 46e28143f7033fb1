"""`/api/v1/tasks`: tasks in progress: list, run, retry and delete them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from hub.app.lifecycle import Hub
from hub.codec import readable
from hub.errors import NotFoundError
from hub.operations import tasks as operation
from hub.web.api import parameters, shapes
from hub.web.api.routers import problems, routers
from hub.web.authentication import Authenticator
from hub.web.problems import Problem

_PURGE = 1000  # orphans deleted by one request
_MOST = 10_000  # tasks retried by one request


class Chosen(parameters.Given):
    """Which tasks to run."""

    ids: parameters.Ids | None = None
    failed: bool = Field(False, description="All tasks that failed at least once (at most 10,000 per request).")
    restart: bool = Field(False, description="Reset the count of attempts to 0.")


class Retry(parameters.Given):
    restart: bool = Field(False, description="Reset the count of attempts to 0.")


class Due(BaseModel):
    due: list[int] = Field(description="Tasks that are due now; workers claim them within a second.")
    skipped: list[int] = Field([], description="Tasks that are running or have ended.")


class Purge(parameters.Given):
    dry_run: bool = False


class Purged(BaseModel):
    purged: int
    dry_run: bool


class Cancelled(BaseModel):
    deleted: int


def make_tasks(hub: Hub, authenticator: Authenticator) -> APIRouter:
    """The endpoints of tasks."""
    r = routers(hub, authenticator, "/tasks", "tasks")

    @r.view.get("", summary="List tasks", response_model=shapes.Page[shapes.Task])
    def list_tasks(
        state: Literal["pending", "running", "delayed", "blocked", "held"] | None = None,
        service: parameters.OfService = None,
        rule: parameters.OfRule = None,
        event: parameters.OfEvent = None,
        failed: Annotated[bool, Query(description="Only tasks that failed at least once.")] = False,
        orphan: Annotated[bool, Query(description="Only tasks whose rule or service was deleted.")] = False,
        overdue: Annotated[bool, Query(description="Only tasks that are due for more than a minute.")] = False,
        before: parameters.Before = None,
        limit: parameters.Limit = 50,
    ) -> dict[str, Any]:
        rows = hub.views.tasks.list(
            state=state,
            service=service,
            rule=rule,
            event=event,
            failed=failed,
            orphan=orphan,
            overdue=overdue,
            before=before,
            limit=limit,
        )
        return shapes.page(rows, limit)

    @r.view.get("/fails", summary="List tasks that failed at least once", response_model=shapes.Page[shapes.Task])
    def list_fails(before: parameters.Before = None, limit: parameters.Limit = 50) -> dict[str, Any]:
        return shapes.page(hub.views.tasks.list(failed=True, before=before, limit=limit), limit)

    @r.manage.post("/run", status_code=202, summary="Make tasks due now", response_model=Due)
    def run_tasks(chosen: Chosen) -> dict[str, Any]:
        if chosen.ids is not None:
            return _retry(hub, chosen.ids, chosen.restart)
        if not chosen.failed:
            raise Problem(422, "give ids, or failed: true", field="ids")
        return {"due": operation.retry_failed(hub, restart=chosen.restart, most=_MOST), "skipped": []}

    @r.manage.post("/purge-orphans", summary="Delete tasks whose rule or service was deleted", response_model=Purged)
    def purge_orphans(purge: Purge) -> dict[str, Any]:
        """Deletes at most 1,000 tasks; a dry run counts those."""
        gone = len(hub.admin.orphans(_PURGE)) if purge.dry_run else operation.purge_orphans(hub, most=_PURGE)
        return {"purged": gone, "dry_run": purge.dry_run}

    @r.view.get("/{task_id:id}", summary="Show a task", response_model=shapes.TaskDetail)
    def show_task(task_id: parameters.Id) -> dict[str, Any]:
        try:
            row = hub.views.tasks.get(task_id)
        except NotFoundError:
            raise _gone(hub, task_id) from None
        return row | {"event_data": readable(row["event_data"]), "origin": hub.views.origins.get(task_id)}

    def again(task_id: int, restart: bool) -> dict[str, Any]:
        result = _retry(hub, [task_id], restart)
        if not result["due"]:
            if hub.admin.exists(task_id):
                raise Problem(409, f"task {task_id} is running; retry it after its attempt has ended")
            raise _gone(hub, task_id)
        return result

    @r.manage.post("/{task_id:id}/run", status_code=202, summary="Run a task now", response_model=Due)
    def run_task(task_id: parameters.Id) -> dict[str, Any]:
        """A worker claims it within a second. Its attempts stay counted."""
        return again(task_id, False)

    @r.manage.post("/{task_id:id}/retry", status_code=202, summary="Retry a task", response_model=Due)
    def retry_task(task_id: parameters.Id, retry: Retry | None = None) -> dict[str, Any]:
        return again(task_id, retry.restart if retry else False)

    @r.manage.delete("/{task_id:id}", summary="Delete a task", response_model=Cancelled, responses=problems(409))
    def delete_task(task_id: parameters.Id) -> dict[str, Any]:
        """The task is not delivered. The table `cancellations` and the audit trail record who deleted it."""
        if not operation.cancel(hub, [task_id]):
            if hub.admin.exists(task_id):
                raise Problem(409, f"task {task_id} is running; delete it after its attempt has ended")
            raise _gone(hub, task_id)
        return {"deleted": 1}

    return r.joined()


def _retry(hub: Hub, ids: list[int], restart: bool) -> dict[str, Any]:
    due, skipped = operation.retry(hub, ids, restart=restart)
    return {"due": due, "skipped": skipped}


def _gone(hub: Hub, task_id: int) -> Problem:
    """404 with how the task ended, if that is known."""
    end = hub.views.tasks.ended(task_id)
    if end is None:
        return Problem(404, f"no task {task_id}")
    ended = {"how": end["how"], "at": end["at"].isoformat()}
    if end["dead_letter_id"] is not None:
        ended["dead_letter_id"] = end["dead_letter_id"]
    return Problem(404, f"task {task_id} has ended: {end['how']}", ended=ended)
