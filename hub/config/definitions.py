"""Definitions of services and rules, checked, for the configuration file, the CLI, the API and the console.

Unknown fields are refused, and every error names its field.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator, BaseModel, Field, ValidationError, model_validator

from hub.codec import dumps, loads
from hub.config.auth import AuthSpec, InboundSpec, Spec
from hub.config.fields import Headers, Line, Name, no_control
from hub.domain.rules import check_conditions, check_endpoint, check_ordering_key, check_template
from hub.domain.urls import check_brackets, split_password
from hub.errors import ConfigError, PayloadError
from hub.transports.amqp.uri import PARAMETERS as AMQP_PARAMETERS

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD")
PLAIN_OPTIONS = (
    "headers",
    "ca_file",
    "client_cert",
    "client_key",
    "credentials_origin",
    "rate_limit",
    "max_attempts",
    "retry_delays",
    "mask",
)
"""Fields of a service that are stored unchanged in its `options`."""


class ServiceSpec(Spec):
    """An external system. docs/reference/services.md describes the fields."""

    name: Name
    type: Literal["rest", "amqp", "soap", "smtp"] = "rest"
    base_url: Line
    enabled: bool = True
    auth: AuthSpec = Field(default_factory=lambda: AuthSpec.model_validate({}))
    timeout: float = Field(5.0, gt=0, le=600, description="Seconds one network try may take.")
    max_retries: int = Field(3, ge=0, le=20, description="Network tries within one attempt, the first included.")
    retry_backoff: float = Field(1.0, ge=0, le=60, description="Seconds before the second try; doubles, at most 60.")
    cb_failure_threshold: int = Field(5, ge=0, le=1000, description="Failures in a row that open the circuit; 0: off.")
    cb_cooldown: float = Field(30.0, gt=0, le=86400, description="Seconds an open circuit waits before its probe.")
    response_queue: Annotated[str, Field(min_length=1, max_length=255), AfterValidator(no_control)] | None = None
    headers: Headers = Field(default_factory=dict)
    secret_headers: Headers = Field(default_factory=dict)
    signing_secret: Line | None = Field(None, description="Standard Webhooks secret (`whsec_...`) for requests.")
    signing_secret_old: Line | None = Field(None, description="The secret before, which signs too while rotating.")
    inbound: InboundSpec = InboundSpec()
    ca_file: Line | None = None
    client_cert: Line | None = None
    client_key: Line | None = None
    credentials_origin: Line | None = Field(
        None, description="SOAP: another origin (`https://host:port`) than the WSDL's that gets the credentials."
    )
    rate_limit: float | None = Field(None, gt=0, le=100_000, description="Most attempts per second.")
    max_attempts: int | None = Field(None, ge=1, le=100)
    retry_delays: list[Annotated[float, Field(ge=0, le=604_800)]] | None = Field(None, min_length=1, max_length=100)
    mask: list[Annotated[str, Field(min_length=1, max_length=200), AfterValidator(no_control)]] = Field(
        [], description="Payload paths shown as *** in the log."
    )

    @model_validator(mode="after")
    def _url_fits_type(self) -> ServiceSpec:
        schemes = {"amqp": ("amqp", "amqps"), "smtp": ("smtp", "smtps")}.get(self.type, ("http", "https"))
        try:
            url = urlsplit(self.base_url)
            host, _ = url.hostname, url.port
            check_brackets(url.netloc)
            if host and ":" in host:
                ipaddress.ip_address(host.split("%")[0])
        except ValueError as e:
            raise ValueError(f"base_url is not a URL: {e}") from None
        if url.scheme not in schemes:
            raise ValueError(f"base_url of a {self.type} service starts with {' or '.join(s + '://' for s in schemes)}")
        if not host and self.type != "amqp":
            raise ValueError("base_url has no host")
        if self.type == "amqp":
            for key, _ in parse_qsl(url.query, keep_blank_values=True):
                if key not in AMQP_PARAMETERS:
                    raise ValueError(f"base_url: unknown parameter {key!r}; known: {', '.join(AMQP_PARAMETERS)}")
        elif self.response_queue:
            raise ValueError("response_queue is for services of type amqp")
        if self.type == "smtp" and self.auth.type != "none":
            raise ValueError("user and password of an smtp service stand in its base_url")
        if self.auth.type == "wsse" and self.type != "soap":
            raise ValueError("auth of type 'wsse' is for services of type soap")
        if self.credentials_origin is not None:
            self._check_origin(self.credentials_origin, url.scheme)
        return self

    def _check_origin(self, origin: str, scheme: str) -> None:
        if self.type != "soap":
            raise ValueError("credentials_origin is for services of type soap")
        if not re.fullmatch(r"https?://[^/?#@\s]+/?", origin):
            raise ValueError("credentials_origin is an origin: https://host or https://host:port")
        if scheme == "https" and not origin.startswith("https://"):
            raise ValueError("credentials_origin: credentials of an https WSDL go to https only")

    def split(self) -> tuple[dict[str, Any], dict[str, str]]:
        """(columns, secrets) as the registry stores them: no secret is left in the columns."""
        auth, inbound = self.auth, self.inbound
        secrets: dict[str, str | None] = {
            "token": auth.token,
            "password": auth.password,
            "client_secret": auth.client_secret,
            "signing_secret": self.signing_secret,
            "signing_secret_old": self.signing_secret_old,
            "inbound_token": inbound.token,
            "inbound_signing_secret": inbound.signing_secret,
        }
        secrets.update({f"header:{name}": value for name, value in self.secret_headers.items()})
        base_url, password = split_password(self.base_url)
        if password is not None:
            secrets["password"] = password
        oauth2 = {"token_url": auth.token_url, "client_id": auth.client_id, "scope": auth.scope}
        options = {
            "username": auth.username,
            "apikey_header": auth.header,
            "password_type": auth.password_type,
            "oauth2": {k: v for k, v in oauth2.items() if v} or None,
            **{name: getattr(self, name) for name in PLAIN_OPTIONS},
        }
        columns = {
            "name": self.name,
            "type": self.type,
            "base_url": base_url,
            "enabled": self.enabled,
            "auth_type": auth.type,
            "timeout": self.timeout,
            "max_retries": self.max_retries,
            "retry_backoff": self.retry_backoff,
            "cb_failure_threshold": self.cb_failure_threshold,
            "cb_cooldown": self.cb_cooldown,
            "response_queue": self.response_queue,
            "options": {k: v for k, v in options.items() if v not in (None, {}, [])},
        }
        return columns, {k: v for k, v in secrets.items() if v}


class RuleSpec(Spec):
    """Sends events of a name to a service. docs/reference/rules.md describes the fields."""

    name: Name
    event: Annotated[str, Field(min_length=1, max_length=255)]
    service: Name
    endpoint: Annotated[str, Field(max_length=2000)] = ""
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"] = "POST"
    payload: Any = Field(None, description="JSON with {{placeholders}}, or a text of it; none: the event's data.")
    conditions: Any = None
    strict: bool = False
    ordering_key: Annotated[str, Field(max_length=1000)] | None = Field(
        None,
        description="Template; tasks of the rule with the same key are sent one at a time, in order of acceptance.",
    )
    on_failure: Literal["block", "continue"] = Field(
        "block", description="Whether tasks of the same key wait while one is retried."
    )
    enabled: bool = True

    @model_validator(mode="before")
    @classmethod
    def _upper(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("method"), str):
            data = {**data, "method": data["method"].upper()}
        if isinstance(data, dict) and data.get("ordering_key") == "":
            data = {**data, "ordering_key": None}
        return data

    @model_validator(mode="after")
    def _checked(self) -> RuleSpec:
        no_control(self.event)
        no_control(self.endpoint)
        try:
            template = self.template()
            if re.search("[\x00\ud800-\udfff]", template or ""):
                raise PayloadError("NUL and half a surrogate pair are not allowed")
            check_template(template)
        except PayloadError as e:
            raise ValueError(f"payload: {e}") from None
        try:
            check_endpoint(self.endpoint)
        except PayloadError as e:
            raise ValueError(f"endpoint: {e}") from None
        if self.ordering_key:
            no_control(self.ordering_key)
            try:
                check_ordering_key(self.ordering_key)
            except PayloadError as e:
                raise ValueError(f"ordering_key: {e}") from None
        try:
            check_conditions(self.conditions)
        except PayloadError as e:
            raise ValueError(f"conditions: {e}") from None
        return self

    def template(self) -> str | None:
        """The payload template as text, None when the event's data is the payload."""
        if self.payload is None or (isinstance(self.payload, str) and not self.payload.strip()):
            return None
        return self.payload if isinstance(self.payload, str) else dumps(self.payload)


def parse_spec(kind: type[BaseModel], data: Any, *, where: str = "") -> Any:
    """Validate `data`; raises `ConfigError` that names the field, and never shows a value."""
    try:
        return kind.model_validate(data)
    except ValidationError as e:
        problems = []
        for error in e.errors(include_url=False, include_input=False, include_context=False):
            path = ".".join(str(part) for part in error["loc"])
            message = str(error["msg"]).removeprefix("Value error, ")
            if error["type"] == "extra_forbidden":
                known = ", ".join(kind.model_fields)
                message = f"unknown field; known: {known}" if len(error["loc"]) == 1 else "unknown field"
            path = ".".join(filter(None, (where, path)))
            problems.append(f"{path}: {message}" if path else message)
        raise ConfigError("; ".join(problems)) from None
    except RecursionError:
        raise ConfigError("nested too deeply", field=where or None) from None


def template_value(text: str | None) -> Any:
    """A stored template as people wrote it: an object where it is JSON, the text where it is not."""
    if text is None:
        return None
    try:
        value = loads(text)
    except PayloadError:
        return text
    return value if isinstance(value, dict | list) else text
