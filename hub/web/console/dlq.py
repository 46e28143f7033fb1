"""Dead letters: filter, look, replay, delete, export."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from hub.codec import loads
from hub.errors import NotFoundError
from hub.web.console.filters import segment
from hub.web.console.pages import Form, Pages, back, link

_PAGE = 50


def make_dlq(pages: Pages) -> APIRouter:
    """`/dead-letters`."""
    router = pages.router()
    hub = pages.hub

    @router.get("/dead-letters")
    def list_(
        request: Request, service: str = "", event: str = "", reason: str = "", since: str = "", before: str = ""
    ) -> Response:
        filters = {"service": service, "event": event, "reason": reason, "since": since}
        rows = hub.views.list_dead_letters(
            **_wanted(filters), before=int(before) if before.isdigit() else None, limit=_PAGE + 1
        )
        more = link("/dead-letters", **filters, before=rows[_PAGE - 1]["id"]) if len(rows) > _PAGE else ""
        return pages.render(
            request, "dlq.html", rows=rows[:_PAGE], more=more, filters=filters, total=hub.views.dead_letter_count(),
            services=[s.name for s in hub.registry.services()], export=link("/dead-letters/export", **filters),
        )  # fmt: skip

    @router.get("/dead-letters/count")
    def count(request: Request, service: str = "", since: str = "") -> Response:
        return JSONResponse({"count": hub.dead_letters.count(service=service or None, since=_time(since))})

    @router.get("/dead-letters/export")
    def export(request: Request, service: str = "", event: str = "", reason: str = "", since: str = "") -> Response:
        wanted = _wanted({"service": service, "event": event, "reason": reason, "since": since})

        def lines() -> Iterator[str]:
            before = None
            while rows := hub.views.list_dead_letters(**wanted, before=before, limit=200):
                before = rows[-1]["id"]
                for brief in rows:
                    try:
                        row = hub.views.dead_letter(brief["id"])
                    except NotFoundError:
                        continue  # replayed meanwhile
                    row["event_data"] = loads(row["event_data"])
                    yield json.dumps(row, ensure_ascii=False, default=_iso) + "\n"

        headers = {"Content-Disposition": 'attachment; filename="dead-letters.ndjson"'}
        return StreamingResponse(lines(), media_type="application/x-ndjson", headers=headers)

    @router.post("/dead-letters/act")
    def act(request: Request) -> Response:
        form: Form = request.state.form
        to = back(request, "/dead-letters")
        ids = [int(v) for v in form.all("id") if v.isdigit()]
        what = form.get("act")
        if what == "replay-all":
            return pages.go(to, _replay_all(form))
        if not ids:
            return pages.go(to, "Choose some dead letters first.", bad=True)
        if what == "delete":
            gone = hub.dead_letters.delete(ids, who=f"console:{request.state.session.name}")
            return pages.go(to, f"{gone} dead letter(s) deleted.")
        done = hub.dead_letters.replay(ids, limit=len(ids))
        stay = len(set(ids)) - len(done.tasks)
        text = f"{len(done.tasks)} dead letter(s) replayed." + (
            f" {stay} stay: their rule or service is gone." if stay else ""
        )
        only = to.startswith("/dead-letters/") and len(done.tasks) == 1
        return pages.go(f"/tasks/{done.tasks[0]}" if only else to, text, bad=bool(stay))

    def _replay_all(form: Form) -> str:
        total, orphans = 0, 0
        while True:
            done = hub.dead_letters.replay(service=form.get("service") or None, since=_time(form.get("since")))
            total += len(done.tasks)
            if not done.tasks:
                orphans = done.orphans
                break
        return f"{total} dead letter(s) replayed." + (
            f" {orphans} stay: their rule or service is gone." if orphans else ""
        )

    @router.get("/dead-letters/{id_}")
    def show(request: Request, id_: int) -> Response:
        row = hub.views.dead_letter(id_)
        attempts = hub.views.list_deliveries(task=row["task_id"], limit=200)[::-1]
        rules = f"/rules/{segment(row['rule'])}/edit" if row["rule"] and not row["orphan"] else ""
        return pages.render(request, "dead_letter.html", row=row, attempts=attempts, rule_link=rules)

    return router


def _wanted(filters: dict[str, str]) -> dict[str, Any]:
    event = filters["event"]
    return {
        "service": filters["service"] or None,
        "event": (event if event.endswith("*") else f"{event}*") if event else None,
        "reason": filters["reason"] or None, "since": _time(filters["since"]),
    }  # fmt: skip


def _time(text: str) -> datetime | None:
    """A time from a date field; what is none is none."""
    try:
        at = datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
    return at.astimezone() if at else None


def _iso(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
