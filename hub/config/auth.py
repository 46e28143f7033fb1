"""Definitions of how the hub and a service authenticate to each other."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hub.config.fields import HEADER, Line
from hub.domain.urls import check_brackets


class Spec(BaseModel):
    """A definition: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)


class AuthSpec(Spec):
    """How the hub authenticates to a service."""

    type: Literal["none", "bearer", "apikey", "basic", "oauth2", "wsse"] = "none"
    token: Line | None = Field(None, description="Bearer token or API key.")
    header: Annotated[str, Field(pattern=HEADER.pattern)] | None = Field(None, description="Header of the API key.")
    username: Line | None = None
    password: Line | None = None
    password_type: Literal["text", "digest"] | None = Field(
        None, description="WS-Security UsernameToken: how the password is sent; text when not given."
    )
    token_url: Line | None = None
    client_id: Line | None = None
    client_secret: Line | None = None
    scope: Line | None = None

    @model_validator(mode="after")
    def _complete(self) -> AuthSpec:
        needed = {
            "bearer": ("token",),
            "apikey": ("token",),
            "basic": ("username", "password"),
            "wsse": ("username", "password"),
            "oauth2": ("token_url", "client_id", "client_secret"),
        }.get(self.type, ())
        if self.token_url:
            try:
                check_brackets(urlsplit(self.token_url).netloc)
            except ValueError as e:
                raise ValueError(f"token_url is not a URL: {e}") from None
        for name in needed:
            if not getattr(self, name):
                raise ValueError(f"auth of type {self.type!r} needs {name!r}")
        if self.password_type and self.type != "wsse":
            raise ValueError("password_type is for auth of type 'wsse'")
        return self


class InboundSpec(Spec):
    """How a service authenticates to the webhook of the hub. Independent of the outbound secrets."""

    token: Line | None = None
    signing_secret: Line | None = None
