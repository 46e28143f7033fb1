"""Dead letters: list, show, replay, delete, export."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse

from hub.operations import dead_letters as operation
from hub.operations.replay import Chosen, replay, replay_ids
from hub.web.authorization import Access, needs
from hub.web.console.filters import (
    beginning,
    digits,
    moment,
    number,
    of,
    segment,
)
from hub.web.console.forms import Form
from hub.web.console.links import back, link
from hub.web.console.pages import Pages

_PAGE, _BATCH = 50, 200
_COUNTED = 20_000  # the confirmation page counts up to here
_ALL = ("replay-all", "delete-all")
_FILTERS = ("service", "event", "reason", "since", "until")


def make_dlq(pages: Pages) -> APIRouter:
    """Return the routes of `/dead-letters`."""
    router = pages.router()
    hub = pages.hub

    @router.get("/dead-letters")
    @needs(Access.ROLE_VIEW)
    def list_(
        request: Request,
        service: str = "",
        event: str = "",
        reason: str = "",
        since: str = "",
        until: str = "",
        before: str = "",
    ) -> Response:
        filters = {"service": service, "event": event, "reason": reason, "since": since, "until": until}
        rows = hub.views.dead_letters.list(**_wanted(filters), before=digits(before), limit=_PAGE + 1)
        more = link("/dead-letters", **filters, before=rows[_PAGE - 1]["id"]) if len(rows) > _PAGE else ""
        return pages.render(
            request,
            "dlq.html",
            rows=rows[:_PAGE],
            more=more,
            filters=filters,
            total=hub.views.dead_letters.count(),
            services=[s.name for s in hub.configuration.services()],
            export=link("/dead-letters/export", **filters),
            names=hub.views.events.names(limit=200),
            filtered=any(filters.values()),
            all_of={act: link("/dead-letters/all", act=act, **filters) for act in _ALL},
        )

    def matching(filters: dict[str, str]) -> Iterator[list[dict[str, Any]]]:
        """Yield all matching dead letters in batches, newest first."""
        before = None
        while rows := hub.views.dead_letters.list(**_wanted(filters), before=before, limit=_BATCH):
            before = rows[-1]["id"]
            yield rows

    @router.get("/dead-letters/all")
    @needs(Access.ROLE_MANAGE)
    def sure(
        request: Request,
        act: str = "",
        service: str = "",
        event: str = "",
        reason: str = "",
        since: str = "",
        until: str = "",
    ) -> Response:
        """Count the matching dead letters and ask for confirmation."""
        filters = {"service": service, "event": event, "reason": reason, "since": since, "until": until}
        total = orphans = 0
        for rows in matching(filters):
            total += len(rows)
            orphans += sum(row["orphan"] for row in rows)
            if total >= _COUNTED:
                break
        act = act if act in _ALL else _ALL[0]
        return pages.render(
            request,
            "dlq_all.html",
            act=act,
            filters=filters,
            orphans=orphans,
            more=total >= _COUNTED,
            count=total if act == "delete-all" else total - orphans,
            back=link("/dead-letters", **filters),
        )

    @router.get("/dead-letters/export")
    @needs(Access.ROLE_VIEW)
    def export(
        request: Request, service: str = "", event: str = "", reason: str = "", since: str = "", until: str = ""
    ) -> Response:
        filters = {"service": service, "event": event, "reason": reason, "since": since, "until": until}

        def lines() -> Iterator[str]:
            for row in operation.export(hub, operation.Filter(**_wanted(filters))):
                yield json.dumps(row, ensure_ascii=False, default=_iso) + "\n"

        headers = {"Content-Disposition": 'attachment; filename="dead-letters.ndjson"'}
        return StreamingResponse(lines(), media_type="application/x-ndjson", headers=headers)

    @router.post("/dead-letters/act")
    @needs(Access.ROLE_MANAGE)
    def act(request: Request) -> Response:
        form: Form = request.state.form
        to = back(request, "/dead-letters")
        what = form.get("act")
        if what == "replay-all":
            done = replay(hub.dead_letters, Chosen(**_wanted({name: form.get(name) for name in _FILTERS})))
            if not done.tasks and not done.orphans:
                return pages.go(to, "Select at least one dead letter.", bad=True)
            return replayed(to, done.tasks, done.orphans)
        if what == "delete-all":
            chosen = operation.Filter(**_wanted({name: form.get(name) for name in _FILTERS}))
            return pages.go(to, f"{of(operation.delete_matching(hub, chosen), 'dead letter')} deleted.")
        found = [n for v in form.all("id") if (n := digits(v)) is not None]
        if not found:
            return pages.go(to, "Select at least one dead letter.", bad=True)
        if what == "delete":
            gone = operation.delete(hub, found, missing_ok=True)
            return pages.go(to, f"{of(gone, 'dead letter')} deleted.")
        # Another user may have replayed some.
        done = replay_ids(hub.dead_letters, found, missing_ok=True, before=what == "replay-before")
        return replayed(to, done.tasks, done.orphans)

    def replayed(to: str, tasks: list[int], stay: int) -> Response:
        text = f"{of(len(tasks), 'dead letter')} replayed."
        if stay:
            text += f" {number(stay)} cannot be replayed: the rule or service was deleted."
        only = to.startswith("/dead-letters/") and len(tasks) == 1
        return pages.go(f"/tasks/{tasks[0]}" if only else to, text, bad=bool(stay))

    @router.get("/dead-letters/{id_}")
    @needs(Access.ROLE_VIEW)
    def show(request: Request, id_: int) -> Response:
        row = hub.views.dead_letters.get(id_)
        attempts = hub.views.deliveries.list(task=row["task_id"], limit=200)[::-1]
        rules = f"/rules/{segment(row['rule'])}/edit" if row["rule"] and not row["orphan"] else ""
        return pages.render(request, "dead_letter.html", row=row, attempts=attempts, rule_link=rules)

    return router


def _wanted(filters: dict[str, str]) -> dict[str, Any]:
    return {
        "service": filters["service"] or None,
        "event": beginning(filters["event"]),
        "reason": filters["reason"] or None,
        "since": moment(filters["since"]),
        "until": moment(filters["until"]),
    }


def _iso(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
