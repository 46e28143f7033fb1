"""`/api/v1/activity`: the audit trail."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query

from hub.app.lifecycle import Hub
from hub.web.api import parameters, shapes
from hub.web.api.routers import routers
from hub.web.authentication import Authenticator

Text = Annotated[str | None, Query(max_length=255, pattern=r"^[^\x00]*$")]


class Change(shapes.Shape):
    """One entry of the audit trail. If both `before` and `after` are given, they hold only what differs."""

    id: int
    at: shapes.Utc
    actor: str
    actor_kind: Literal["user", "token", "cli", "link", "system"]
    origin: str | None
    action: str
    subject_kind: str
    subject_id: int | None
    subject_name: str | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None


def make_activity(hub: Hub, authenticator: Authenticator) -> APIRouter:
    """The endpoint of the audit trail. It needs the scope `manage`."""
    r = routers(hub, authenticator, "/activity", "activity")

    @r.manage.get("", summary="List changes", response_model=shapes.Page[Change])
    def list_changes(
        actor: Text = None,
        action: Text = None,
        kind: Text = None,
        name: Text = None,
        since: parameters.Since = None,
        before: parameters.Before = None,
        limit: parameters.Limit = 50,
    ) -> dict[str, Any]:
        """Newest first. Secrets are masked."""
        rows = hub.audit.list(actor=actor, action=action, kind=kind, name=name, since=since, before=before, limit=limit)
        return shapes.page([asdict(row) for row in rows], limit)

    return r.joined()
