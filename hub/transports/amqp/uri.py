"""Parse the AMQP URI of a service's `base_url`.

Follows the RabbitMQ URI specification (https://www.rabbitmq.com/docs/uri-spec): user, password and vhost are
percent-decoded, absent and empty parts differ, `/` in a vhost is written `%2F`.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from hub.domain.urls import check_brackets
from hub.errors import ConfigError

TEXT_PARAMETERS = ("exchange", "routing_key", "queue_declare", "dlq")
PARAMETERS = (*TEXT_PARAMETERS, "heartbeat", "connection_timeout")
_PORTS = {"amqp": 5672, "amqps": 5671}
SHORT_STRING = 255  # bytes of an AMQP short string


@dataclass(frozen=True, slots=True)
class AmqpUri:
    """The parts of a URI; None: absent. A connection uses `at` and `virtual_host`.

    Attributes:
        heartbeat: seconds between heartbeats, 0 for none.
        connection_timeout: most seconds that connecting may take, in addition to the limit of the service's timeout.
    """

    tls: bool = False
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    host: str | None = None
    port: int | None = None
    vhost: str | None = None
    exchange: str = ""
    routing_key: str = ""
    queue_declare: str = ""
    dlq: str = ""
    heartbeat: int | None = None
    connection_timeout: float | None = None

    @property
    def at(self) -> tuple[str, int]:
        """Host and port to connect to; the defaults are `localhost` and the port of the scheme."""
        return self.host or "localhost", self.port or _PORTS["amqps" if self.tls else "amqp"]

    @property
    def virtual_host(self) -> str:
        """The vhost to open: `/` where it is absent or empty, as in pika and PHP clients.

        In the specification an empty vhost (`amqp://host/`) is not an absent one. But brokers have no vhost with an
        empty name, and a trailing slash is a common habit.
        """
        return self.vhost or "/"

    def credentials(self, secret: str | None) -> tuple[str, str]:
        """User and password; `secret` is the stored password, which overrides that of the URI."""
        if self.user is None and self.password is None and not secret:
            return "guest", "guest"
        return self.user or ("guest" if self.user is None else ""), secret or self.password or ""

    def key_for(self, endpoint: str) -> str:
        """The routing key: the rule's endpoint, else `routing_key`, else `queue_declare`."""
        return endpoint or self.routing_key or self.queue_declare


def parse(url: str) -> AmqpUri:
    """Parse `amqp[s]://user:pass@host:port/vhost?exchange=&routing_key=&queue_declare=&dlq=`.

    Raises:
        ConfigError: not such a URI, or a parameter is unknown, repeated or unusable. The text does not show the
            password.
    """
    if re.search(r"[\x00-\x20\x7f]", url):
        raise _error("has a blank or control character; percent-encode it")
    scheme, colon, rest = url.partition("://")
    if not colon or scheme.lower() not in _PORTS:
        raise _error("starts with neither amqp:// nor amqps://")
    try:
        parts = urlsplit(f"amqp://{rest}")
        check_brackets(parts.netloc)
        literal = parts.netloc.rpartition("@")[2]
        host, port = parts.hostname, parts.port
        if literal.startswith("["):
            ipaddress.IPv6Address(host or "")
    except ValueError:
        raise _error(
            "has no usable host and port; reserved characters in user and password are percent-encoded"
        ) from None
    if parts.fragment or "#" in url:
        raise _error("has a #; percent-encode it as %23")
    if port == 0:
        raise _error("has port 0")
    userinfo, at, _ = parts.netloc.rpartition("@")
    user, separator, password = userinfo.partition(":")
    if "/" in parts.path[1:]:
        raise _error("has a path of several parts; a / in a vhost is written %2F")
    return AmqpUri(
        tls=scheme.lower() == "amqps",
        user=_decoded(user, "user") if at else None,
        password=_decoded(password, "password") if separator else None,
        host=_decoded(host, "host") if host else None,
        port=port,
        vhost=_decoded(parts.path[1:], "vhost") if parts.path else None,
        **_parameters(parts.query),  # type: ignore[arg-type]
    )


def _parameters(query: str) -> dict[str, object]:
    found: dict[str, object] = {}
    for pair in filter(None, query.split("&")):
        name, _, raw = pair.partition("=")
        if name not in PARAMETERS:
            raise _error(f"has the unknown parameter {name[:50]!r}; known: {', '.join(PARAMETERS)}")
        if name in found:
            raise _error(f"has the parameter {name!r} twice")
        value = _decoded(raw.replace("+", "%20"), name)
        if name in TEXT_PARAMETERS:
            if len(value.encode()) > SHORT_STRING:
                raise _error(f"has a {name} of more than {SHORT_STRING} bytes")
            found[name] = value
        elif value:
            found[name] = _number(name, value)
    if found.get("dlq") and not found.get("queue_declare"):
        raise _error("has a dlq but no queue_declare whose dead letters it would receive")
    if found.get("dlq") and found["dlq"] == found["queue_declare"]:
        raise _error("names one queue as queue_declare and dlq")
    return found


def _number(name: str, value: str) -> int | float:
    if name == "heartbeat":
        if not value.isascii() or not value.isdigit() or int(value[:6]) > 65535:
            raise _error("has a heartbeat that is not a whole number of seconds up to 65535")
        return int(value)
    if not re.fullmatch(r"\d{1,6}(\.\d{1,6})?", value, re.ASCII) or float(value) == 0:
        raise _error(f"has a {name} that is not a number of seconds above 0")
    return float(value)


def _decoded(text: str, what: str) -> str:
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        raise _error(f"has a % in its {what} that encodes nothing; a plain % is written %25")
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise _error(f"has a {what} that is not UTF-8 when percent-decoded") from None


def _error(what: str) -> ConfigError:
    return ConfigError(f"the AMQP URI {what}", field="base_url")
