"""The audit trail: who changed what, with filters and a diff of each change."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from hub.store.audit import Entry
from hub.web.authorization import Access, needs
from hub.web.console.filters import digits, moment
from hub.web.console.links import link
from hub.web.console.pages import Pages

_PAGE = 50
_LONGEST = 300  # characters of a value in a diff
KINDS = (
    "service",
    "rule",
    "source",
    "schedule",
    "task",
    "dead_letter",
    "delivery",
    "event",
    "backfill",
    "user",
    "token",
    "session",
    "link",
    "secrets",
)


def make_activity(pages: Pages) -> APIRouter:
    """Return the route of `/activity`."""
    router = pages.router()
    hub = pages.hub

    @router.get("/activity")
    @needs(Access.ROLE_MANAGE)
    def list_(
        request: Request,
        actor: str = "",
        action: str = "",
        kind: str = "",
        name: str = "",
        since: str = "",
        before: str = "",
    ) -> Response:
        filters = {"actor": actor, "action": action, "kind": kind, "name": name, "since": since}
        entries = hub.audit.list(
            actor=actor or None,
            action=action or None,
            kind=kind or None,
            name=name or None,
            since=moment(since),
            before=digits(before),
            limit=_PAGE + 1,
        )
        more = link("/activity", **filters, before=entries[_PAGE - 1].id) if len(entries) > _PAGE else ""
        return pages.render(
            request,
            "activity.html",
            rows=[asdict(entry) | {"diff": diff(entry), "link": _link(entry)} for entry in entries[:_PAGE]],
            more=more,
            filters=filters,
            kinds=KINDS,
        )

    return router


def diff(entry: Entry) -> list[tuple[str, str | None, str | None]]:
    """(field, before, after) of a change; None: there was, or is, no such value."""
    before, after = entry.before or {}, entry.after or {}
    return [(key, _text(before, key), _text(after, key)) for key in {**before, **after}]


def _text(values: dict[str, Any], key: str) -> str | None:
    if key not in values:
        return None
    value = values[key]
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _link(entry: Entry) -> str:
    """The page of what was changed; empty: it has none."""
    if entry.subject_kind == "service" and entry.subject_name:
        return link(f"/services/{entry.subject_name}")
    if entry.subject_kind == "rule" and entry.subject_name:
        return link(f"/rules/{entry.subject_name}/edit")
    if entry.subject_id is not None:
        page = {"task": "tasks", "dead_letter": "dead-letters", "delivery": "deliveries"}.get(entry.subject_kind)
        return f"/{page}/{entry.subject_id}" if page else ""
    return ""
