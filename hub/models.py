"""Value types of the hub: events, services, rules, tasks, deliveries. No I/O.

Times are timezone-aware datetimes in UTC, durations are seconds (float) unless the name says `_ms`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

JSON = Any  # any JSON value: None, bool, int, float, str, list, dict


class ServiceType(StrEnum):
    REST = "rest"
    AMQP = "amqp"
    SOAP = "soap"
    SMTP = "smtp"


class TaskState(StrEnum):
    """Where a task stands in the ledger.

    `pending` is due and waits in PostgreSQL, `queued` is due and published to the broker (people see both as pending).
    `blocked` waits behind another task of its ordering key. `held` is only shown: a task whose rule or service is
    disabled or deleted stays pending and is not published.
    """

    PENDING = "pending"
    QUEUED = "queued"
    RUNNING = "running"
    DELAYED = "delayed"
    BLOCKED = "blocked"
    HELD = "held"


class Direction(StrEnum):
    OUTBOUND = "outbound"
    INBOUND = "inbound"


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class DeadReason(StrEnum):
    ATTEMPTS = "attempts"
    EXPIRED = "expired"
    WORKER_LOST = "worker_lost"


@dataclass(frozen=True, slots=True)
class Event:
    """An occurrence with a name and data.

    `key` is the sender's own id, if it gave one. `source` says who sent it (`token:7`, `webhook:3`; empty: this
    machine's command line or Python): ids of different sources never collide. `text` is the JSON text of `data`, set
    by `hub.pipeline.intake.check_event`, so that data is serialized once. `cause_task`: the task whose response or
    webhook call this event is.
    """

    name: str
    data: JSON
    key: str | None = None
    source: str = ""
    text: str | None = field(default=None, compare=False, repr=False)
    cause_task: int | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """What became of one event: its id, whether it was seen before, and the ids of its tasks."""

    id: str
    duplicate: bool
    tasks: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Service:
    """An external system. `secrets` is decrypted (token, password, signing_secret, ...): never print it.

    `options` holds what only some services have: headers, ca_file, client_cert, client_key, oauth2,
    rate_limit (requests per second), mask (payload paths), max_attempts, retry_delays, username,
    apikey_header, password_type, credentials_origin, amqp (exchange, routing_key, queue_declare, dlq).

    `secrets_unreadable`: it has secrets, and no key of this process opens them; `secrets` is empty then, and nothing
    may be sent to it or taken for its word.
    """

    id: int
    name: str
    type: ServiceType
    base_url: str
    enabled: bool = True
    auth_type: str = "none"
    timeout: float = 5.0
    max_retries: int = 3
    retry_backoff: float = 1.0
    cb_failure_threshold: int = 5
    cb_cooldown: float = 30.0
    response_queue: str | None = None
    options: dict[str, JSON] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict, repr=False)
    secrets_unreadable: bool = False
    version: int = 1
    created_at: datetime | None = None
    updated_at: datetime | None = None

    @property
    def tries(self) -> int:
        """Network tries within one attempt, the first included."""
        return max(1, self.max_retries)


@dataclass(frozen=True, slots=True)
class Rule:
    """Event name (`*` matches any run of characters) -> service, endpoint, method, payload template.

    Attributes:
        ordering_key: template; tasks with one key are sent one at a time, in the order of their events.
        on_failure: whether the tasks behind one that failed wait for its next attempts (`block`).
    """

    id: int
    name: str
    event: str
    service_id: int
    service: str
    endpoint: str = ""
    method: str = "POST"
    payload: str | None = None
    conditions: JSON = None
    strict: bool = False
    ordering_key: str | None = None
    on_failure: Literal["block", "continue"] = "block"
    enabled: bool = True
    service_enabled: bool = True
    version: int = 1
    created_at: datetime | None = None
    updated_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """A task in this worker's hands: the attempt is already counted in the ledger.

    `token` fences: only the holder of the newest one can finish the task. `key` is the idempotency
    key that every try of every attempt carries. `accepted_at` is when the task was made. `bulk`: it belongs to a
    backfill or a bulk replay. `own_payload` (JSON text) and `own_endpoint` are sent in place of what the rule makes.
    """

    id: int
    token: int
    attempt: int
    key: str
    rule_id: int
    service_id: int
    event_id: int
    event_uid: str
    event_name: str
    event_data: str
    event_depth: int
    accepted_at: datetime
    due_at: datetime
    breaker: BreakerState
    breaker_failures: int
    breaker_epoch: int
    bulk: bool = False
    own_payload: str | None = None
    own_endpoint: str | None = None
    event_source: str | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """What a transport sends: rendered, not yet bound to a protocol.

    `body` is JSON text (None: no body). `idempotency_key` is the same on every try. `at` is when this try is made,
    by the deployment's clock; None: the transport looks at its own.

    What may be logged of it, where a `mask` hides something: `log_endpoint` and `log_body` (None: the real ones), and
    `hidden`, texts that may appear nowhere.
    """

    endpoint: str = ""
    method: str = "POST"
    body: str | None = None
    idempotency_key: str | None = None
    task_id: int | None = None
    event_name: str | None = None
    event_id: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    at: datetime | None = None
    log_endpoint: str | None = None
    log_body: str | None = None
    hidden: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Response:
    """A success, as a transport saw it. `status` is HTTP's, None elsewhere; `body` is bounded text."""

    status: int | None = None
    body: str | None = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One row of the log: an attempt that ended, or a message that came in.

    `response` is the response's body where a mask hides something in `response_body`; it is not logged.
    """

    direction: Direction
    service_id: int | None
    service: str
    success: bool
    task_id: int | None = None
    rule_id: int | None = None
    event_id: int | None = None
    event: str | None = None
    endpoint: str | None = None
    method: str | None = None
    attempt: int | None = None
    tries: int = 0
    status: int | None = None
    latency_ms: float | None = None
    outcome: str = "success"
    error: str | None = None
    request_body: str | None = None
    response_body: str | None = None
    properties: dict[str, JSON] | None = None
    response: str | None = field(default=None, repr=False)
    id: int | None = None
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class BreakerSnapshot:
    """A circuit as one row. `epoch` grows with every opening, so that late responses are recognised."""

    state: BreakerState = BreakerState.CLOSED
    failures: int = 0
    epoch: int = 0
    retry_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """An event source that the hub reads by itself. `secrets` is decrypted (password): never print it.

    `url` has no password. `options` holds what differs from the defaults of `hub.config.sources.SourceSpec`.
    """

    id: int
    name: str
    type: str
    url: str
    enabled: bool = True
    options: dict[str, JSON] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict, repr=False)
    secrets_unreadable: bool = False
    version: int = 1
    created_at: datetime | None = None
    updated_at: datetime | None = None
