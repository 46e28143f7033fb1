"""JSON shapes of the configuration in the API: services, rules, sources. Secrets are masked."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from hub.web.api.shapes import Shape, Utc


class Service(BaseModel):
    """A service as it was defined, with secrets masked. `ServiceSpec` describes the members."""

    model_config = ConfigDict(extra="allow")
    id: int
    name: str
    type: Literal["rest", "amqp", "soap", "smtp"]
    base_url: str
    enabled: bool
    auth: dict[str, Any]
    timeout: float
    max_retries: int
    retry_backoff: float
    cb_failure_threshold: int
    cb_cooldown: float
    response_queue: str | None
    secrets_unreadable: bool = Field(
        description="No key decrypts its secrets: nothing is sent until they are entered again."
    )
    version: int = Field(description="Increases with every change; also the ETag.")
    created_at: Utc
    updated_at: Utc
    note: str = Field("", description="After a change: what did not succeed, such as declaring the response queue.")


class Rule(BaseModel):
    id: int
    name: str
    event: str
    service: str
    endpoint: str
    method: str
    payload: Any
    conditions: Any
    strict: bool
    ordering_key: str | None = None
    on_failure: Literal["block", "continue"] = "block"
    enabled: bool
    version: int = Field(description="Increases with every change; also the ETag.")
    created_at: Utc
    updated_at: Utc


class Source(BaseModel):
    """An event source as it was written, with the password masked; see `SourceSpec` for the members."""

    model_config = ConfigDict(extra="allow")
    id: int
    name: str
    type: Literal["moodle_log"]
    url: str
    enabled: bool
    secrets_unreadable: bool = Field(description="No key decrypts its password: it is not read.")
    version: int = Field(description="Increases with every change; also the ETag.")
    created_at: Utc
    updated_at: Utc


class SourceStatus(Shape):
    """How far an event source has been read."""

    name: str
    state: Literal["up_to_date", "reading", "starting", "waiting", "failing", "disabled"]
    lag_seconds: float | None = Field(description="Since every visible row had been read; null: disabled.")
    lag_rows: int | None = Field(description="Ids that are not read yet.")
    last_id: int | None = Field(description="Every id up to it was read, except those in gaps.")
    newest_id: int | None
    gaps: int = Field(description="Ranges of missing ids that are looked at again.")
    missing_ids: int
    read_rows: int
    events: int = Field(description="Rows that a rule may want, written to the ledger.")
    undecoded: int = Field(description="Rows whose `other` could not be read: the event has null.")
    refused: int = Field(description="Rows that are no event.")
    errors: int = Field(description="Looks that failed.")
    last_error: str | None
    error_at: Utc | None
    waits_for: Literal["backlog", "gaps"] | None
    polled_at: Utc | None
    reached_at: Utc | None
