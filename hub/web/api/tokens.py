"""`/api/v1/tokens`: API tokens. The secret is returned once, when the token is created."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field

from hub.app.lifecycle import Hub
from hub.web.api import parameters, shapes
from hub.web.api.routers import routers
from hub.web.authentication import Authenticator
from hub.web.problems import Problem

Name = Annotated[str, Path(max_length=100, description="Name of a token.")]


class AddToken(parameters.Given):
    """A token to create."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    scope: Literal["ingest", "view", "manage"] = Field(
        description="`ingest`: only send events; `view`: only read; `manage`: everything."
    )
    expires_at: parameters.Moment | None = Field(None, description="When it expires; null means never.")


class Tokens(BaseModel):
    items: list[shapes.Token]


class Revoked(BaseModel):
    revoked: str


def make_tokens(hub: Hub, authenticator: Authenticator) -> APIRouter:
    """The endpoints of API tokens. All need the scope `manage`."""
    r = routers(hub, authenticator, "/tokens", "tokens")

    @r.manage.get("", summary="List tokens", response_model=Tokens)
    def list_tokens() -> dict[str, Any]:
        return {"items": [asdict(token) for token in hub.accounts.tokens.list()]}

    @r.manage.post("", status_code=201, summary="Create a token", response_model=shapes.NewToken)
    def add_token(add: AddToken) -> dict[str, Any]:
        if add.expires_at is not None and add.expires_at <= hub.clock.now():
            raise Problem(422, "must be in the future", field="expires_at")
        token, secret = hub.accounts.tokens.add(add.name, add.scope, expires_at=add.expires_at)
        return asdict(token) | {"token": secret}

    @r.manage.delete("/{name}", summary="Revoke a token", response_model=Revoked)
    def revoke_token(name: Name) -> dict[str, Any]:
        hub.accounts.tokens.revoke(name)
        return {"revoked": name}

    return r.joined()
