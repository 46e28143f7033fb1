"""The queue of live tasks, and the page of one task with its attempts."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from hub.codec import readable
from hub.errors import ConflictError, NotFoundError
from hub.operations import tasks as operation
from hub.web.authorization import Access, needs
from hub.web.console.filters import beginning, digits, of
from hub.web.console.forms import Form
from hub.web.console.links import back, link
from hub.web.console.pages import Pages

_PAGE = 50
_STATES = ("pending", "running", "delayed", "blocked", "held")


def make_queue(pages: Pages) -> APIRouter:
    """Return the routes of `/queue` and `/tasks/...`."""
    router = pages.router()
    hub = pages.hub

    @router.get("/queue")
    @needs(Access.ROLE_VIEW)
    def list_(
        request: Request,
        state: str = "",
        service: str = "",
        event: str = "",
        failed: str = "",
        orphan: str = "",
        overdue: str = "",
        before: str = "",
    ) -> Response:
        if (number := digits(event)) is not None:
            return pages.go(f"/tasks/{number}")
        filters = {
            "state": state if state in _STATES else "",
            "service": service,
            "event": event,
            "failed": failed,
            "orphan": orphan,
            "overdue": overdue,
        }
        rows = hub.views.tasks.list(
            state=filters["state"] or None,
            service=service or None,
            failed=bool(failed),
            event=beginning(event),
            orphan=bool(orphan),
            overdue=bool(overdue),
            before=digits(before),
            limit=_PAGE + 1,
        )
        more = link("/queue", **filters, before=rows[_PAGE - 1]["id"]) if len(rows) > _PAGE else ""
        return pages.render(
            request,
            "queue.html",
            rows=rows[:_PAGE],
            more=more,
            filters=filters,
            stats=hub.views.overview.stats(),
            services=[s.name for s in hub.configuration.services()],
            orphans=len(hub.admin.orphans(1)),
            states=_STATES,
            names=hub.views.events.names(limit=200),
            filtered=any(filters.values()),
        )

    @router.post("/queue/act")
    @needs(Access.ROLE_MANAGE)
    def act(request: Request) -> Response:
        form: Form = request.state.form
        ids = [n for v in form.all("id") if (n := digits(v)) is not None]
        what = form.get("act")
        to = back(request, "/queue")
        if what == "purge":
            return pages.go(to, f"{of(operation.purge_orphans(hub), 'orphan')} deleted.")
        if not ids:
            return pages.go(to, "Select at least one task.", bad=True)
        if what == "delete":
            cancelled = operation.cancel(hub, ids)
            left = len(set(ids)) - len(cancelled)
            return pages.go(
                to, f"{of(len(cancelled), 'task')} deleted." + (f" {left} were running and stay." if left else "")
            )
        try:
            done, left_out = operation.retry(hub, ids, restart=what == "restart")
        except ConflictError as e:
            return pages.go(to, f"Not run: {e}.", bad=True)
        how = "the number of attempts was reset" if what == "restart" else "attempts continue"
        others = f" {of(len(left_out), 'task')} cannot run now or ended." if left_out else ""
        return pages.go(to, f"{of(len(done), 'task')} set due now; {how}.{others}")

    @router.get("/tasks/{id_}")
    @needs(Access.ROLE_VIEW)
    def show(request: Request, id_: int) -> Response:
        attempts = hub.views.deliveries.list(task=id_, limit=200)[::-1]
        task, ended = None, None
        try:
            task = hub.views.tasks.get(id_)
            task["event_data"] = readable(task["event_data"])
        except NotFoundError:
            ended = hub.views.tasks.ended(id_)
            if ended is None and not attempts:
                raise
        return pages.render(request, "task.html", id=id_, task=task, ended=ended, attempts=attempts)

    return router
