"""Definitions of event sources as people write them: checked, masked, and back."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from urllib.parse import quote, urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from hub.config.fields import Line, Name
from hub.config.yaml_file import Reference
from hub.domain.text import MASK
from hub.domain.urls import around_password, check_brackets, join_password, split_password
from hub.errors import ConfigError
from hub.models import Source
from hub.transports.masking import masked_url

MYSQL = ("mysql", "mariadb")
POSTGRESQL = ("postgresql", "postgres")
SOCKETS = {"unix_socket": MYSQL, "host": POSTGRESQL}
"""Parameters of a URL that name a Unix socket, and the schemes that know them."""
_OPTIONS = (
    "prefix",
    "events",
    "start",
    "poll_interval",
    "batch",
    "gap_age",
    "query_timeout",
    "backlog",
    "tls",
    "ca_file",
    "lookups",
    "keep_unmatched",
)


def _start(value: object) -> object:
    """`now`, an id, or a time in ISO 8601 (UTC where it has no zone)."""
    if isinstance(value, str):
        text = value.strip()
        if re.fullmatch(r"[0-9]{1,18}", text):
            return int(text)
        if text != "now":
            try:
                at = datetime.fromisoformat(text)
            except ValueError:
                raise ValueError("must be now, the id of a row, or a time such as 2026-01-31T12:00:00Z") from None
            at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
            return at.isoformat().replace("+00:00", "Z")
        return text
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError("must be now, the id of a row, or a time such as 2026-01-31T12:00:00Z")
    return value


Start = Annotated[str | int, BeforeValidator(_start)]
Pattern = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f]*$")]


class SourceSpec(BaseModel):
    """An event source: Moodle's log store, read from its database."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)
    name: Name
    type: Literal["moodle_log"] = "moodle_log"
    url: Line = Field(description="`mysql://user:password@host:3306/database`, `mariadb://` or `postgresql://`.")
    enabled: bool = True
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]{0,20}$")] = Field("mdl_", description="Of Moodle's tables.")
    events: Annotated[list[Pattern], Field(min_length=1, max_length=1000)] = Field(
        ["*"], description="Names of the events that are read; `*` is any run of characters."
    )
    start: Start = Field("now", description="Where the first look begins: `now`, an id, or a time (inclusive).")
    poll_interval: float = Field(5.0, ge=0.05, le=3600, description="Seconds between two looks when all was read.")
    batch: int = Field(1000, ge=1, le=10_000, description="Most rows of one query and one transaction.")
    gap_age: float = Field(
        600.0, ge=1, le=86_400, description="Seconds that a missing id is looked at again; more than a request lasts."
    )
    query_timeout: float = Field(10.0, ge=1, le=300, description="Seconds one query may take.")
    backlog: int = Field(
        500_000, ge=1, le=100_000_000, description="Reading pauses while more tasks than this wait in the ledger."
    )
    tls: Literal["off", "require", "verify"] = Field(
        "off", description="`verify`: TLS, and the certificate and host name are checked; `require`: TLS, unchecked."
    )
    ca_file: Line | None = Field(None, description="CA file in `HUB_TLS_DIR` for `tls: verify`; none: the system's.")
    lookups: bool = Field(True, description="Whether templates may read users and courses from this database.")
    keep_unmatched: bool = Field(
        False, description="Whether rows that no rule's event name fits are written too, as `HUB_KEEP_UNMATCHED` says."
    )

    @field_validator("url")
    @classmethod
    def _a_database(cls, value: str) -> str:
        try:
            url = urlsplit(value)
            _ = url.port
            check_brackets(url.netloc)
        except ValueError as e:
            raise ValueError(f"is not a URL: {e}") from None
        if url.scheme not in (*MYSQL, *POSTGRESQL):
            raise ValueError("starts with mysql://, mariadb:// or postgresql://")
        if len(url.path.strip("/")) == 0 or "/" in url.path.strip("/"):
            raise ValueError("names no database: mysql://user:password@host/database")
        if not url.username:
            raise ValueError("names no user: mysql://user:password@host/database")
        name, _, path = url.query.partition("=")
        if url.query and (url.scheme not in SOCKETS.get(name, ()) or "&" in path):
            raise ValueError("has an unknown parameter; known: host=/folder (PostgreSQL) or unix_socket=/file (MySQL)")
        if not url.hostname and not url.query:
            raise ValueError("has no host")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> SourceSpec:
        if self.ca_file and self.tls != "verify":
            raise ValueError("ca_file is for tls: verify")
        return self

    def split(self) -> tuple[dict[str, Any], dict[str, str]]:
        """(columns, secrets) as the store keeps them; options that have their default are left out."""
        url, password = split_password(self.url)
        options = {
            name: getattr(self, name)
            for name in _OPTIONS
            if getattr(self, name) != type(self).model_fields[name].default
        }
        columns = {"name": self.name, "type": self.type, "url": url, "enabled": self.enabled, "options": options}
        return columns, {"password": password} if password else {}


def option(source: Source, name: str) -> Any:
    """An option of a source, or its default."""
    return source.options.get(name, SourceSpec.model_fields[name].default)


def check_source(spec: SourceSpec) -> None:
    """Raises `ConfigError` where the mask stands in place of a password."""
    if (split_password(spec.url)[1] or "").startswith(MASK):
        raise ConfigError("the password is masked (***); give the whole URL", field="url")


def merge_source(document: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Changes over a document with its secrets; a URL that was read masked means the one that is stored."""
    merged = {**document, **changes}
    url = changes.get("url")
    if isinstance(url, str) and MASK in url:
        if url != masked_url(document["url"]):
            raise ConfigError("the password is masked (***); give the whole URL", field="url")
        merged["url"] = document["url"]
    return merged


def source_document(
    source: Source, *, secrets: bool = False, mask: str | Callable[[str], Reference] = MASK
) -> dict[str, Any]:
    """A source as people write it; the password masked unless asked for.

    Args:
        mask: stands for the password, or returns the reference to it.
    """
    url: str | Reference = source.url
    if "password" in source.secrets or source.secrets_unreadable:
        if secrets and not source.secrets_unreadable:
            url = join_password(source.url, quote(source.secrets["password"], safe=""))
        elif callable(mask):
            before, after = around_password(source.url)
            url = Reference(mask("password").name, before, after)
        else:
            url = join_password(source.url, mask)
    document: dict[str, Any] = {"name": source.name, "type": source.type, "url": url, "enabled": source.enabled}
    return document | {name: option(source, name) for name in _OPTIONS}


def without_password(text: str, source: Source) -> str:
    """A text, such as a driver's error, without the source's password."""
    password = source.secrets.get("password", "")
    for form in (password, quote(password, safe="")) if len(password) >= 4 else ():
        text = text.replace(form, MASK)
    return text
