"""Every setting, read once from the environment, frozen.

No other module reads the environment. Lists are comma-separated; durations are seconds, or a number
with a unit: `90s`, `15m`, `12h`, `3d`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, ClassVar, Literal
from zoneinfo import ZoneInfo

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from hub.errors import ConfigError

_MOST_PATHS = 16  # each costs every event an index entry
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def _duration(value: object) -> object:
    if isinstance(value, str) and (m := re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhd]?)\s*", value)):
        return float(m[1]) * _UNITS[m[2]]
    return value


def _numbers(value: object) -> object:
    if isinstance(value, str):
        return tuple(float(part) for part in value.split(",") if part.strip())
    return value


def _words(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _environment(model: type[BaseModel]) -> dict[str, str]:
    """The fields of `model` that the environment sets."""
    found = {}
    for name, field in model.model_fields.items():
        alias = field.validation_alias
        variables = alias.choices if isinstance(alias, AliasChoices) else [f"HUB_{name.upper()}"]
        value = next((text for v in variables if (text := os.environ.get(str(v)))), None)
        if value is not None:
            found[name] = value
    return found


Duration = Annotated[float, BeforeValidator(_duration), Field(gt=0)]
Numbers = Annotated[tuple[Annotated[float, Field(ge=0)], ...], BeforeValidator(_numbers)]
Words = Annotated[tuple[str, ...], BeforeValidator(_words)]


class Settings(BaseModel):
    """The hub's configuration; each field is the environment variable `HUB_<NAME>`. An empty one counts as not set."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)
    reads_environment: ClassVar[bool] = True

    def __init__(self, **given: object) -> None:
        """Read the environment; `given` wins."""
        read = _environment(type(self)) if self.reads_environment else {}
        super().__init__(**{**read, **given})

    database_url: SecretStr | None = Field(
        None, description="PostgreSQL as a `postgresql://` URL. Not set: a private server under `HUB_HOME`."
    )
    database_direct_url: SecretStr | None = Field(
        None,
        description="The same database without a connection pooler, for locks, LISTEN and migrations. Needed when"
        " `HUB_DATABASE_URL` leads to a pooler in transaction mode.",
    )
    broker_url: SecretStr | None = Field(
        None, description="RabbitMQ as an `amqp://` URL. Not set: Dramatiq's in-process broker."
    )
    home: Path = Field(Path(".hub"), description="Where embedded mode keeps its database and key file.")
    tls_dir: Path | None = Field(
        None,
        description="Folder of the files that `ca_file`, `client_cert` and `client_key` of services name."
        " Not set: `HUB_HOME/tls`.",
    )
    secret_keys: SecretStr | None = Field(
        None, description="Fernet keys, comma-separated, newest first; the first encrypts, all decrypt."
    )
    listen: str = Field("127.0.0.1:8080", description="Address of the web server.")
    exporter_listen: str = Field("127.0.0.1:9808", description="Address of `hub exporter`.")
    exporter_sources: Literal["all", "counters"] = Field(
        "all",
        description="What `hub exporter` shows: all, or only the counters of its machine's processes (no database, no"
        " broker): for sidecars beside one exporter that shows all.",
    )
    metrics_dir: Path | None = Field(
        None,
        validation_alias=AliasChoices("PROMETHEUS_MULTIPROC_DIR", "HUB_METRICS_DIR"),
        description="Where the processes of one machine count for the exporter. Not set: `HUB_HOME/metrics`.",
    )
    metrics_token: SecretStr | None = Field(None, description="Bearer token that `/metrics` asks for; none: open.")
    trusted_proxies: Words = Field(
        ("127.0.0.1", "::1"), description="Addresses or networks of proxies whose `X-Forwarded-For` is believed."
    )
    token_rate: float = Field(
        1000.0, gt=0, description="Requests per second that one API token may make of one web process."
    )
    connections: int = Field(
        1000, ge=8, description="Most connections of one web process; at most half of its file descriptors are used."
    )
    connections_per_address: int = Field(
        100, ge=1, description="Most connections of one client address; trusted proxies have no limit of their own."
    )
    header_timeout: Duration = Field(
        10.0, description="How long the head of a request may take, and a connection may stay unused."
    )
    body_timeout: Duration = Field(
        10.0, description="How long a request body may take, plus a second for each `HUB_BODY_RATE` bytes of it."
    )
    body_rate: int = Field(4096, ge=1, description="Least bytes per second of a request body in the long run.")
    retry_delays: Numbers = Field(
        (60, 120, 240, 480), description="Seconds between attempts, comma-separated; +-10 % jitter."
    )
    max_attempts: int = Field(5, ge=1, le=100, description="Attempts before a task becomes a dead letter.")
    circuit_open: Literal["park", "count"] = Field(
        "park", description="`park`: an open circuit costs no attempt; `count`: it does, as in Moodle's plugin."
    )
    task_max_age: Duration = Field(3 * 86400.0, description="A task older than this becomes a dead letter (`expired`).")
    log_retention: Duration = Field(28 * 86400.0, description="How long deliveries, events and run logs are kept.")
    event_retention: Duration | None = Field(
        None, description="How long events are kept for search and resending. Not set: as `HUB_LOG_RETENTION`."
    )
    keep_unmatched: Literal["all", "sample", "none"] = Field(
        "all", description="Which events that match no rule are kept; `sample`: one a minute of each name."
    )
    search_keys: Words = Field(
        ("userid", "relateduserid", "courseid", "objectid", "contextid"),
        description="Dotted paths into event data that searches have an index for. Alike for every process.",
    )
    operator_event_window: Duration = Field(
        900.0,
        description="After an operator event, further ones of its kind and subject become one event with their count.",
    )
    audit_retention: Duration = Field(365 * 86400.0, description="How long the audit trail is kept.")
    actor: str | None = Field(
        None, max_length=100, description="Who the commands of `hub` act for, in the audit trail. Not set: the OS user."
    )
    retry_after_cap: Duration = Field(3600.0, description="Longest `Retry-After` of a service that is honoured.")
    worker_lease: Duration = Field(
        15.0, description="A worker that has not reported for so long is taken for dead; its tasks run again."
    )
    republish_after: Duration = Field(
        10.0, description="A task enqueued longer ago than this, and in no queue, is republished."
    )
    processes: int = Field(2, ge=1, description="Worker processes of `hub worker`.")
    threads: int = Field(64, ge=1, description="Threads of each worker process; more when services respond slowly.")
    db_pool: int = Field(8, ge=2, description="Most PostgreSQL connections of one process.")
    queue_prefix: str = Field("hub", pattern=r"^[A-Za-z0-9_.-]{1,60}$", description="Prefix of the hub's queues.")
    queue_limit: int = Field(
        1000, ge=1, description="Most tasks of one service in the broker at a time; the others wait in the ledger."
    )
    log_format: Literal["console", "json"] = Field("console", description="Format of log lines on stderr.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least level that is logged.")
    log_successes: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Share of deliveries that are logged, chosen by task; every other line is always logged.",
    )
    body_limit: int = Field(
        65536, ge=0, description="Most characters of a request or response body kept in the delivery log."
    )
    event_limit: int = Field(1_048_576, ge=1024, description="Most bytes of one event's JSON.")
    payload_limit: int = Field(
        8_388_608,
        ge=65_536,
        description="Most characters of a rendered body (at least `HUB_EVENT_LIMIT`); a longer one fails the attempt.",
    )
    bodies_in_flight: int = Field(
        67_108_864,
        ge=1_048_576,
        description="Most bytes of rendered request bodies that one process holds; what finds no room waits.",
    )
    response_limit: int = Field(1_048_576, ge=1024, description="Most bytes read of a service's response.")
    wsdl_limit: int = Field(10_485_760, ge=1024, description="Most bytes of a WSDL, and of each schema it imports.")
    egress_private: Literal["allow", "deny"] = Field(
        "allow", description="Whether services may have private or loopback addresses (metadata never)."
    )
    egress_allow: Words = Field((), description="Networks (CIDR) allowed although `HUB_EGRESS_PRIVATE=deny`.")
    egress_proxy: bool = Field(
        False, description="Whether HTTP services are reached through the environment's proxies."
    )
    timezone: str = Field("UTC", description="Time zone in which cron expressions are read.")
    consumer_run_time: Duration = Field(50.0, description="Longest run over one response queue; the rest next time.")
    consumer_batch: int = Field(500, ge=1, le=10_000, description="Messages of a response queue stored at a time.")
    message_limit: int = Field(
        1_048_576,
        ge=1024,
        description="Most bytes of a response-queue message that are stored;"
        " a longer one keeps its first bytes, size and hash.",
    )
    max_depth: int = Field(5, ge=0, description="Longest chain of events that are caused by responses.")
    public_url: str | None = Field(None, description="Address under which people reach the console, for links.")

    @field_validator("search_keys")
    @classmethod
    def _usable_paths(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(value) > _MOST_PATHS:
            raise ValueError(f"at most {_MOST_PATHS} paths")
        for path in value:
            if len(path) > 255 or not path.isprintable() or not all(path.split(".")):
                raise ValueError(f"{path!r} is not a dotted path such as other.username")
        return tuple(dict.fromkeys(value))

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except Exception:
            raise ValueError(f"no such time zone: {value!r}") from None
        return value

    @model_validator(mode="after")
    def _broker_needs_database(self) -> Settings:
        if self.broker_url and not self.database_url:
            raise ValueError("HUB_BROKER_URL needs HUB_DATABASE_URL: workers share one ledger")
        if self.database_direct_url and not self.database_url:
            raise ValueError("HUB_DATABASE_DIRECT_URL needs HUB_DATABASE_URL")
        return self

    @property
    def direct_url(self) -> str | None:
        """The value of `HUB_DATABASE_DIRECT_URL`."""
        return self.database_direct_url.get_secret_value() if self.database_direct_url else None

    @property
    def embedded(self) -> bool:
        """Whether the hub brings its own PostgreSQL."""
        return self.database_url is None

    @property
    def metrics_folder(self) -> Path:
        """Where this machine's processes count."""
        return self.metrics_dir or self.home / "metrics"

    @property
    def tls_folder(self) -> Path:
        """Where services' TLS files lie."""
        return self.tls_dir or self.home / "tls"

    def delay_after(self, attempt: int) -> float:
        """Seconds to wait after the failed attempt number `attempt` (from 1), without jitter."""
        if not self.retry_delays:
            return 0.0
        return self.retry_delays[min(attempt, len(self.retry_delays)) - 1]


def from_environment(name: str) -> str | None:
    """A variable that a person named: `${NAME}` in an apply file, `env:NAME` on the command line."""
    return os.environ.get(name)


def load_settings(**overrides: object) -> Settings:
    """Read the environment; `overrides` win. Raises `ConfigError` that names the variable."""
    try:
        return Settings(**overrides)
    except ValidationError as e:
        first = e.errors(include_url=False, include_input=False)[0]
        name = "HUB_" + str(first["loc"][0]).upper() if first["loc"] else None
        raise ConfigError(str(first["msg"]).removeprefix("Value error, "), field=name) from None
    except ValueError as e:
        raise ConfigError(str(e)) from None
