"""Shapes of the API's responses."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

T = TypeVar("T")


def _utc(at: datetime) -> datetime:
    return at.astimezone(UTC)


Utc = Annotated[datetime, AfterValidator(_utc)]


class Shape(BaseModel):
    """A response with these members; other columns of the store are dropped."""

    model_config = ConfigDict(extra="ignore")


class Page(BaseModel, Generic[T]):
    """One page, newest first."""

    items: list[T]
    next: int | None = Field(None, description="The `before` of the next page; null on the last page.")


def page(rows: list[Any], limit: int) -> dict[str, Any]:
    """A page of rows with ids."""
    return {"items": rows, "next": rows[-1]["id"] if len(rows) == limit else None}


class Accepted(BaseModel):
    """The result of one event."""

    id: str = Field(
        description="The id that the sender gave, else a new one; for a duplicate, the id of the first event."
    )
    duplicate: bool
    tasks: list[int] = Field(description="One per rule that matched.")


class AcceptedCounts(BaseModel):
    """Counts instead of a list that is too long."""

    accepted: int = Field(description="Lines, duplicates included.")
    duplicates: int
    tasks: int


class Task(Shape):
    id: int
    event: str | None
    rule: str | None
    service: str | None
    state: Literal["pending", "running", "delayed", "blocked", "held"]
    attempts: int
    next_run_at: Utc
    last_error: str | None
    created_at: Utc
    orphan: bool = Field(description="Its rule or service was deleted.")
    overdue: bool = Field(description="Due for more than a minute.")
    waits_for: str | None = Field(description="Why it does not run, such as `rule X disabled`; null: it is running.")
    waits_until: Utc | None = Field(None, description="When that ends, if it is known.")
    event_id: str | None
    waits_behind: int | None = Field(
        None, description="Of a blocked task: the task of the same ordering key that comes first."
    )


class Origin(Shape):
    """Who asked for a task, and from what it was made."""

    kind: Literal["resend", "replay", "backfill"]
    delivery_id: int | None
    dead_letter_id: int | None
    backfill_id: int | None
    payload: str | None = Field(description="Given for this one task in place of the rule's, as JSON text.")
    endpoint: str | None = Field(description="Given for this one task in place of the rule's.")
    actor: str
    actor_kind: str
    created_at: Utc


class TaskDetail(Task):
    event_data: Any = None
    origin: Origin | None = Field(None, description="null: an event made the task.")
    worker: str | None = None
    lease_until: Utc | None = None
    expires_at: Utc | None = None


class DeadLetter(Shape):
    id: int
    task_id: int
    event: str
    rule: str | None
    service: str | None
    attempts: int
    reason: Literal["attempts", "expired", "worker_lost"]
    error: str | None
    payload: str | None = Field(description="The body of the last request, as text.")
    created_at: Utc
    status: int | None
    event_id: str
    accepted_at: Utc
    orphan: bool
    waiting: int | None = Field(
        None, description="Live tasks of the same ordering key, at most 1,001; null: the rule had no ordering key."
    )


class DeadLetterDetail(DeadLetter):
    event_data: Any = None
    response_body: str | None = None


class Delivery(Shape):
    id: int
    task_id: int | None
    direction: Literal["outbound", "inbound"]
    service: str
    event: str | None
    endpoint: str | None
    method: str | None
    attempt: int | None
    tries: int
    status: int | None
    latency_ms: float | None
    success: bool
    error: str | None
    request_body: str | None
    response_body: str | None
    created_at: Utc
    outcome: str
    rule: str | None


class DeliveryDetail(Delivery):
    origin: Origin | None = Field(None, description="Of its task; null: an event made the task.")
    properties: dict[str, Any] | None = None


class Breaker(Shape):
    service: str
    state: Literal["closed", "open", "half_open"]
    failures: int
    retry_at: Utc | None
    changed_at: Utc | None = None
    responses: Literal["closed", "open", "half_open"] | None = None
    responses_retry_at: Utc | None = None


class Schedule(Shape):
    name: str
    cron: str
    enabled: bool
    last_run_at: Utc | None
    last_result: str | None
    next_run_at: Utc | None
    default_cron: str
    last_duration_ms: float | None
    run_requested: bool = Field(description="Runs at the next tick, independent of the cron expression.")


class ScheduleDetail(Schedule):
    next_runs: list[Utc] = Field(description="The next five runs.")


class Run(Shape):
    id: int
    name: str
    service: str | None
    started_at: Utc
    ended_at: Utc | None
    result: str | None
    host: str
    pid: int
    summary: str | None
    error: str | None


class Token(Shape):
    id: int
    name: str
    scope: Literal["ingest", "view", "manage"]
    expires_at: Utc | None
    revoked_at: Utc | None
    last_used_at: Utc | None
    created_at: Utc


class NewToken(Token):
    token: str = Field(description="The secret. It is not shown again.")


class FieldError(BaseModel):
    field: str
    message: str


class ProblemShape(BaseModel):
    """RFC 9457 problem details."""

    model_config = ConfigDict(extra="allow", title="Problem")
    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[FieldError] | None = None
