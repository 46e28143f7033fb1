"""Error tree of the hub: everything that can go wrong.

::

    HubError
    ├── ConfigError            a setting, file or service definition is wrong; says which field
    ├── NotFoundError          no such service, rule, task, dead letter
    ├── ConflictError          the name is taken
    │   └── StaleError         another change came first
    ├── PayloadError           event data or a template cannot become a request
    │   └── TooLargeError      it is more than a limit allows
    ├── SourceError            a source's database does not respond, or refuses
    ├── UnavailableError       the hub's own database or broker does not respond: never a service's failure
    │   └── NotSentError(retry_after)        internal error before the first byte left: the attempt is released
    └── DeliveryError          one attempt failed; `.outcome` is the metric label
        ├── CircuitOpenError(retry_after)    nothing was sent
        ├── RateLimitedError(retry_after)    nothing was sent
        ├── SecretsError(retry_after)        no key opens the service's secrets: nothing was sent
        └── TransportError
            ├── ConnectError                 refused, DNS, TLS, connection lost
            ├── TimedOutError                no complete response within the deadline
            ├── RejectedError(status, retry_after)   a response with another status than success
            │   └── ExpiredTokenError            401 to an OAuth token that was good before
            ├── AuthenticationError          AMQP: user, password, vhost or permission refused
            ├── FaultError                   a SOAP fault
            └── UnroutableError              AMQP: unroutable (basic.return) or refused (nack)

A transport maps its library's exceptions to these in one place, most specific first, and never
puts a secret into a message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hub.models import Delivery


class HubError(Exception):
    """Base of all errors that the hub raises on purpose. Its text may be shown to a person."""


class ConfigError(HubError):
    """A setting or definition is wrong; `field` names it (dotted), where known."""

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.field = field


class NotFoundError(HubError):
    """The object does not exist."""


class ConflictError(HubError):
    """The object exists already, or has changed since it was read."""


class StaleError(ConflictError):
    """The object has changed since it was read. Read it again."""


class PayloadError(HubError):
    """Event data, a template or a body is not usable; the text says where and why."""


class TooLargeError(PayloadError):
    """It is larger than a limit; the text names both sizes."""


class UnavailableError(HubError):
    """The database or broker of the hub does not respond. Counts against no service and no task."""


class SourceError(HubError):
    """The database of an event source does not respond, or refuses what the hub asks for. No secrets in the text."""


class NotSentError(UnavailableError):
    """An internal error before the first byte of a request left: no descriptors, extra missing, TLS file unusable.

    Attributes:
        retry_after: seconds until another attempt makes sense.
    """

    def __init__(self, message: str, *, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class DeliveryError(HubError):
    """One attempt failed.

    Attributes:
        sent: whether the service may have been reached. False: the attempt made no try.
        outcome: bounded label: http_4xx, http_5xx, timeout, connect_error, unroutable, invalid_payload, fault.
        status: HTTP status or None.
        response_body: the response, bounded, or None.
        retry_after: seconds the service asked to wait, or None.
        tries: network sends made, set by the retry policy.
        delivery: the log row of the attempt, set by the gateway.
    """

    outcome: str = "fault"
    sent: bool = True

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        response_body: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.response_body = response_body
        self.retry_after = retry_after
        self.tries = 0
        self.delivery: Delivery | None = None

    @property
    def retriable(self) -> bool:
        """Whether another network try within the same attempt makes sense."""
        return False

    @property
    def counts_against_breaker(self) -> bool:
        """Whether the failure says that the service is down."""
        return False


class InvalidPayloadError(DeliveryError):
    """The rule's template gives no valid request; counts as an attempt, moves no breaker."""

    outcome = "invalid_payload"
    sent = False


class CircuitOpenError(DeliveryError):
    """The circuit is open: nothing was sent, wait `retry_after` seconds."""

    outcome = "circuit_open"
    sent = False


class RateLimitedError(DeliveryError):
    """The service's `rate_limit` is used up: nothing was sent, wait `retry_after` seconds."""

    outcome = "rate_limited"
    sent = False


class SecretsError(DeliveryError):
    """No key of this process opens the service's secrets: nothing was sent. An internal error, not the service's."""

    outcome = "secrets_unreadable"
    sent = False


class TransportError(DeliveryError):
    """The exchange with the service failed."""


class ConnectError(TransportError):
    """No connection, or it broke: refused, DNS, TLS, reset."""

    outcome = "connect_error"

    @property
    def retriable(self) -> bool:
        return True

    @property
    def counts_against_breaker(self) -> bool:
        return True


class TimedOutError(ConnectError):
    """No complete response (or publisher confirm) within the service's timeout."""

    outcome = "timeout"


class RejectedError(TransportError):
    """The response has another status than success."""

    @property
    def outcome(self) -> str:  # type: ignore[override]
        return "http_5xx" if (self.status or 0) >= 500 else "http_4xx"

    @property
    def retriable(self) -> bool:
        return (self.status or 0) >= 500 and self.retry_after is None

    @property
    def counts_against_breaker(self) -> bool:
        return (self.status or 0) >= 500 or self.status == 408


class ExpiredTokenError(RejectedError):
    """The service no longer takes an OAuth token that it took before; the next try fetches another one."""

    @property
    def retriable(self) -> bool:
        return True


class EgressRefusedError(TransportError):
    """The egress guard refuses the address."""

    outcome = "connect_error"
    sent = False


class AuthenticationError(TransportError):
    """The AMQP broker refuses the user, the virtual host or the permission."""

    outcome = "connect_error"


class FaultError(TransportError):
    """The response is a SOAP fault."""

    outcome = "fault"


class UnroutableError(TransportError):
    """The AMQP broker returned or refused (nack) the message."""

    outcome = "unroutable"


class MailRefusedError(TransportError):
    """The mail server refused the session, the sender, a recipient or the message; `status` is its reply code.

    4yz is a temporary refusal: 421 says that the service is not available, the others are about this message.
    """

    @property
    def retriable(self) -> bool:
        return 400 <= (self.status or 0) < 500

    @property
    def counts_against_breaker(self) -> bool:
        return self.status == 421
