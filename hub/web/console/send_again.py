"""Send again: resend of a delivery or an event, edited or not; backfills of a rule."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from hub.codec import loads
from hub.errors import HubError, PayloadError
from hub.operations import backfill, resend
from hub.operations.trial import MOST, trial
from hub.web.authorization import Access, needs
from hub.web.console.filters import digits, moment, of, pretty, segment
from hub.web.console.forms import Form
from hub.web.console.links import back
from hub.web.console.pages import Pages

_PATIENCE = 5.0  # seconds of a count that a page waits for
_PAST = timedelta(days=7)


def make_send_again(pages: Pages) -> APIRouter:
    """Return the routes that send again."""
    router = pages.router()
    hub = pages.hub

    def resend_form(
        request: Request, id_: int, typed: dict[str, str] | None = None, problem: str = "", status: int = 200
    ) -> Response:
        row = hub.views.deliveries.get(id_)
        shown = {"payload": pretty(row["request_body"]), "endpoint": row["endpoint"] or ""}
        return pages.render(request, "resend.html", status, row=row, shown=shown, typed=typed or shown, problem=problem)

    @router.get("/deliveries/{id_}/resend")
    @needs(Access.ROLE_MANAGE)
    def edit(request: Request, id_: int) -> Response:
        return resend_form(request, id_)

    @router.post("/deliveries/{id_}/resend")
    @needs(Access.ROLE_MANAGE)
    def send(request: Request, id_: int) -> Response:
        """Send as it was, or with what was changed in the form: an untouched field is what the rule makes."""
        form: Form = request.state.form
        typed = {"payload": form.raw("payload"), "endpoint": form.get("endpoint")}
        changes: dict[str, Any] = {}
        try:
            if "payload" in form and typed["payload"] != form.raw("shown_payload"):
                changes["payload"] = _json(typed["payload"])
            if "endpoint" in form and typed["endpoint"] != form.get("shown_endpoint"):
                changes["endpoint"] = typed["endpoint"]
            (task,) = resend.resend(hub, [id_], **changes).tasks
        except HubError as e:
            if "shown_endpoint" not in form:
                raise
            return resend_form(request, id_, typed, str(e), 422)
        return pages.go(f"/tasks/{task}", f"Delivery {id_} is sent again by this task.")

    @router.post("/events/{number:int}/resend")
    @needs(Access.ROLE_MANAGE)
    def send_event(request: Request, number: int) -> Response:
        done = resend.resend_event(hub, f"event:{number}")
        return pages.go(f"/events/{number}", f"Sent again: {of(done.count, 'task')} made.")

    @router.get("/rules/{name}/backfill")
    @needs(Access.ROLE_MANAGE)
    def form_page(request: Request, name: str) -> Response:
        now = hub.clock.now()
        typed = {"since": (now - _PAST).isoformat(), "until": "", "rate": f"{backfill.RATE:.0f}"}
        return page(request, name, typed)

    def page(
        request: Request,
        name: str,
        typed: dict[str, str],
        *,
        counted: backfill.Count | None = None,
        problem: str = "",
        status: int = 200,
    ) -> Response:
        rule = hub.configuration.rule(name)
        return pages.render(
            request,
            "backfill.html",
            status,
            rule=rule,
            typed=typed,
            counted=counted,
            problem=problem,
            tried=trial(hub, rule, MOST) if counted is None and not problem else None,
            backfills=hub.backfills.list(rule=name, limit=20),
        )

    @router.post("/rules/{name}/backfill")
    @needs(Access.ROLE_MANAGE)
    def start(request: Request, name: str) -> Response:
        """Count first; start what was counted."""
        form: Form = request.state.form
        typed = {field: form.get(field) for field in ("since", "until", "rate")}
        rule = hub.configuration.rule(name)
        since, until = moment(typed["since"]), moment(typed["until"]) or hub.clock.now()
        try:
            if since is None:
                raise PayloadError("From: give a time")
            if form.get("act") != "start":
                end = time.monotonic() + _PATIENCE
                counted = backfill.count(hub, rule, since, until, go_on=lambda: time.monotonic() < end)
                return page(request, name, typed | {"until": until.isoformat()}, counted=counted)
            expected = digits(form.get("expected"))
            backfill.start(hub, rule, since, until, rate=_rate(typed["rate"]), expected=expected)
        except HubError as e:
            return page(request, name, typed, problem=str(e), status=422)
        return pages.go(f"/rules/{segment(name)}/backfill", "The backfill was started. A worker makes its tasks.")

    @router.post("/backfills/{id_}/{act}")
    @needs(Access.ROLE_MANAGE)
    def change(request: Request, id_: int, act: str) -> Response:
        found = hub.backfills.get(id_)
        to = back(request, f"/rules/{segment(found.rule)}/backfill")
        if act == "pause":
            hub.backfills.pause(id_)
            return pages.go(to, "The backfill is paused. Tasks that were made continue.")
        if act == "resume":
            hub.backfills.resume(id_)
            return pages.go(to, "The backfill continues.")
        dropped = backfill.cancel(hub, id_)[1]
        return pages.go(to, f"The backfill was cancelled and {of(dropped, 'waiting task')} deleted.")

    return router


def _json(text: str) -> Any:
    try:
        return loads(text)
    except PayloadError as e:
        raise PayloadError(f"payload: {e}") from None


def _rate(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise PayloadError("Rate: must be a number of tasks a second") from None
